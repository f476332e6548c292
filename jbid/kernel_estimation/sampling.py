"""Large blurs: many estimates of the whole image at a reduced scale, the best of them at the full one."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jbid.deconvolution.sparse import CONTRAST
from jbid.deconvolution.splitting import deconvolve_splitting
from jbid.kernel_estimation.edges import SHORT, EdgeOptions, estimate_edge_kernel
from jbid.kernel_estimation.ranking import gradient_norm, whiteness
from jbid.ops.kernels import place_kernel, prune_kernel, support
from jbid.ops.periodic import enlarge, resize
from jbid.runtime.compile import jit
from jbid.runtime.environment import core_count

# supports, up to half the image
LARGE_SIZES = (79, 121, 181, 271)
# (weight, ridge) of `EdgeOptions` for each of them
LARGE_SETTINGS = ((4e-3, 20.0), (1e-2, 5.0), (1.5e-2, 20.0), (4e-2, 20.0))
SMALLEST_SIDE = 384  # pixels; the search for smaller supports serves smaller images
LARGE_PIXELS = 180_000  # of the reduced image, at most
TAKEN = 2  # sizes that are continued at the full scale

T = TypeVar("T")
U = TypeVar("U")


class Sample(NamedTuple):
    """One estimate.

    Attributes:
        name: for reports.
        kernel: square.
        size: side of its support, at most.
    """

    name: str
    kernel: NDArray[np.float32]
    size: int


def quick_score(image: NDArray[np.float32], kernel: NDArray[np.float32]) -> float:
    """No-reference score of a kernel for a gray image (h, w); lower is better.

    log(q / rms) + 0.1 w, with q the 70 % quantile of |grad x|, rms its root mean square and w the `whiteness` of the
    residual, x by `deconvolve_splitting`: ringing fills areas that should be flat, and the residual of a wrong kernel
    has structure. The quantile was chosen on simulated blurs (docs/development-notes.md).
    """
    image = image * np.float32(CONTRAST / max(float(image.std()), 1e-3))
    side = max(3, *(part.stop - part.start for part in support(kernel))) | 1
    x, residual = deconvolve_splitting(image, place_kernel(kernel, side))
    gradient = gradient_norm(x)
    rms = np.sqrt(np.mean(gradient**2)) + 1e-9
    return float(np.log(np.quantile(gradient, 0.7) / rms + 1e-9)) + 0.1 * whiteness(residual)


@functools.lru_cache(maxsize=16)
def _batched(side: int):
    return jit(jax.vmap(partial(estimate_edge_kernel, side=side, schedule=SHORT), (None, 0)))


def _on_threads(function: Callable[[T], U], items: Sequence[T]) -> list[U]:
    """[function(item) for item in items] on all cores; NumPy and SciPy work outside of Python's lock."""
    with ThreadPoolExecutor(core_count()) as threads:
        return list(threads.map(function, items))


def _estimate(image: NDArray[np.float32], options: Sequence[EdgeOptions]) -> list[NDArray[np.float32]]:
    """Estimates with all options: on CPU on the host, where nothing is compiled; on an accelerator all at once."""
    if jax.default_backend() == "cpu":
        return _on_threads(lambda o: estimate_edge_kernel(image, o, side=int(o.size), schedule=SHORT), options)
    columns = EdgeOptions(*(jnp.asarray(column) for column in zip(*options)))
    return list(np.asarray(_batched(max(int(o.size) for o in options))(jnp.asarray(image), columns)))


def large_sizes(shape: tuple[int, ...], size: int | None) -> list[int]:
    """Supports to search for an image (h, w): `LARGE_SIZES` up to half of it, or a little more than a given size."""
    if min(shape) < SMALLEST_SIDE:
        return []
    if size is None:
        return [s for s in LARGE_SIZES if s <= min(shape) // 2]
    return [size * 5 // 4 | 1] if LARGE_SIZES[0] <= size <= min(shape) // 2 else []


def draw_large_kernels(image: NDArray[np.float32], sizes: Sequence[int], smoothed: NDArray[np.float32]) -> list[Sample]:
    """Estimates of large kernels of a whole gray image, coarse to fine.

    Samples of all `sizes` and `LARGE_SETTINGS` are drawn at a scale of at most `LARGE_PIXELS`, where they cost little
    and fail less often than at the full one, and judged there by `quick_score`. Of the best sample of each size, the
    `TAKEN` best-scoring ones are enlarged, and also continued over the finer scales.

    Args:
        image: (h, w) in [0, 1].
        sizes: odd supports in pixels.
        smoothed: the image, smooth enough for the search for edges.
    """
    halvings = max(0, math.ceil(math.log(image.size / LARGE_PIXELS, 4)))
    shape = (image.shape[0] >> halvings, image.shape[1] >> halvings)
    judged, reduced = (resize(x, shape).astype(np.float32) if halvings else x for x in (image, smoothed))
    options = [EdgeOptions((s >> halvings) | 1, *setting) for s in sizes for setting in LARGE_SETTINGS]
    kernels = _estimate(reduced, options)
    scores = _on_threads(lambda kernel: quick_score(judged, kernel), kernels)
    # the best of each size, because those of one size often share their errors
    best: dict[int, int] = {}
    for i in np.argsort(scores):
        best.setdefault(int(options[i].size), int(i))
    taken = list(best.values())[:TAKEN]

    def finish(job: tuple[int, bool]) -> Sample:
        i, is_continued = job
        o, side = options[i], (int(options[i].size) << halvings) | 1
        name = f"whole image, size {side}, weight {o.weight:g}, ridge {o.ridge:g}"
        if not is_continued:
            larger = enlarge(kernels[i], side, float(1 << halvings)) if halvings else kernels[i]
            return Sample(name, prune_kernel(larger), side)
        kernel = estimate_edge_kernel(
            smoothed, o._replace(size=side), side=side, schedule=SHORT, initial=kernels[i], levels=2 * halvings
        )
        return Sample(f"{name}, continued", kernel, side)

    return _on_threads(finish, [(i, again) for i in taken for again in ((False, True) if halvings else (False,))])
