"""Search of kernel size and kernel: edge-based estimates and simple blurs, refined and ranked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jbid.kernel_estimation.gain import Assessment, GainPredictor
from jbid.kernel_estimation.ranking import Candidate, latent_images, rank_candidates
from jbid.kernel_estimation.refine import Refinement, refine_kernels
from jbid.kernel_estimation.sampling import SETTINGS, Sample, draw_kernels, large_sizes, patch_sizes
from jbid.ops.kernels import crop_around, disc_kernel, gaussian_kernel, place_kernel, support
from jbid.ops.noise import remove_impulses

# (weight, ridge) of `EdgeOptions` for a second search, after a doubtful result; large blurs need the stronger ridge
SECOND_SETTINGS = ((1e-2, 40.0), (4e-3, 20.0), (1e-2, 5.0))
# standard deviations of Gaussian and radii of uniform discs that are candidates too, in pixels: slight blur and defocus
GAUSSIANS = (0.4, 0.6, 0.8, 1.0, 1.3)
DISCS = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
# kernel sizes of networks, so that few shapes are compiled
SIZE_GRID = (9, 13, 17, 21, 25, 31, 37, 45, 55, 65, 77, 91)
KEPT = 2  # candidates that are refined to the end
REFINEMENTS = 4
SCORE_SHARE = 0.1  # of the no-reference score in the last choice, where candidates of nearly one rank are left
DOUBTFUL = (0.15, 0.5)  # range of the confidence in which another search pays


class KernelEstimate(NamedTuple):
    """Edge-based estimate of a kernel.

    Attributes:
        kernel: square of odd side, just large enough; sum one.
        support: rows and columns with nonzero values.
        candidates: the chosen one first.
        kernels: of the valid candidates, in squares of the size asked for or of the largest one searched.
        refined: kernels of the `KEPT` candidates that were refined to the end, the best first, in such squares.
        fits: least-squares fits that these were pruned from.
        image: gray image (h, w) of the search, without impulse noise.
        gain: predicted PSNR of a deconvolution with the kernel minus that of the blurred image, in dB.
        confidence: probability that it is positive.
        warning: one line, or None.
    """

    kernel: NDArray[np.float32]
    support: tuple[int, int]
    candidates: list[Candidate]
    kernels: list[NDArray[np.float32]]
    refined: list[NDArray[np.float32]]
    fits: list[NDArray[np.float32]]
    image: NDArray[np.float32]
    gain: float
    confidence: float
    warning: str | None

    @property
    def is_doubtful(self) -> bool:
        """True if another search pays: no gain is expected, but one is not excluded either."""
        return DOUBTFUL[0] <= self.confidence < DOUBTFUL[1]

    def to_dict(self) -> dict[str, Any]:
        """Entry of a report, ready for JSON."""
        return {
            "support": self.support,
            "gain": round(self.gain, 2),
            "confidence": round(self.confidence, 3),
            "warning": self.warning,
            "candidates": [candidate.to_dict() for candidate in self.candidates],
        }


def clean_image(image: NDArray) -> NDArray[np.float32]:
    """Image (h, w, c) without its impulse noise."""
    return remove_impulses(np.asarray(image, np.float32))


def round_up_size(support: int) -> int:
    """Size of `SIZE_GRID` that holds a support with two pixels of margin; beyond the grid, the next odd number."""
    needed = support + 4
    return next((size for size in SIZE_GRID if size >= needed), needed | 1)


class _Pool(NamedTuple):
    """Kernels of a search with their names, supports and latent images."""

    names: list[str]
    kernels: list[NDArray[np.float32]]
    supports: list[int]
    latents: list[NDArray[np.float32]]

    def add(self, names: Sequence[str], supports: Sequence[int], refined: Sequence[Refinement]) -> _Pool:
        """The pool with more kernels."""
        kernels, latents = [r.kernel for r in refined], [r.image for r in refined]
        return _Pool(
            self.names + list(names), self.kernels + kernels, self.supports + list(supports), self.latents + latents
        )


def simple_kernels(limit: int) -> list[Sample]:
    """Gaussian blurs and uniform discs of at most `limit` pixels across."""
    kernels = [(f"gaussian {s:g}", gaussian_kernel(s)) for s in GAUSSIANS] + [
        (f"disc {r:g}", disc_kernel(r)) for r in DISCS
    ]
    return [Sample(name, k, k.shape[0] + 4) for name, k in kernels if k.shape[0] <= limit]


def search_kernel(
    image: NDArray[np.float32],
    size: int | None = None,
    *,
    whole: NDArray[np.float32] | None = None,
    settings: Sequence[tuple[float, float]] | None = None,
    before: KernelEstimate | None = None,
) -> KernelEstimate:
    """Estimate the kernel of a gray image, and the confidence that a deconvolution with it is a gain.

    Candidates are edge-based estimates of many sizes and settings (`jbid.kernel_estimation.sampling`), refined once,
    and the `simple_kernels`. The `KEPT` ones with the highest rank (`jbid.kernel_estimation.gain`) are refined to the
    end. The answer is the best of these and of the simple kernels as they are, by rank and no-reference score.

    Args:
        image: (h, w) in [0, 1], or a patch of it.
        size: largest side of the kernel; None: found by the search.
        whole: the whole image, in which larger kernels are searched; None: they are not.
        settings: pairs of weight and ridge.
        before: estimate of an earlier search, which takes part as one more candidate.
    """
    image = clean_image(image[..., None])[..., 0]
    sizes, larger = patch_sizes(image.shape, size), large_sizes(whole.shape, size) if whole is not None else []
    if whole is not None and larger:
        whole = clean_image(whole[..., None])[..., 0]
    samples = draw_kernels(image, sizes, settings or SETTINGS, whole=whole, larger=larger)
    if before is not None:
        samples.append(Sample(f"first search: {before.candidates[0].name}", before.kernel, max(before.kernel.shape)))
    simple = simple_kernels(size or min(image.shape) // 4)
    pool = _first_pool(image, simple, samples)
    predictor = GainPredictor(image)
    found = predictor.assess(pool.latents, pool.kernels)
    pool, refined = _refine_best(image, pool, np.argsort([-item.rank for item in found])[:KEPT])
    found += predictor.assess(pool.latents[len(found) :], pool.kernels[len(found) :])
    candidates = rank_candidates(image, pool.latents, pool.kernels, pool.names)
    candidates = [candidate._replace(gain=item.gain) for candidate, item in zip(candidates, found)]
    # an estimate can be chosen after its last refinement, and a simple kernel as it is
    order = _order(candidates, found, {*range(len(simple)), *range(len(candidates) - len(refined), len(candidates))})
    largest = max([*sizes, *larger])
    estimate = _summarize(image, pool, [candidates[i] for i in order], order, refined, found[order[0]], size, largest)
    return estimate._replace(warning=_warning(estimate, size, largest))


def _first_pool(image: NDArray[np.float32], simple: Sequence[Sample], samples: Sequence[Sample]) -> _Pool:
    """Simple kernels as they are, and estimates after their first refinement."""
    kernels = [sample.kernel for sample in simple]
    pool = _Pool([s.name for s in simple], kernels, [s.size for s in simple], latent_images(image, kernels))
    frames = [_frame(sample, image.shape) for sample in samples]
    placed = [place_kernel(sample.kernel, frame) for sample, frame in zip(samples, frames)]
    steps = refine_kernels(image, placed, frames)
    return pool.add([s.name for s in samples], frames, [step[-1] for step in steps])


def _refine_best(image: NDArray[np.float32], pool: _Pool, best: NDArray[np.intp]) -> tuple[_Pool, list[Refinement]]:
    """The pool, with some of its kernels refined to the end added, and these."""
    supports = [pool.supports[i] for i in best]
    padded = [np.pad(pool.kernels[i], max(0, (pool.supports[i] - pool.kernels[i].shape[0]) // 2)) for i in best]
    refined = [step[-1] for step in refine_kernels(image, padded, supports, rounds=REFINEMENTS - 1)]
    return pool.add([f"{pool.names[i]}, refined" for i in best], supports, refined), refined


def _order(candidates: Sequence[Candidate], found: Sequence[Assessment], eligible: set[int]) -> list[int]:
    """Indices of the candidates, the best first; the eligible ones come before the others."""
    worth = [item.rank - SCORE_SHARE * c.terms.score for item, c in zip(found, candidates)]

    def rank(i):
        return candidates[i].failure == "not a number", i not in eligible, -worth[i]

    return sorted(range(len(candidates)), key=rank)


def _frame(sample: Sample, shape: tuple[int, ...]) -> int:
    """Side of the square that a kernel is refined in: with some room, because the refinement may add to it."""
    extent = max(part.stop - part.start for part in support(sample.kernel))
    return min(extent * 5 // 4 + 4, max(sample.size, extent), min(shape) // 2 - 1) | 1


def _summarize(
    image: NDArray,
    pool: _Pool,
    candidates: list[Candidate],
    order: list[int],
    refined: Sequence[Refinement],
    chosen: Assessment,
    size: int | None,
    largest: int,
) -> KernelEstimate:
    kernel, frame = pool.kernels[order[0]], size or largest
    rows, columns = support(kernel)
    extent = (rows.stop - rows.start, columns.stop - columns.start)
    # a kernel that is NaN or empty has no support
    valid = [i for i in order if np.isfinite(pool.kernels[i]).all() and pool.kernels[i].any()]
    return KernelEstimate(
        kernel=place_kernel(kernel, size or max(extent) | 1),
        support=extent,
        candidates=candidates,
        kernels=[place_kernel(pool.kernels[i], frame) for i in valid],
        refined=[place_kernel(r.kernel, frame) for r in refined],
        fits=[crop_around(r.fit, support(r.kernel), frame) for r in refined],
        image=image,
        gain=chosen.gain,
        confidence=chosen.confidence,
        warning=None,
    )


def _warning(estimate: KernelEstimate, size: int | None, side: int) -> str | None:
    share = max(estimate.support) / side
    # the residual of a kernel that is cut off has structure
    is_cut = share >= 0.9 or (share >= 0.7 and estimate.candidates[0].terms.whiteness > 0.15)
    if size is not None or not is_cut:
        return None
    h, w = estimate.image.shape
    return (
        f"the blur may exceed {side} pixels, the largest size searched in {w}x{h} pixels. Scale the image down, or "
        "set `kernel_size`."
    )
