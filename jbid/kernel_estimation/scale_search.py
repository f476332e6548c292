"""Search of a kernel at one scale of an image: estimates and simple blurs, refined and ranked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jbid.kernel_estimation.gain import Assessment, GainPredictor
from jbid.kernel_estimation.ranking import Candidate, latent_images, rank_candidates
from jbid.kernel_estimation.refine import Refinement, refine_kernels
from jbid.kernel_estimation.sampling import Plan, Sample, best_discs, draw_kernels, half_scale
from jbid.metrics import kernel_similarity
from jbid.ops.kernels import disc_kernel, extent, gaussian_kernel, place_kernel

# standard deviations of Gaussian and radii of uniform discs that are candidates too, in pixels: slight blur and defocus
GAUSSIANS = (0.4, 0.6, 0.8, 1.0, 1.3)
DISCS = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0)
BEST_DISCS = 3  # of them, judged at half the scale
KEPT = 2  # candidates that are refined to the end, and
DISTINCT = 0.7  # the best of those whose similarity to the first one is smaller,
NEAR_BEST = 1.5  # if its rank is less than this below
REFINEMENTS = 4
# a uniform disc this similar to the first kernel, with a better score, is what the estimate is an approximation of
DISC_LIKE = 0.9
LEAST_DISC = 5  # pixels; smaller discs are similar to many kernels
SCORE_SHARE = 0.1  # of the no-reference score in the last choice, where candidates of nearly one rank are left


class Pool(NamedTuple):
    """Kernels of a search with their latent images.

    Attributes:
        names: for reports.
        kernels: squares of odd sides.
        supports: side of the support of each, at most.
        latents: latent image of each.
        found: assessment of each.
        is_final: of each, False for estimates that were not refined to the end.
        refined: refinements of those that were refined to the end; their kernels are the last ones of the pool.
        is_disc: of each, True for a uniform disc.
    """

    names: list[str]
    kernels: list[NDArray[np.float32]]
    supports: list[int]
    latents: list[NDArray[np.float32]]
    found: list[Assessment]
    is_final: list[bool]
    refined: list[Refinement]
    is_disc: list[bool]

    @classmethod
    def empty(cls) -> Pool:
        """A pool to add to."""
        return cls(*([] for _ in cls._fields))

    def add(
        self,
        predictor: GainPredictor,
        names: Sequence[str],
        kernels: Sequence[NDArray],
        supports: Sequence[int],
        latents: Sequence[NDArray],
        is_final: bool = True,
        is_disc: Sequence[bool] | None = None,
    ) -> None:
        """Add kernels and their assessments."""
        self.names.extend(names)
        self.kernels.extend(kernels)
        self.supports.extend(supports)
        self.latents.extend(latents)
        self.found.extend(predictor.assess(latents, kernels))
        self.is_final.extend([is_final] * len(kernels))
        self.is_disc.extend(is_disc or [False] * len(kernels))

    def order(self) -> list[int]:
        """Indices by rank, the best first."""
        return sorted(range(len(self.found)), key=lambda i: -self.found[i].rank)

    def choose(self, image: NDArray[np.float32]) -> tuple[list[int], list[Candidate]]:
        """Indices of the valid kernels, the best first, by rank and no-reference score; candidates in this order.

        A uniform disc that the first one resembles comes before it, if its score is better.
        """
        valid = [i for i in range(len(self.found)) if np.isfinite(self.kernels[i]).all() and self.kernels[i].any()]
        kernels, names = [self.kernels[i] for i in valid], [self.names[i] for i in valid]
        candidates = rank_candidates(image, [self.latents[i] for i in valid], kernels, names)
        candidates = [c._replace(gain=self.found[i].gain) for c, i in zip(candidates, valid)]

        def worth(n):
            return self.is_final[valid[n]], self.found[valid[n]].rank - SCORE_SHARE * candidates[n].terms.score

        order = sorted(range(len(valid)), key=worth, reverse=True)
        first = order[0] if order else 0

        def resembles_first(n):
            return (
                self.is_disc[valid[n]]
                and extent(kernels[n]) >= LEAST_DISC
                and candidates[n].terms.score < candidates[first].terms.score
                and kernel_similarity(kernels[n], kernels[first]) >= DISC_LIKE
            )

        order.sort(key=lambda n: not resembles_first(n))
        return [valid[n] for n in order], [candidates[n] for n in order]


def frame_of(sample: Sample, shape: tuple[int, ...]) -> int:
    """Side of the square that a kernel is refined in: with some room, because the refinement may add to it."""
    own = extent(sample.kernel)
    return min(own * 5 // 4 + 4, max(sample.size, own), min(shape) // 2 - 1) | 1


def simple_kernels(radii: Sequence[float], limit: int) -> list[Sample]:
    """Gaussian blurs, and uniform discs of some radii, of at most `limit` pixels across."""
    kernels = [(f"gaussian {s:g}", gaussian_kernel(s), False) for s in GAUSSIANS] + [
        (f"disc {r:g}", disc_kernel(r), True) for r in radii
    ]
    return [Sample(name, k, k.shape[0] + 4, is_disc) for name, k, is_disc in kernels if k.shape[0] <= limit]


def search_scale(
    image: NDArray[np.float32],
    sizes: Sequence[int],
    plan: Plan,
    *,
    limit: int,
    others: Sequence[Sample] = (),
) -> Pool:
    """Candidates for the kernel of a gray image at one scale.

    Edge-based estimates of all sizes and settings (`jbid.kernel_estimation.sampling`) and `others`, refined once;
    Gaussian blurs and discs. The `KEPT` estimates with the highest rank are refined to the end, and the best distinct
    one: where a small kernel leads, a large one has a lower rank until it is accurate.

    Args:
        image: (h, w) in [0, 1].
        sizes: supports of the estimates.
        plan: what to draw.
        limit: largest extent of the simple blurs.
        others: kernels of other searches.
    """
    half = half_scale(image)
    radii = [radius for radius in DISCS if 2 * radius + 1 <= limit]
    simple = simple_kernels(best_discs(half, radii, BEST_DISCS), limit)
    samples = [*draw_kernels(image, half, sizes, plan), *others]
    predictor = GainPredictor(image)
    pool = Pool.empty()
    kernels = [sample.kernel for sample in simple]
    pool.add(
        predictor,
        [s.name for s in simple],
        kernels,
        [s.size for s in simple],
        latent_images(image, kernels),
        is_disc=[s.is_disc for s in simple],
    )
    frames = [frame_of(sample, image.shape) for sample in samples]
    placed = [place_kernel(sample.kernel, frame) for sample, frame in zip(samples, frames)]
    last = [steps[-1] for steps in refine_kernels(image, placed, frames)]
    names = [s.name for s in samples]
    pool.add(predictor, names, [r.kernel for r in last], frames, [r.image for r in last], is_final=False)
    # the simple ones are right as they are or not at all
    best = _best(pool, [i for i in pool.order() if i >= len(simple)])
    frames, kernels = [pool.supports[i] for i in best], [pool.kernels[i] for i in best]
    latents = [pool.latents[i] for i in best]
    last = [steps[-1] for steps in refine_kernels(image, kernels, frames, rounds=REFINEMENTS - 1, latents=latents)]
    names = [f"{pool.names[i]}, refined" for i in best]
    pool.add(predictor, names, [r.kernel for r in last], frames, [r.image for r in last])
    pool.refined.extend(last)
    return pool


def _best(pool: Pool, order: Sequence[int]) -> list[int]:
    """Indices of the estimates to refine to the end, out of those in the order of their ranks."""
    if not order:
        return []
    best, limit = pool.kernels[order[0]], pool.found[order[0]].rank - NEAR_BEST
    others = [i for i in order[KEPT:] if pool.found[i].rank > limit]
    return [*order[:KEPT], *[i for i in others if kernel_similarity(pool.kernels[i], best) < DISTINCT][:1]]
