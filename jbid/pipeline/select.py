"""jbid.pipeline.select."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jbid.kernel_estimation.ranking import Candidate, find_failure, latent_images, order_candidates, rank_candidates
from jbid.ops.color import luma
from jbid.ops.kernels import average_kernels, place_kernel
from jbid.pipeline.config import ESTIMATES, Config
from jbid.pipeline.prepare import PreparedImage


def rank_initial(task: PreparedImage) -> list[Candidate]:
    """What speaks against the start, the answer where there is no network, and against what else it might have been."""
    assert task.edges is not None
    start, picture = task.starts[0], task.edges.picture
    both = [start.kernel, place_kernel(task.edges.kernel, start.kernel.shape)]
    if np.array_equal(both[0], both[1]):
        return task.edges.candidates
    return rank_candidates(
        picture, latent_images(picture, both), both, [f"start from {start.name}", task.edges.candidates[0].name]
    )


def select(
    task: PreparedImage, settings: Config, images: NDArray, kernels: NDArray, losses: NDArray, finish: bool
) -> tuple[NDArray, list[Candidate], list[NDArray], NDArray | None]:
    """The network image kept, all candidates and their kernels in order, the spread over seeds that did not fail."""
    gray = luma(task.observed)[..., 0]
    seeds = [f"seed {settings.seed + s}" for s in range(settings.seeds)]
    names, pool = list(seeds), [np.asarray(k) for k in kernels]
    by_name = dict(zip(seeds, images))
    shown = [luma(x)[..., 0] for x in images]
    good = [s for s in range(len(seeds)) if find_failure(gray, shown[s], pool[s]) is None]

    spread = None
    if len(good) > 1 and not task.known:
        moved = [average_kernels([pool[s]], pool[good[0]]) for s in good]
        top, left = (n // 2 for n in task.kernel_shape)
        spread = np.std(latent_images(gray, moved), 0)[top : top + gray.shape[0], left : left + gray.shape[1]]
        if finish:
            names.append("mean of seeds")
            pool.append(np.mean(moved, 0))
    estimates = [start for start in task.starts if start.name in ESTIMATES]
    if finish:
        names += ["start" if len(estimates) == 1 else f"start from {start.name}" for start in estimates]
        pool += [start.kernel for start in estimates]
    latents = latent_images(gray, [np.where(np.isfinite(k), k, 0) for k in pool])
    judged = rank_candidates(gray, latents, pool, names, [*shown, *latents[len(seeds) :]])
    last = losses[-1] if len(losses) else np.full(len(seeds), np.nan)
    judged[: len(seeds)] = [c._replace(loss=float(v)) for c, v in zip(judged, last)]
    if task.known:
        # one kernel for all, so nothing to judge but how well each network came down
        order = sorted(range(len(seeds)), key=lambda s: (not np.isfinite(last[s]), last[s]))
    else:
        order = order_candidates(judged)
    # the network image of the best seed, also where another kernel is kept
    seed = next(names[j] for j in order if names[j] in by_name)
    return by_name[seed], [judged[j] for j in order], [pool[j] for j in order], spread
