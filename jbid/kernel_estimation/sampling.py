"""Many estimates of a kernel at a reduced scale, where they cost little; the best of them at the full one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from jbid.kernel_estimation.edges import (
    LONG,
    RATIO,
    SHORT,
    EdgeOptions,
    Schedule,
    estimate_edge_kernels,
    sample_edge_kernels,
    wide_frame,
)
from jbid.kernel_estimation.gain import GainPredictor
from jbid.kernel_estimation.ranking import latent_images
from jbid.ops.kernels import prune_kernel
from jbid.ops.noise import estimate_noise
from jbid.ops.periodic import enlarge, resize
from jbid.runtime.parallel import map_threads

# supports that are searched in a patch of the full scale, up to a quarter of it
SIZES = (13, 19, 31, 51, 79)
# ... and in the whole image at a reduced scale, up to half of it
LARGE_SIZES = (79, 121, 181, 271)
# (weight, ridge) of `EdgeOptions` for each of them
SETTINGS = ((1e-2, 10.0), (2e-2, 20.0), (4e-2, 20.0))
LARGE_SETTINGS = ((4e-3, 20.0), (1e-2, 5.0), (1.5e-2, 20.0), (4e-2, 20.0))
SMALLEST_SIDE = 384  # pixels; smaller images have no larger supports than those of the patch
LARGE_PIXELS = 180_000  # of the reduced whole image, at most
PAUSE = 2  # scale at which the estimates of the patch are judged, half the full one
CONTINUED = 6  # estimates of the patch that are continued to the full scale
CONTINUED_LARGE = 2  # ... and of the whole image, of different sizes, because those of one often share their errors
# standard deviations of the noise, and of the smoothing in pixels before the search for edges
SMOOTHING = ((0.004, 0.01, 0.05), (0.0, 0.6, 1.0))


class Sample(NamedTuple):
    """One estimate.

    Attributes:
        name: for reports.
        kernel: square of odd side.
        size: side of its support, at most.
    """

    name: str
    kernel: NDArray[np.float32]
    size: int


class _Paused(NamedTuple):
    """An estimate at a reduced scale.

    Attributes:
        name: for reports.
        kernel: at that scale.
        option: (size, weight, ridge) at the full scale.
        scale: its number; each is `RATIO` times the one below, and 0 the full one.
        schedule: effort of the finer scales.
        rank: by `jbid.kernel_estimation.gain`, the larger the better.
    """

    name: str
    kernel: NDArray[np.float32]
    option: tuple[int, float, float]
    scale: int
    schedule: Schedule
    rank: float


def smooth_noise(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Image for the search for edges, which needs smooth ones; the refinement restores what this costs the kernel."""
    width = np.interp(float(estimate_noise(image[..., None])), *SMOOTHING)
    return scipy.ndimage.gaussian_filter(image, width)


def patch_sizes(shape: tuple[int, ...], size: int | None) -> list[int]:
    """Supports to search in a patch (h, w), for an unknown size or one that is given."""
    largest = max(9, min(shape) // 4)
    if size is None:
        return [s for s in SIZES if s <= largest] or [largest // 2 * 2 - 1]
    # slightly more than the blur needs, because a tight frame is worse; and much less, because a far larger one is too
    return [*(s for s in SIZES if s <= size // 2), min(size + 8, max(largest | 1, size))]


def large_sizes(shape: tuple[int, ...], size: int | None) -> list[int]:
    """Supports to search in a whole image (h, w): `LARGE_SIZES` up to half of it, or a little above a given size."""
    if min(shape) < SMALLEST_SIDE:
        return []
    if size is None:
        return [s for s in LARGE_SIZES if s <= min(shape) // 2]
    return [size * 5 // 4 | 1] if LARGE_SIZES[0] <= size <= min(shape) // 2 else []


def _judge(image: NDArray[np.float32], kernels: Sequence[NDArray[np.float32]]) -> list[float]:
    """Rank of each kernel for a gray image, both at one scale."""
    return [found.rank for found in GainPredictor(image).assess(latent_images(image, kernels), kernels)]


def _draw_in_patch(
    image: NDArray[np.float32],
    smoothed: NDArray[np.float32],
    sizes: Sequence[int],
    settings: Sequence[tuple[float, float]],
) -> list[_Paused]:
    options = [(size, *setting) for size in sizes for setting in settings]
    kernels = sample_edge_kernels(smoothed, options, LONG, last=PAUSE)
    shape = (round(image.shape[0] * RATIO**PAUSE), round(image.shape[1] * RATIO**PAUSE))
    ranks = _judge(resize(image, shape).astype(np.float32), kernels)
    return [
        _Paused(f"size {size}, weight {weight:g}, ridge {ridge:g}", kernel, (size, weight, ridge), PAUSE, LONG, rank)
        for (size, weight, ridge), kernel, rank in zip(options, kernels, ranks)
    ]


def _draw_in_whole(image: NDArray[np.float32], sizes: Sequence[int]) -> list[_Paused]:
    halvings = max(0, math.ceil(math.log(image.size / LARGE_PIXELS, 4)))
    shape = (image.shape[0] >> halvings, image.shape[1] >> halvings)
    judged, reduced = (resize(x, shape).astype(np.float32) if halvings else x for x in (image, smooth_noise(image)))
    options = [((size >> halvings) | 1, *setting) for size in sizes for setting in LARGE_SETTINGS]
    kernels = sample_edge_kernels(reduced, options, SHORT)
    paused = []
    for (reduced_size, weight, ridge), kernel, rank in zip(options, kernels, _judge(judged, kernels)):
        size = (reduced_size << halvings) | 1
        name = f"whole image, size {size}, weight {weight:g}, ridge {ridge:g}"
        paused.append(_Paused(name, kernel, (size, weight, ridge), 2 * halvings, SHORT, rank))
    return paused


def _continue(smoothed: NDArray[np.float32], paused: _Paused) -> list[Sample]:
    """Estimates at the full scale, of the image that the last scales see."""
    size = paused.option[0]
    options = EdgeOptions(*(np.asarray([value], np.float32) for value in paused.option))
    kernel = paused.kernel
    if paused.scale:
        (kernel,) = estimate_edge_kernels(
            smoothed,
            options,
            side=wide_frame(size),
            schedule=paused.schedule,
            initial=kernel[None],
            first=paused.scale - 1,
        )
    # what the centering moved out of the square is lost
    samples = [Sample(paused.name, kernel / kernel.sum(), size)]
    if paused.scale and paused.schedule is SHORT:
        # the finer scales spoil some large kernels
        larger = prune_kernel(enlarge(paused.kernel, size, RATIO**-paused.scale))
        samples.append(Sample(f"{paused.name}, enlarged", larger, size))
    return samples


def draw_kernels(
    image: NDArray[np.float32],
    sizes: Sequence[int],
    settings: Sequence[tuple[float, float]] = SETTINGS,
    *,
    whole: NDArray[np.float32] | None = None,
    larger: Sequence[int] = (),
) -> list[Sample]:
    """Estimates of the kernel of a gray image, coarse to fine.

    Estimates of all sizes and settings are drawn at a reduced scale and ranked there: small supports in the image
    itself at half its scale, large ones in the whole image at a scale of at most `LARGE_PIXELS`, where they fail less
    often than at the full one. The best ones of both are continued over the finer scales.

    Args:
        image: (h, w) in [0, 1], or a patch of it.
        sizes: supports to search in it, of `patch_sizes`.
        settings: pairs of weight and ridge for these.
        whole: the whole image.
        larger: supports to search in the whole image, of `large_sizes`.
    """
    smoothed = smooth_noise(image)
    paused = _draw_in_patch(image, smoothed, sizes, settings)
    best = sorted(paused, key=lambda p: -p.rank)[:CONTINUED]
    if whole is not None and larger:
        of_size: dict[int, _Paused] = {}
        for sample in sorted(_draw_in_whole(whole, larger), key=lambda p: -p.rank):
            of_size.setdefault(sample.option[0], sample)
        best += list(of_size.values())[:CONTINUED_LARGE]
    return [sample for samples in map_threads(lambda p: _continue(smoothed, p), best) for sample in samples]
