"""What is decided without the user: the kernel to set out from, its size, and which of several answers is best."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from jbid.kernel_estimation.edges import EdgeSettings, estimate_edge_kernel
from jbid.kernel_estimation.ranking import Candidate, order_candidates, rank_candidates
from jbid.kernel_estimation.refine import refine_kernel
from jbid.ops.kernels import crop_around, place_kernel, support
from jbid.ops.noise import estimate_noise, remove_impulses
from jbid.runtime.compile import jit

# Supports that are tried where the size is not known, as far as they are at most a quarter of the picture
SIZES = (19, 31, 51, 79)
# (weight, ridge) of `EdgeSettings` that are tried for each support, and for one that is known
SETTINGS = ((1e-2, 10.0), (2e-2, 20.0))
SETTINGS_OF_ONE = (*SETTINGS, (4e-2, 20.0))
# ... and in a second go, for pictures whose answer looks doubtful; large blurs need the stronger ridge
SECOND_SETTINGS = ((1e-2, 40.0), (4e-2, 20.0))
# Kernel sizes that networks are made for: a ladder, so that few shapes are compiled
SIZE_GRID = (9, 13, 17, 21, 25, 31, 37, 45, 55, 65, 77, 91)
KEPT = 2  # candidates that are refined to the end
REFINEMENTS = 4
# How far, in pixels, a picture is smoothed before its edges are looked for, by the noise's standard deviation
SMOOTHING = ((0.004, 0.01, 0.05), (0.0, 0.6, 1.0))


class KernelEstimate(NamedTuple):
    """An estimated kernel and how it was found."""

    kernel: NDArray[np.float32]  # square and odd, just large enough; sum one
    support: tuple[int, int]  # rows and columns that are not zero
    candidates: list[Candidate]  # the chosen one first
    kernels: list[NDArray[np.float32]]  # of those that are sound, in squares of the size asked for or the largest tried
    fits: list[NDArray[np.float32]]  # what the first of the kernels, up to `KEPT`, were pruned from
    image: NDArray[np.float32]  # that they were found on, without impulse noise
    warning: str | None

    @property
    def doubtful(self) -> bool:
        """Whether the answer looks unlike the good ones of the sets that the score was made on."""
        terms = self.candidates[0].terms
        return terms.flatness > -0.95 or terms.whiteness > 0.3

    def to_dict(self) -> dict[str, Any]:
        """For a report."""
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


def clean_image(picture: NDArray) -> NDArray[np.float32]:
    """A picture (h, w, c) without its impulse noise."""
    return np.asarray(_cleaner()(jnp.asarray(picture)))


@functools.cache
def _refiner():
    return jit(jax.vmap(refine_kernel, (None, 0, 0)))


def round_up_size(support: int) -> int:
    """The size in `LADDER` that holds a support with two pixels to spare on each side; beyond, the next odd number."""
    wanted = support + 4
    return next((size for size in SIZE_GRID if size >= wanted), wanted | 1)


def search_kernel(
    picture: NDArray[np.float32],
    size: int | None = None,
    *,
    settings: Sequence[tuple[float, float]] | None = None,
    before: KernelEstimate | None = None,
) -> KernelEstimate:
    """A kernel from the edges of one gray picture (h, w) in [0, 1], of at most `size` pixels if that is given.

    Candidates for all `SIZES` and `settings` (weight and ridge) are estimated and refined once side by side; the `KEPT`
    best ones are refined further; the best of those is the answer (`jbid.score`). The answer of an earlier go takes
    part as one more candidate.
    """
    largest = max(9, min(picture.shape) // 4)
    if size is None:
        sizes = [s for s in SIZES if s <= largest] or [largest // 2 * 2 - 1]
    else:
        # a little more room than the blur itself needs, as a tight box is worse; and much less, as far too much is too
        sizes = [*(s for s in SIZES if s <= size // 2), min(size + 8, max(largest | 1, size))]
    settings = settings or (SETTINGS if size is None else SETTINGS_OF_ONE)
    tried = [(s, *setting) for s in sizes for setting in settings]
    side = max(sizes)
    several = EdgeSettings(*(jnp.asarray(column) for column in zip(*tried)))
    picture = clean_image(picture[..., None])[..., 0]
    y = jnp.asarray(picture)
    # the estimate from edges needs smooth ones; what that takes from the kernel, the refinement brings back
    width = np.interp(float(estimate_noise(y[..., None])), *SMOOTHING)
    smooth = jnp.asarray(scipy.ndimage.gaussian_filter(picture, width))
    kernels, supports = _estimator(side)(smooth, several), several.size
    if before is not None:
        kernels = jnp.concatenate([kernels, place_kernel(before.kernel, side)[None]])
        supports = jnp.append(supports, side)
    kernels, images, _ = _refiner()(y, kernels, supports)
    names = [f"size {s}, weight {w:g}, ridge {r:g}" for s, w, r in tried]
    if before is not None:
        names.append(f"before: {before.candidates[0].name}")
    pool, latents = list(np.asarray(kernels)), list(np.asarray(images))
    first = rank_candidates(picture, latents, pool, names)
    best = np.array(order_candidates(first)[:KEPT])
    final, sides = kernels[best], supports[best]
    for _ in range(REFINEMENTS - 1):
        final, images, fits = _refiner()(y, final, sides)
    for i, k, x in zip(best, np.asarray(final), np.asarray(images)):
        pool[i], latents[i] = k, x
    fit_of = dict(zip(best, np.asarray(fits)))
    # agreement is taken with all of them, the choice is among those refined to the end
    judged = rank_candidates(picture, latents, pool, names)
    order = [i for i in order_candidates(judged) if i in best]
    order += [i for i in order_candidates(judged) if i not in best]
    candidates = [judged[i] for i in order]
    kernel = pool[order[0]]
    rows, columns = support(kernel)
    extent = (rows.stop - rows.start, columns.stop - columns.start)
    warning = None
    share = max(extent) / side
    # a kernel that is cut off leaves a residual with structure
    if size is None and (share >= 0.9 or (share >= 0.7 and candidates[0].terms.whiteness > 0.15)):
        warning = (
            f"the blur may be larger than {side} pixels, the most that is looked for in {picture.shape[1]}x"
            f"{picture.shape[0]} pixels; scale the picture down, or give --kernel-size"
        )
    # a kernel that is no number or empty has no support
    at = [i for i in order if np.isfinite(pool[i]).all() and pool[i].any()]
    sound = [place_kernel(pool[i], size or side) for i in at]
    pruned_from = [crop_around(fit_of[i], support(pool[i]), size or side) for i in at if i in fit_of]
    kernel = place_kernel(kernel, size or max(extent) | 1)
    found = KernelEstimate(kernel, extent, candidates, sound, pruned_from, picture, warning)
    if found.doubtful and not warning and before is not None:
        warning = (
            "the blur that was found looks doubtful: there may be more blur or noise than can be handled; try --region "
            "on a part with clear edges, --kernel-size, or --seeds"
        )
    return found._replace(warning=warning)
