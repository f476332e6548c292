"""Search of kernel size and kernel: edge-based estimates of several sizes and settings, refined and ranked."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from jax import Array
from numpy.typing import NDArray

from jbid.kernel_estimation.edges import EdgeOptions, estimate_edge_kernel
from jbid.kernel_estimation.ranking import Candidate, order_candidates, rank_candidates
from jbid.kernel_estimation.refine import refine_kernel
from jbid.kernel_estimation.sampling import LARGE_SIZES, Sample, draw_large_kernels, large_sizes
from jbid.ops.kernels import crop_around, place_kernel, support
from jbid.ops.noise import estimate_noise, remove_impulses
from jbid.runtime.compile import jit

# supports for an unknown size, up to a quarter of the image
SIZES = (19, 31, 51, 79)
# (weight, ridge) of `EdgeOptions` for each support of an unknown size, and for a known one
SETTINGS = ((1e-2, 10.0), (2e-2, 20.0))
SETTINGS_OF_ONE = (*SETTINGS, (4e-2, 20.0))
# ... and for a second search, after a doubtful result; large blurs need the stronger ridge
SECOND_SETTINGS = ((1e-2, 40.0), (4e-2, 20.0))
# kernel sizes of networks, so that few shapes are compiled
SIZE_GRID = (9, 13, 17, 21, 25, 31, 37, 45, 55, 65, 77, 91)
KEPT = 2  # candidates that are refined to the end
REFINEMENTS = 4
# standard deviations of the noise, and of the smoothing in pixels before the search for edges
SMOOTHING = ((0.004, 0.01, 0.05), (0.0, 0.6, 1.0))


class KernelEstimate(NamedTuple):
    """Edge-based estimate of a kernel.

    Attributes:
        kernel: square of odd side, just large enough; sum one.
        support: rows and columns with nonzero values.
        candidates: the chosen one first.
        kernels: of the valid candidates, in squares of the size asked for or of the largest one searched.
        fits: least-squares fits that the first `KEPT` kernels were pruned from.
        image: gray image (h, w) of the search, without impulse noise.
        warning: one line, or None.
    """

    kernel: NDArray[np.float32]
    support: tuple[int, int]
    candidates: list[Candidate]
    kernels: list[NDArray[np.float32]]
    fits: list[NDArray[np.float32]]
    image: NDArray[np.float32]
    warning: str | None

    @property
    def is_doubtful(self) -> bool:
        """True if the score terms are unlike those of good estimates on the sets that the score was made on."""
        terms = self.candidates[0].terms
        return terms.flatness > -0.95 or terms.whiteness > 0.3

    def to_dict(self) -> dict[str, Any]:
        """Entry of a report, ready for JSON."""
        return {
            "support": self.support,
            "warning": self.warning,
            "candidates": [candidate.to_dict() for candidate in self.candidates],
        }


@functools.cache
def _estimator(side: int):
    return jit(jax.vmap(partial(estimate_edge_kernel, side=side), (None, 0)))


@functools.cache
def _cleaner():
    return jit(remove_impulses)


def clean_image(image: NDArray) -> NDArray[np.float32]:
    """Image (h, w, c) without its impulse noise."""
    return np.asarray(_cleaner()(jnp.asarray(image)))


@functools.cache
def _refiner():
    return jit(jax.vmap(refine_kernel, (None, 0, 0)))


def round_up_size(support: int) -> int:
    """Size of `SIZE_GRID` that holds a support with two pixels of margin; beyond the grid, the next odd number."""
    needed = support + 4
    return next((size for size in SIZE_GRID if size >= needed), needed | 1)


class _Pool(NamedTuple):
    """Kernels of a search with their supports, latent images, fits and names."""

    kernels: list[NDArray[np.float32]]
    supports: Array
    latents: list[NDArray[np.float32]]
    fits: dict[int, NDArray[np.float32]]
    names: list[str]


def search_kernel(
    image: NDArray[np.float32],
    size: int | None = None,
    *,
    whole: NDArray[np.float32] | None = None,
    settings: Sequence[tuple[float, float]] | None = None,
    before: KernelEstimate | None = None,
) -> KernelEstimate:
    """Estimate the kernel of a gray image from its edges.

    Candidates of all `SIZES` and `settings`, and those of larger sizes that the whole image gives
    (`jbid.kernel_estimation.sampling`), are estimated and refined once side by side; the `KEPT` best ones are refined
    further, and the best of those is the answer (`jbid.kernel_estimation.ranking`).

    Args:
        image: (h, w) in [0, 1], or a patch of it.
        size: largest side of the kernel; None: found by the search.
        whole: the whole image, in which larger kernels are searched; None: they are not.
        settings: pairs of weight and ridge.
        before: estimate of an earlier search, which takes part as one more candidate.
    """
    sizes = _sizes(image.shape, size)
    settings = settings or (SETTINGS if size is None else SETTINGS_OF_ONE)
    image = clean_image(image[..., None])[..., 0]
    larger = large_sizes(whole.shape, size) if whole is not None else []
    extra = [Sample(f"first search: {before.candidates[0].name}", before.kernel, max(sizes))] if before else []
    if whole is not None and larger:
        whole = clean_image(whole[..., None])[..., 0]
        extra += draw_large_kernels(whole, larger, _smooth(whole))
    pool = _estimate_all(image, [(s, *setting) for s in sizes for setting in settings], extra)
    best = np.array(order_candidates(rank_candidates(image, pool.latents, pool.kernels, pool.names))[:KEPT])
    pool = _refine(image, pool, best)
    # all candidates take part in the agreement, but only the refined ones can be chosen
    ranked = rank_candidates(image, pool.latents, pool.kernels, pool.names)
    order = order_candidates(ranked)
    order = [i for i in order if i in best] + [i for i in order if i not in best]
    return _summarize(image, pool, [ranked[i] for i in order], order, size, max([*sizes, *larger]), before)


def _sizes(shape: tuple[int, ...], size: int | None) -> list[int]:
    largest = max(9, min(shape) // 4)
    if size is None:
        return [s for s in SIZES if s <= largest] or [largest // 2 * 2 - 1]
    # slightly more than the blur needs, because a tight frame is worse; and much less, because a far larger one is too
    return [*(s for s in SIZES if s <= size // 2), min(size + 8, max(largest | 1, size))]


def _smooth(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Image for the search for edges, which needs smooth ones; the refinement restores what this costs the kernel."""
    width = np.interp(float(estimate_noise(jnp.asarray(image)[..., None])), *SMOOTHING)
    return scipy.ndimage.gaussian_filter(image, width)


def _frame(side: int, extra: Sequence[Sample], shape: tuple[int, ...]) -> int:
    """Side of the squares that kernels are refined in: one of few, so that few shapes are compiled."""
    extents = [part.stop - part.start for sample in extra for part in support(sample.kernel)]
    needed = max(extents, default=0) * 5 // 4 + 4
    frames = (s for s in (side, *LARGE_SIZES) if s >= max(side, needed))
    return max(side, min(next(frames, needed), min(shape) // 2 - 1) | 1)


def _estimate_all(image: NDArray, options: Sequence[tuple[int, float, float]], extra: Sequence[Sample]) -> _Pool:
    """Estimates with all options and those of `extra`, refined once."""
    columns = EdgeOptions(*(jnp.asarray(column) for column in zip(*options)))
    side = max(size for size, _, _ in options)
    kernels = list(np.asarray(_estimator(side)(jnp.asarray(_smooth(image)), columns)))
    frame = _frame(side, extra, image.shape)
    rim = (frame - side) // 2
    stack = [np.pad(kernel, rim) for kernel in kernels] + [place_kernel(s.kernel, frame) for s in extra]
    supports = jnp.asarray([s for s, _, _ in options] + [min(s.size, frame) for s in extra])
    names = [f"size {s}, weight {w:g}, ridge {r:g}" for s, w, r in options] + [s.name for s in extra]
    refined, latents, _ = _refiner()(jnp.asarray(image), jnp.asarray(np.stack(stack)), supports)
    return _Pool(list(np.asarray(refined)), supports, list(np.asarray(latents)), {}, names)


def _refine(image: NDArray, pool: _Pool, indices: NDArray) -> _Pool:
    """The pool with some of its kernels refined to the end."""
    y = jnp.asarray(image)
    kernels, supports = np.stack(pool.kernels)[indices], pool.supports[indices]
    for _ in range(REFINEMENTS - 1):
        kernels, latents, fits = _refiner()(y, kernels, supports)
    for i, kernel, latent in zip(indices, np.asarray(kernels), np.asarray(latents)):
        pool.kernels[i], pool.latents[i] = kernel, latent
    return pool._replace(fits=dict(zip(indices.tolist(), np.asarray(fits))))


def _summarize(
    image: NDArray,
    pool: _Pool,
    candidates: list[Candidate],
    order: list[int],
    size: int | None,
    side: int,
    before: KernelEstimate | None,
) -> KernelEstimate:
    kernel = pool.kernels[order[0]]
    rows, columns = support(kernel)
    extent = (rows.stop - rows.start, columns.stop - columns.start)
    # a kernel that is NaN or empty has no support
    valid = [i for i in order if np.isfinite(pool.kernels[i]).all() and pool.kernels[i].any()]
    frame = size or side
    estimate = KernelEstimate(
        kernel=place_kernel(kernel, size or max(extent) | 1),
        support=extent,
        candidates=candidates,
        kernels=[place_kernel(pool.kernels[i], frame) for i in valid],
        fits=[crop_around(pool.fits[i], support(pool.kernels[i]), frame) for i in valid if i in pool.fits],
        image=image,
        warning=None,
    )
    return estimate._replace(warning=_warning(estimate, size, side, before is not None))


def _warning(estimate: KernelEstimate, size: int | None, side: int, is_second: bool) -> str | None:
    share = max(estimate.support) / side
    # the residual of a kernel that is cut off has structure
    is_cut = share >= 0.9 or (share >= 0.7 and estimate.candidates[0].terms.whiteness > 0.15)
    if size is None and is_cut:
        h, w = estimate.image.shape
        return (
            f"the blur may exceed {side} pixels, the largest size searched in {w}x{h} pixels. Scale the image down, or "
            "set `kernel_size`."
        )
    if estimate.is_doubtful and is_second:
        return (
            "low confidence in the estimated kernel: blur or noise may be too strong. Try a `region` with clear edges, "
            "a `kernel_size`, or a network `method` with several `n_seeds`."
        )
    return None
