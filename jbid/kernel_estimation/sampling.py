"""Many estimates of a kernel at half the scale of an image, where they cost little; the best ones at the full one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from jbid.kernel_estimation.edges import (
    LONG,
    RATIO,
    SHORT,
    Schedule,
    estimate_edge_kernels,
    sample_edge_kernels,
    stack_options,
    wide_frame,
)
from jbid.kernel_estimation.gain import GainPredictor
from jbid.kernel_estimation.ranking import latent_images, rank_candidates
from jbid.metrics import kernel_similarity
from jbid.ops.kernels import disc_kernel, extent, prune_kernel
from jbid.ops.noise import estimate_noise
from jbid.ops.periodic import enlarge, resize
from jbid.runtime.parallel import map_threads

SIZES = (13, 19, 31, 45, 61, 79, 121)  # supports that are searched, in pixels
SMALL = 300  # pixels, of the shorter side of an image
LARGE = 45  # from this size on, other settings and fewer rounds
# larger supports are found at a reduced scale, where they have about as many pixels, and enlarged: at finer ones even
# good estimates of large kernels come apart (docs/development-notes.md)
FINEST_LARGEST = 60
# (weight, ridge) of `EdgeOptions` for each size
SETTINGS = ((1e-2, 10.0), (2e-2, 20.0), (4e-2, 20.0))
LARGE_SETTINGS = ((1e-2, 20.0), (2e-2, 20.0), (4e-2, 20.0))
# which setting finds a large kernel is chance, so more of them find more; beyond `MOST_SAMPLED` they take too long
MANY_SETTINGS = tuple((weight, ridge) for weight in (1e-2, 2e-2, 4e-2) for ridge in (5.0, 20.0, 80.0))
MOST_SAMPLED = 79
PAUSE = 2  # scale at which the estimates are judged, half the full one
CONTINUED = 6  # estimates that are continued to the full scale
# of a search with the intensity prior as well:
INTENSITY = 0.25  # of `EdgeOptions`
INTENSITY_SETTINGS = ((1e-2, 20.0), (2e-2, 20.0), (4e-2, 20.0))
CONTINUED_OF_TWO = 4
REPEATED = 4  # estimates of each prior that begin another one at the scale `PAUSE`, with each of
REPEATED_SETTINGS = ((1e-2, 20.0), (2e-2, 20.0))
OTHERS = 2  # of these, continued if they differ from the best one: have a similarity of less than
DIFFERENT = 0.9
SCORE_SHARE = 0.2  # of the no-reference score in their choice
NARROWED = 2  # of all that are continued, once more with a support of
ROOM = 1.3  # times the extent found at the scale `PAUSE`, or the next larger one
Options = tuple[int, float, float, float]  # of one estimate: size, weight, ridge and intensity of `EdgeOptions`
# standard deviations of the noise, and of the smoothing in pixels before the search for edges
SMOOTHING = ((0.004, 0.01, 0.05), (0.0, 0.6, 1.0))
INVISIBLE = 1e-4  # standard deviation of noise that no eye sees, and that leads to another estimate


class Plan(NamedTuple):
    """Estimates that a search draws.

    Attributes:
        settings: pairs of weight and ridge for all sizes; None: `SETTINGS`, and `LARGE_SETTINGS` for large ones.
        many: `MANY_SETTINGS` for large sizes.
        two_priors: estimates with the intensity prior too.
    """

    settings: Sequence[tuple[float, float]] | None = None
    many: bool = False
    two_priors: bool = False

    def settings_of(self, size: int) -> Sequence[tuple[float, float]]:
        """Those of one size."""
        if self.settings is not None:
            return self.settings
        if size < LARGE:
            return SETTINGS
        return MANY_SETTINGS if self.many and size <= MOST_SAMPLED else LARGE_SETTINGS


class Sample(NamedTuple):
    """One estimate.

    Attributes:
        name: for reports.
        kernel: square of odd side.
        size: side of its support, at most.
        is_disc: True for a uniform disc.
    """

    name: str
    kernel: NDArray[np.float32]
    size: int
    is_disc: bool = False


def add_invisible_noise(image: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Image with noise of a seed, for an independent estimate."""
    noise = np.random.default_rng(seed).standard_normal(image.shape)
    return (image + INVISIBLE * noise).astype(np.float32)


def smooth_noise(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Image for the search for edges, which needs smooth ones; the refinement restores what this costs the kernel."""
    width = np.interp(float(estimate_noise(image[..., None])), *SMOOTHING)
    return scipy.ndimage.gaussian_filter(image, width)


def search_sizes(shape: tuple[int, ...], size: int | None = None) -> list[int]:
    """Supports to search in an image (h, w): `SIZES` up to 0.4 of its shorter side, or those for a given size.

    Up to 0.3 for a `SMALL` image: larger ones take time and found nothing more in Levin's.
    """
    side = min(shape)
    largest = max(9, side * 2 // 5 if side >= SMALL else side * 3 // 10)
    if size is None:
        return [s for s in SIZES if s <= largest] or [largest // 2 * 2 - 1]
    # slightly more than the blur needs, because a tight frame is worse; and much less, because a far larger one is too
    return [*(s for s in SIZES if s <= size // 2), min(size + 8, max(largest | 1, size))]


def half_scale(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Image at the scale `PAUSE`."""
    h, w = image.shape
    return resize(image, (round(h * RATIO**PAUSE), round(w * RATIO**PAUSE))).astype(np.float32)


def best_discs(half: NDArray[np.float32], radii: Sequence[float], count: int) -> list[float]:
    """The `count` radii in pixels of uniform discs with the highest rank, judged at half the scale."""
    kernels = [disc_kernel(radius / 2) for radius in radii]
    found = GainPredictor(half).assess(latent_images(half, kernels), kernels)
    order = sorted(range(len(radii)), key=lambda i: -found[i].rank)
    return [radii[i] for i in order[:count]]


def schedule_of(size: int) -> Schedule:
    """Effort for a support."""
    return SHORT if size >= LARGE else LONG


def _last_scale(size: int) -> int:
    """Number of the finest scale at which a support is estimated."""
    return min(PAUSE, max(0, math.ceil(math.log(FINEST_LARGEST / size) / math.log(RATIO) - 1e-6)))


def _name(options: Options) -> str:
    size, weight, ridge, intensity = options
    return f"size {size}, weight {weight:g}, ridge {ridge:g}" + (", intensity prior" if intensity else "")


class _Estimate(NamedTuple):
    """Estimate at the scale `PAUSE`."""

    name: str
    options: Options
    kernel: NDArray[np.float32]
    latent: NDArray[np.float32]
    rank: float


def _judge(
    half: NDArray[np.float32],
    predictor: GainPredictor,
    names: Sequence[str],
    options: Sequence[Options],
    kernels: Sequence[NDArray[np.float32]],
) -> list[_Estimate]:
    """Estimates with their latent images and ranks, the best first."""
    latents = latent_images(half, kernels)
    ranks = [found.rank for found in predictor.assess(latents, kernels)]
    estimates = [_Estimate(*columns) for columns in zip(names, options, kernels, latents, ranks)]
    return sorted(estimates, key=lambda estimate: -estimate.rank)


def _draw(
    smoothed: NDArray[np.float32], half: NDArray[np.float32], predictor: GainPredictor, options: Sequence[Options]
) -> list[_Estimate]:
    drawn: list[Options] = []
    kernels: list[NDArray[np.float32]] = []
    for schedule in (LONG, SHORT):
        own = [option for option in options if schedule_of(option[0]) is schedule]
        drawn += own
        kernels += sample_edge_kernels(smoothed, own, schedule, last=PAUSE) if own else []
    return _judge(half, predictor, [_name(option) for option in drawn], drawn, kernels)


def _repeat(smoothed: NDArray[np.float32], estimate: _Estimate) -> NDArray[np.float32]:
    """Estimates at the scale `PAUSE` that begin with another one, one for each of `REPEATED_SETTINGS`."""
    kernel, size = estimate.kernel, estimate.options[0]
    coarser = np.maximum(enlarge(kernel, 2 * round((kernel.shape[0] * RATIO - 1) / 2) + 1, RATIO), 0)
    return estimate_edge_kernels(
        smoothed,
        stack_options([(size, *setting, 0.0) for setting in REPEATED_SETTINGS]),
        side=wide_frame(size),
        schedule=schedule_of(size),
        initial=np.stack([coarser / max(coarser.sum(), 1e-30)] * len(REPEATED_SETTINGS)),
        first=PAUSE,
        last=PAUSE,
    )


def _repeat_all(
    smoothed: NDArray[np.float32], half: NDArray[np.float32], predictor: GainPredictor, starts: Sequence[_Estimate]
) -> list[_Estimate]:
    repeated = map_threads(partial(_repeat, smoothed), starts)
    names: list[str] = []
    options: list[Options] = []
    for start in starts:
        for weight, ridge in REPEATED_SETTINGS:
            names.append(f"{start.name}, again with weight {weight:g}")
            options.append((start.options[0], weight, ridge, 0.0))
    return _judge(half, predictor, names, options, [kernel for stack in repeated for kernel in stack])


def _differing(half: NDArray[np.float32], best: Sequence[_Estimate], others: Sequence[_Estimate]) -> list[_Estimate]:
    """`OTHERS` of the others, the best by rank and no-reference score that differ from the best one and each other."""
    estimates = [*others, *best]
    latents, kernels, names = ([getattr(e, name) for e in estimates] for name in ("latent", "kernel", "name"))
    candidates = rank_candidates(half, latents, kernels, names)
    worth = [e.rank - SCORE_SHARE * candidate.terms.score for e, candidate in zip(estimates, candidates)]
    found = [best[0]]
    for i in sorted(range(len(others)), key=lambda i: -worth[i]):
        if all(kernel_similarity(estimates[i].kernel, other.kernel) < DIFFERENT for other in found):
            found.append(estimates[i])
        if len(found) > OTHERS:
            break
    return found[1:]


def _narrowed(estimate: _Estimate) -> _Estimate | None:
    """The estimate with a support that suits what was found; None if it has none too large."""
    drawn, weight, ridge, intensity = estimate.options
    found = extent(estimate.kernel) / RATIO**PAUSE
    size = next((size for size in SIZES if ROOM * found <= size < drawn), None)
    if size is None:
        return None
    return estimate._replace(
        name=f"{estimate.name}, continued with size {size}", options=(size, weight, ridge, intensity)
    )


def _continue(smoothed: NDArray[np.float32], estimate: _Estimate) -> Sample:
    """Estimate at the full scale, from one at the scale `PAUSE`."""
    kernel, size = estimate.kernel, estimate.options[0]
    last, side = _last_scale(size), wide_frame(size)
    if last < PAUSE:
        # `side` is that of the full scale, so that the scales in between are the same as in a search down to it
        (kernel,) = estimate_edge_kernels(
            smoothed,
            stack_options([estimate.options]),
            side=side,
            schedule=schedule_of(size),
            initial=kernel[None],
            first=PAUSE - 1,
            last=last,
        )
    if last:
        kernel = prune_kernel(enlarge(kernel, side, RATIO**-last))
    # what the centering moved out of the square is lost
    return Sample(estimate.name, kernel / kernel.sum(), size)


def draw_kernels(
    image: NDArray[np.float32], half: NDArray[np.float32], sizes: Sequence[int], plan: Plan
) -> list[Sample]:
    """Estimates of the kernel of a gray image, coarse to fine.

    Estimates of all sizes and settings are drawn at half the scale and ranked there; the best `CONTINUED` are continued
    over the finer scales. With two priors, `CONTINUED_OF_TWO`; there are estimates with the intensity prior as well,
    and the best `REPEATED` of both kinds begin further ones. Those that differ are continued too, and so are the best
    of all with a narrower support.

    Args:
        image: (h, w) in [0, 1].
        half: `half_scale` of it.
        sizes: supports, of `search_sizes`.
        plan: what to draw.
    """
    smoothed, predictor = smooth_noise(image), GainPredictor(half)
    draw = partial(_draw, smoothed, half, predictor)
    drawn = draw([(size, *setting, 0.0) for size in sizes for setting in plan.settings_of(size)])
    best = drawn[:CONTINUED]
    if plan.two_priors:
        pairs = plan.settings or INTENSITY_SETTINGS
        dark = draw([(size, *setting, INTENSITY) for size in sizes for setting in pairs])
        repeated = _repeat_all(smoothed, half, predictor, drawn[:REPEATED] + dark[:REPEATED])
        best, rest = drawn[:CONTINUED_OF_TWO], drawn[CONTINUED_OF_TWO:]
        best += _differing(half, best, rest + dark + repeated)
        best += [e for e in map(_narrowed, best) if e is not None][:NARROWED]
    return map_threads(partial(_continue, smoothed), best)
