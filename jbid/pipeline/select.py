"""Choice of the answer among the candidates for one image, without the ground truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jbid.kernel_estimation.ranking import (
    Candidate,
    find_failure,
    latent_images,
    order_candidates,
    rank_candidates,
)
from jbid.ops.color import luma
from jbid.ops.kernels import average_kernels, place_kernel
from jbid.pipeline.config import ESTIMATES, Config
from jbid.pipeline.prepare import PreparedImage


class Selection(NamedTuple):
    """Candidates of one image in order, the best first.

    Attributes:
        network_image: of the best seed; None without a network.
        candidates: with their scores.
        kernels: of the candidates; empty without a network.
        spread: standard deviation of the image over the valid seeds; None for a single one.
    """

    network_image: NDArray[np.float32] | None
    candidates: list[Candidate]
    kernels: list[NDArray[np.float32]]
    spread: NDArray[np.float32] | None


def rank_initial(prepared: PreparedImage) -> list[Candidate]:
    """Candidates of a method without a network: the initial kernel against the other edge-based estimates."""
    if prepared.estimate is None:
        return []
    initial, image = prepared.initial_kernels[0], prepared.estimate.image
    pair = [initial.kernel, place_kernel(prepared.estimate.kernel, initial.kernel.shape)]
    if np.allclose(pair[0], pair[1], atol=1e-5):
        return prepared.estimate.candidates
    names = [f"initial kernel: {initial.name}", prepared.estimate.candidates[0].name]
    return rank_candidates(image, latent_images(image, pair), pair, names)


def select(
    prepared: PreparedImage,
    config: Config,
    images: NDArray,
    kernels: NDArray,
    losses: NDArray,
    is_deconvolved: bool,
) -> Selection:
    """Rank the seeds of a run, their average and the initial kernels.

    Args:
        prepared: the image.
        config: the run.
        images: networks' images, (seeds, h, w, c).
        kernels: networks' kernels, (seeds, kh, kw).
        losses: (steps done, seeds).
        is_deconvolved: the answer is a deconvolution, for which the average and the initial kernels are candidates
            too; otherwise it is the network image of a seed.
    """
    gray = luma(prepared.observed)[..., 0]
    seeds = [f"seed {config.seed + s}" for s in range(config.n_seeds)]
    names, pool = list(seeds), [np.asarray(k) for k in kernels]
    shown = [luma(x)[..., 0] for x in images]
    valid = [s for s in range(len(seeds)) if find_failure(gray, shown[s], pool[s]) is None]
    spread = None
    if len(valid) > 1 and not prepared.is_kernel_known:
        aligned = [average_kernels([pool[s]], pool[valid[0]]) for s in valid]
        top, left = (n // 2 for n in prepared.kernel_shape)
        spread = np.std(latent_images(gray, aligned), 0)[top : top + gray.shape[0], left : left + gray.shape[1]]
        if is_deconvolved:
            names.append("mean of seeds")
            pool.append(np.mean(aligned, 0))
    if is_deconvolved:
        estimates = [item for item in prepared.initial_kernels if item.name in ESTIMATES]
        names += ["initial kernel" if len(estimates) == 1 else f"initial kernel: {item.name}" for item in estimates]
        pool += [item.kernel for item in estimates]
    latents = latent_images(gray, [np.where(np.isfinite(k), k, 0) for k in pool])
    candidates = rank_candidates(gray, latents, pool, names, [*shown, *latents[len(seeds) :]])
    last = losses[-1] if len(losses) else np.full(len(seeds), np.nan)
    candidates[: len(seeds)] = [c._replace(loss=float(v)) for c, v in zip(candidates, last)]
    if prepared.is_kernel_known:
        # all seeds share the kernel, so only their losses differ
        order = sorted(range(len(seeds)), key=lambda s: (not np.isfinite(last[s]), last[s]))
    else:
        order = order_candidates(candidates)
    # the network image of the best seed, also if the kernel of another candidate is chosen
    best_seed = next(index for index in order if index < len(seeds))
    return Selection(
        network_image=images[best_seed],
        candidates=[candidates[i] for i in order],
        kernels=[pool[i] for i in order],
        spread=spread,
    )
