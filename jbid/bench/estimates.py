"""Samples of the edge-based estimate for the variance benchmark: how much depends on chance.

The search of `jbid.kernel_estimation.search` draws its estimates at half the scale of the (reduced) image and judges
them there. So do these samples, with random options and invisible noise in place of the fixed options of the search.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jbid.bench.cells import FAILED, Cell
from jbid.bench.protocols import Protocol
from jbid.bench.scoring import quantize
from jbid.data.levin import resize_item
from jbid.kernel_estimation.edges import sample_edge_kernels
from jbid.kernel_estimation.gain import GainPredictor
from jbid.kernel_estimation.ranking import latent_images, rank_candidates
from jbid.kernel_estimation.sampling import (
    INVISIBLE,
    PAUSE,
    half_scale,
    schedule_of,
    search_sizes,
    smooth_noise,
)
from jbid.kernel_estimation.search import clean_image, search_image
from jbid.metrics import kernel_similarity
from jbid.ops.color import luma
from jbid.ops.conv import crop_center
from jbid.ops.kernels import pad_to_odd_square, place_kernel
from jbid.runtime.parallel import map_threads

# ranges of the options, which are drawn with even logarithms; `jbid.kernel_estimation.edges.EdgeOptions`
WEIGHTS = (5e-3, 6e-2)
RIDGES = (4.0, 100.0)
AT_ONCE = 8  # samples between two questions whether to stop


class SampleOptions(NamedTuple):
    """Options of one sample.

    Attributes:
        size: support in pixels of the image that is searched.
        weight, ridge: of `EdgeOptions`.
        noise: standard normal, of the image's shape.
    """

    size: int
    weight: float
    ridge: float
    noise: NDArray[np.float32]


def draw_options(seed: int, sizes: list[int], shape: tuple[int, ...]) -> SampleOptions:
    """Random options of the sample with this seed."""
    rng = np.random.default_rng(seed)
    size = int(rng.choice(sizes))
    weight, ridge = (float(np.exp(rng.uniform(*np.log(ends)))) for ends in (WEIGHTS, RIDGES))
    return SampleOptions(size, weight, ridge, rng.standard_normal(shape, np.float32))


def sample_kernels(
    image: NDArray[np.float32],
    first: int,
    count: int,
    on_progress: Callable[[], object],
    is_cancelled: Callable[[], bool],
) -> list[NDArray[np.float32]] | None:
    """Estimates of the kernel of a gray image at half its scale, each with sum one; None if it was cancelled.

    Args:
        image: (h, w) in [0, 1].
        first: seed of the first estimate.
        count: number of estimates.
        on_progress: called after each.
        is_cancelled: asked after each `AT_ONCE` of them.
    """
    sizes = search_sizes(image.shape)

    def estimate(seed):
        options = draw_options(seed, sizes, image.shape)
        smooth = smooth_noise(image + np.float32(INVISIBLE) * options.noise)
        (kernel,) = sample_edge_kernels(smooth, [(*options[:3], 0.0)], schedule_of(options.size), last=PAUSE)
        on_progress()
        return kernel

    kernels: list[NDArray[np.float32]] = []
    for start in range(first, first + count, AT_ONCE):
        if is_cancelled():
            return None
        kernels += map_threads(estimate, range(start, min(start + AT_ONCE, first + count)))
    return kernels


def run_samples(
    cell: Cell, protocol: Protocol, is_cancelled: Callable[[], bool]
) -> tuple[dict[str, Any], NDArray[np.float32], NDArray[np.float32]] | None:
    """Draw the samples of a cell, and score the deconvolutions with them at the scale at which they were drawn.

    Returns:
        As `jbid.bench.cells.run_cell`, without losses; None if it was cancelled.
    """
    scoring = protocol.to_dict()
    item, first, count = cell.item, cell.config.seed, cell.config.n_seeds
    assert item.sharp is not None and item.kernel is not None
    gray = clean_image(luma(item.blurred))[..., 0]
    image = search_image(gray)
    with tqdm(total=count, desc=cell.name, unit="sample", dynamic_ncols=True) as bar:
        kernels = sample_kernels(image, first, count, bar.update, is_cancelled)
    if kernels is None:
        return None
    half = half_scale(image)
    scale = half.shape[0] / gray.shape[0]
    gray_item = item._replace(blurred=gray[..., None], sharp=luma(np.asarray(item.sharp)))
    # the scale of two roundings
    reduced = resize_item(gray_item, scale, (half.shape[0], half.shape[1]))
    # its border and shift are in pixels of the image itself
    protocol = protocol._replace(border=round(protocol.border * scale), max_shift=math.ceil(protocol.max_shift * scale))
    assert reduced.kernel is not None
    true_kernel, sharp = pad_to_odd_square(reduced.kernel), np.asarray(reduced.sharp)
    latents = latent_images(half, [*kernels, true_kernel])

    def score(latent, kernel):
        image = crop_center(latent[..., None], kernel.shape)
        return protocol.score(quantize(np.clip(image, 0, 1)), sharp)

    best = score(latents.pop(), true_kernel)
    scores = map_threads(score, latents, kernels)
    candidates = rank_candidates(half, latents, kernels, [f"seed {first + s}" for s in range(count)])
    found = GainPredictor(half).assess(latents, kernels)
    seeds = []
    for s, (own, candidate) in enumerate(zip(scores, candidates)):
        ratio = own.squared_error / best.squared_error
        entry = {"seed": first + s, "psnr": own.psnr, "ssim": own.ssim, "error_ratio": ratio}
        entry |= {"failed": bool(ratio > FAILED), "kernel_similarity": kernel_similarity(kernels[s], true_kernel)}
        entry |= {"loss": None, "score": candidate.terms.score, "rank": found[s].rank}
        seeds.append(entry | {"terms": candidate.terms._asdict(), "failure": candidate.failure})
    side = max(kernel.shape[0] for kernel in kernels)
    row: dict[str, Any] = {"name": cell.name, "image": item.name, "method": cell.config.method, "init": cell.init}
    row |= {"kernel_size": side, "steps": 0, "scale": scale, "psnr_true_kernel": best.psnr}
    row["psnr_blurred"] = protocol.score(half[..., None], sharp).psnr
    row |= {"identity": cell.identity(), "scoring": scoring, "seeds": seeds}
    return row, np.stack([place_kernel(kernel, side) for kernel in kernels]), np.empty((0, count), np.float32)
