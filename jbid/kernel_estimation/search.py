"""Search of kernel size and kernel, from a reduced image to the full one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jbid.kernel_estimation.gain import GainPredictor
from jbid.kernel_estimation.patch import most_informative_region
from jbid.kernel_estimation.ranking import Candidate, latent_images
from jbid.kernel_estimation.refine import refine_kernels
from jbid.kernel_estimation.sampling import SIZES, Plan, Sample, add_invisible_noise, search_sizes
from jbid.kernel_estimation.scale_search import KEPT, Pool, frame_of, search_scale
from jbid.metrics import pairwise_similarity
from jbid.ops.kernels import crop_around, extent, place_kernel, prune_kernel, support
from jbid.ops.noise import remove_impulses
from jbid.ops.periodic import enlarge, resize

# (weight, ridge) of `EdgeOptions` for a second search, after a doubtful result; large blurs need the stronger ridge
SECOND_SETTINGS = ((1e-2, 40.0), (4e-3, 20.0), (1e-2, 5.0))
# kernel sizes of networks, so that few shapes are compiled
SIZE_GRID = (9, 13, 17, 21, 25, 31, 37, 45, 55, 65, 77, 91)
DOUBTFUL = (0.15, 0.5)  # range of the confidence in which another search pays
# a reduced image is searched again, with invisible noise, while the confidence is between this and `CERTAIN`, until
# two kernels are similar: which kernels a search meets is chance
EXPECTED, CERTAIN = 0.5, 0.98
SIMILAR = 0.9
SEARCHES = 3  # at most
UNSURE = 0.75  # confidence below which an image that is not reduced is searched with another prior too
PIXELS = 150_000  # of a reduced image
WHOLE = 1.6  # times as many pixels are not reduced
MANY_PIXELS = 100_000  # of an image that large kernels are searched in with more settings, and with two priors
ACCURATE = 8  # pixels; extent of a kernel that is only enlarged and refined at the next scale
AIM = 28  # pixels; extent of a smaller kernel at the scale at which it is searched again
NEAR = (0.4, 2.6)  # sizes of that search over the extent
PATCH = 512  # pixels; largest side of the patch that it is searched in
SMALLEST_PATCH, LARGEST_PATCH = 256, 1024  # pixels
PATCH_OF_EXTENT = 12  # its side over the extent of the kernel, and
REFINED_OF_EXTENT, SMALLEST_REFINED = 8, 512  # that of the patch in which an enlarged kernel is refined; pixels
ROUNDS = 3  # refinements of an enlarged kernel


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
        searches: number of independent searches, of which this is the best one.
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
    searches: int = 1

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
            "searches": self.searches,
            "candidates": [candidate.to_dict() for candidate in self.candidates],
        }


def clean_image(image: NDArray) -> NDArray[np.float32]:
    """Image (h, w, c) without its impulse noise."""
    return remove_impulses(np.asarray(image, np.float32))


def round_up_size(support: int) -> int:
    """Size of `SIZE_GRID` that holds a support with two pixels of margin; beyond the grid, the next odd number."""
    needed = support + 4
    return next((size for size in SIZE_GRID if size >= needed), needed | 1)


def search_kernel(
    image: NDArray[np.float32],
    size: int | None = None,
    *,
    side: int = PATCH,
    settings: Sequence[tuple[float, float]] | None = None,
    before: KernelEstimate | None = None,
    on_stage: Callable[[str], object] | None = None,
) -> KernelEstimate:
    """Estimate the kernel of a gray image, and the confidence that a deconvolution with it is a gain.

    The whole image is searched at a scale of at most `PIXELS` pixels (`jbid.kernel_estimation.scale_search`), where
    large kernels are found, and distinguished from small ones, most surely. A kernel with an extent of fewer than
    `ACCURATE` pixels there is searched again in a patch at a finer scale; a larger one is enlarged and refined. For a
    reduced image this is repeated until two searches agree; one that is not reduced is searched once more with another
    prior if the confidence is low. The kernel that is the best on one patch counts.

    Args:
        image: (h, w) in [0, 1].
        size: largest side of the kernel; None: found by the search.
        side: largest side of the patch of the second search.
        settings: pairs of weight and ridge.
        before: estimate of an earlier search, which takes part as one more candidate.
        on_stage: called with a line that says what the search does next.
    """
    image = clean_image(image[..., None])[..., 0]
    report, plan = on_stage or (lambda line: None), Plan(settings, many=image.size >= MANY_PIXELS)
    is_reduced = _scale_of_search(image.size) < 1
    found = [_search(image, size, side, plan, before, report)]

    def again(plan):
        found.append(_search(add_invisible_noise(image, len(found)), size, side, plan, before, report))

    confidence = found[0].confidence
    while is_reduced and EXPECTED <= confidence < CERTAIN and len(found) < SEARCHES and not _do_two_agree(found):
        report(f"search {len(found) + 1} of at most {SEARCHES}, because chance decides which kernels one finds")
        again(plan)
    if not is_reduced and image.size >= MANY_PIXELS and EXPECTED <= confidence < UNSURE:
        report("another search, which assumes sharp intensities as well as sharp edges")
        again(Plan(settings, two_priors=True))
    return found[_best_search(image, found)]._replace(searches=len(found))


def _best_search(image: NDArray[np.float32], estimates: Sequence[KernelEstimate]) -> int:
    """Index of the estimate with the best kernel, judged on one patch: those of the searches differ."""
    if len(estimates) == 1:
        return 0
    part, pool, kernels = _patch(image, LARGEST_PATCH), Pool.empty(), [estimate.kernel for estimate in estimates]
    names, sides = [""] * len(kernels), [kernel.shape[0] for kernel in kernels]
    pool.add(GainPredictor(part), names, kernels, sides, latent_images(part, kernels))
    order, _ = pool.choose(part)
    return order[0]


def _do_two_agree(estimates: Sequence[KernelEstimate]) -> bool:
    side = max(estimate.kernel.shape[0] for estimate in estimates)
    similarity = pairwise_similarity([place_kernel(estimate.kernel, side) for estimate in estimates])
    return bool((np.triu(similarity, 1) >= SIMILAR).any())


def _search(
    image: NDArray[np.float32],
    size: int | None,
    side: int,
    plan: Plan,
    before: KernelEstimate | None,
    report: Callable[[str], object],
) -> KernelEstimate:
    """One search, see `search_kernel`."""
    scale = _scale_of_search(image.size)
    sizes = search_sizes(tuple(int(n * scale) for n in image.shape), size and max(3, math.ceil(size * scale) | 1))
    largest = size or round(max(sizes) / scale)
    others = [] if before is None else [_sample("first search", before)]
    reduced = _reduce(image, scale)
    report(f"trying kernels of up to {largest} pixels in {_size_text(reduced)}")
    if scale == 1:
        pool = search_scale(image, sizes, plan, limit=_limit(image, size), others=others)
        return _conclude(image, pool, size, largest)
    pool = search_scale(reduced, sizes, plan, limit=_limit(reduced, size and round(size * scale)))
    best = _best(reduced, pool)
    found = extent(best[0].kernel)
    if found < ACCURATE:
        finer = min(1.0, scale * AIM / found)
        finer = 1.0 if finer > 0.7 else finer
        expected = found * finer / scale
        view = _reduce(image, finer)
        part = _patch(view, min(side, PATCH_OF_EXTENT * expected))
        near = [s for s in SIZES if NEAR[0] * expected <= s <= NEAR[1] * expected] or list(SIZES[:2])
        report(f"trying kernels of about {round(found / scale)} pixels in {_size_text(part)}")
        again = _enlarged(best[:1], finer / scale) + (others if finer == 1 else [])
        pool = search_scale(part, near, plan._replace(many=False), limit=_limit(part, size), others=again)
        if finer == 1:
            return _conclude(part, pool, size, largest)
        scale, best = finer, _best(part, pool)
    samples = _enlarged(best, 1 / scale) + others
    part = _patch(image, max(SMALLEST_REFINED, REFINED_OF_EXTENT * max(extent(sample.kernel) for sample in samples)))
    report(f"refining the best {len(samples)} kernels in {_size_text(part)}")
    return _conclude(part, _refine(part, samples), size, largest)


def _size_text(image: NDArray) -> str:
    return f"{image.shape[1]}x{image.shape[0]} pixels"


def _scale_of_search(pixels: int) -> float:
    return math.sqrt(PIXELS / pixels) if pixels > WHOLE * PIXELS else 1.0


def search_image(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The whole gray image at the scale at which `search_kernel` begins."""
    return _reduce(image, _scale_of_search(image.size))


def _sample(name: str, estimate: KernelEstimate) -> Sample:
    return Sample(f"{name}: {estimate.candidates[0].name}", estimate.kernel, max(estimate.kernel.shape))


def _limit(image: NDArray, size: int | None) -> int:
    return size or min(image.shape) // 4


def _reduce(image: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    if scale == 1:
        return image
    h, w = image.shape
    return resize(image, (round(h * scale), round(w * scale))).astype(np.float32)


def _patch(image: NDArray[np.float32], side: float) -> NDArray[np.float32]:
    side = int(np.clip(side, SMALLEST_PATCH, LARGEST_PATCH))
    return most_informative_region(image[..., None], side).of(image)


def _best(image: NDArray[np.float32], pool: Pool) -> list[Sample]:
    """The `KEPT` best kernels."""
    order, _ = pool.choose(image)
    return [Sample(pool.names[i], pool.kernels[i], pool.kernels[i].shape[0], pool.is_disc[i]) for i in order[:KEPT]]


def _enlarged(samples: Sequence[Sample], factor: float) -> list[Sample]:
    """The kernels as they are at a finer scale."""
    sizes = [math.ceil(sample.size * factor) | 1 for sample in samples]
    return [
        Sample(f"{sample.name}, enlarged", prune_kernel(enlarge(sample.kernel, size, factor)), size, sample.is_disc)
        for sample, size in zip(samples, sizes)
    ]


def _refine(image: NDArray[np.float32], samples: Sequence[Sample]) -> Pool:
    """Kernels as they are and after each of `ROUNDS` refinements."""
    pool, predictor = Pool.empty(), GainPredictor(image)
    frames = [frame_of(sample, image.shape) for sample in samples]
    kernels = [place_kernel(sample.kernel, frame) for sample, frame in zip(samples, frames)]
    latents, is_disc = latent_images(image, kernels), [sample.is_disc for sample in samples]
    pool.add(predictor, [s.name for s in samples], kernels, frames, latents, is_disc=is_disc)
    refined = refine_kernels(image, kernels, frames, rounds=ROUNDS, latents=latents)
    for n, steps in enumerate(zip(*refined)):
        times = f"refined {n + 1} times" if n else "refined"
        names = [f"{sample.name}, {times}" for sample in samples]
        pool.add(predictor, names, [r.kernel for r in steps], frames, [r.image for r in steps])
    pool.refined.extend(steps[-1] for steps in refined)
    return pool


def _conclude(image: NDArray[np.float32], pool: Pool, size: int | None, largest: int) -> KernelEstimate:
    order, candidates = pool.choose(image)
    kernel, side = pool.kernels[order[0]], size or max(largest, *(k.shape[0] for k in pool.kernels))
    kernels = [pool.kernels[i] for i in order]
    rows, columns = support(kernel)
    found = (rows.stop - rows.start, columns.stop - columns.start)
    chosen = pool.found[order[0]]
    estimate = KernelEstimate(
        kernel=place_kernel(kernel, size or max(found) | 1),
        support=found,
        candidates=candidates,
        kernels=[place_kernel(k, side) for k in kernels],
        refined=[place_kernel(r.kernel, side) for r in pool.refined],
        fits=[crop_around(r.fit, support(r.kernel), side) for r in pool.refined],
        image=image,
        gain=chosen.gain,
        confidence=chosen.confidence,
        warning=None,
    )
    return estimate._replace(warning=_warning(estimate, size, largest))


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
