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

from jbid.noise import noise_level, without_impulses
from jbid.run import compiled
from jbid.scale import even_part
from jbid.score import NO_TERMS, Terms, failure, terms, with_agreement
from jbid.start import EdgeSettings, edge_kernel, refined, sparse_latent

# Supports that are tried where the size is not known, as far as they are at most a quarter of the picture
SIZES = (19, 31, 51, 79)
# (weight, ridge) of `EdgeSettings` that are tried for each support, and for one that is known
SETTINGS = ((1e-2, 10.0), (2e-2, 20.0))
SETTINGS_OF_ONE = (*SETTINGS, (4e-2, 20.0))
# ... and in a second go, for pictures whose answer looks doubtful; large blurs need the stronger ridge
SECOND_SETTINGS = ((1e-2, 40.0), (4e-2, 20.0))
# Kernel sizes that networks are made for: a ladder, so that few shapes are compiled
LADDER = (9, 13, 17, 21, 25, 31, 37, 45, 55, 65, 77, 91)
KEPT = 2  # candidates that are refined to the end
REFINEMENTS = 4
# How far, in pixels, a picture is smoothed before its edges are looked for, by the noise's standard deviation
SMOOTHING = ((0.004, 0.01, 0.05), (0.0, 0.6, 1.0))


class Candidate(NamedTuple):
    """One kernel and what speaks against it."""

    name: str
    terms: Terms
    failure: str | None
    loss: float | None = None  # the method's last one

    def told(self) -> dict[str, Any]:
        """For a report."""
        loss = self.loss if self.loss is not None and np.isfinite(self.loss) else None
        values = {name: round(value, 4) for name, value in self.terms._asdict().items()}
        return {"name": self.name, "score": round(self.terms.score, 3), **values, "failure": self.failure, "loss": loss}


class EdgeStart(NamedTuple):
    """An estimated kernel and how it was found."""

    kernel: NDArray[np.float32]  # square and odd, just large enough; sum one
    support: tuple[int, int]  # rows and columns that are not zero
    candidates: list[Candidate]  # the chosen one first
    kernels: list[NDArray[np.float32]]  # of those that are sound, in squares of the size asked for or the largest tried
    fits: list[NDArray[np.float32]]  # what the first of the kernels, up to `KEPT`, were pruned from
    picture: NDArray[np.float32]  # that they were found on, without impulse noise
    warning: str | None

    @property
    def doubtful(self) -> bool:
        """Whether the answer looks unlike the good ones of the sets that the score was made on."""
        terms = self.candidates[0].terms
        return terms.flatness > -0.95 or terms.whiteness > 0.3

    def told(self) -> dict[str, Any]:
        """For a report."""
        return {
            "support": self.support,
            "warning": self.warning,
            "candidates": [candidate.told() for candidate in self.candidates],
        }


@functools.cache
def _estimator(side: int):
    return compiled(jax.vmap(partial(edge_kernel, side=side), (None, 0)))


@functools.cache
def _cleaner():
    return compiled(without_impulses)


def cleaned(picture: NDArray) -> NDArray[np.float32]:
    """A picture (h, w, c) without its impulse noise."""
    return np.asarray(_cleaner()(jnp.asarray(picture)))


@functools.cache
def _refiner():
    return compiled(jax.vmap(refined, (None, 0, 0)))


def ladder_size(support: int) -> int:
    """The size in `LADDER` that holds a support with two pixels to spare on each side; beyond, the next odd number."""
    wanted = support + 4
    return next((size for size in LADDER if size >= wanted), wanted | 1)


def support(kernel: NDArray) -> tuple[slice, slice]:
    """The rows and columns between the first and the last that are not zero."""
    rows, columns = (np.flatnonzero(kernel.any(axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def fitted_to(kernel: NDArray, size: int | tuple[int, int]) -> NDArray[np.float32]:
    """The kernel in a rectangle of `size`, its support in the middle; what does not fit is cut off. Sum one."""
    out = framed(kernel, support(kernel), size)
    return out / out.sum()


def framed(values: NDArray, around: Sequence[slice], size: int | tuple[int, int]) -> NDArray[np.float32]:
    """A rectangle of `size` of an array, with the rows and columns `around` in its middle; zero beyond the array."""
    sides = (size, size) if isinstance(size, int) else size
    out = np.pad(np.asarray(values, np.float32), [(side, side) for side in sides])
    for axis, (side, part) in enumerate(zip(sides, around)):
        spare = side - (part.stop - part.start)
        first = part.start - (spare // 2 if spare >= 0 else -(-spare // 2))
        out = out.take(range(side + first, 2 * side + first), axis)
    return out


def edge_start(
    picture: NDArray[np.float32],
    size: int | None = None,
    *,
    settings: Sequence[tuple[float, float]] | None = None,
    before: EdgeStart | None = None,
) -> EdgeStart:
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
    picture = cleaned(picture[..., None])[..., 0]
    y = jnp.asarray(picture)
    # the estimate from edges needs smooth ones; what that takes from the kernel, the refinement brings back
    width = np.interp(float(noise_level(y[..., None])), *SMOOTHING)
    smooth = jnp.asarray(scipy.ndimage.gaussian_filter(picture, width))
    kernels, supports = _estimator(side)(smooth, several), several.size
    if before is not None:
        kernels = jnp.concatenate([kernels, fitted_to(before.kernel, side)[None]])
        supports = jnp.append(supports, side)
    kernels, images, _ = _refiner()(y, kernels, supports)
    names = [f"size {s}, weight {w:g}, ridge {r:g}" for s, w, r in tried]
    if before is not None:
        names.append(f"before: {before.candidates[0].name}")
    pool, latents = list(np.asarray(kernels)), list(np.asarray(images))
    first = judge(picture, latents, pool, names)
    best = np.array(chosen_first(first)[:KEPT])
    final, sides = kernels[best], supports[best]
    for _ in range(REFINEMENTS - 1):
        final, images, fits = _refiner()(y, final, sides)
    for i, k, x in zip(best, np.asarray(final), np.asarray(images)):
        pool[i], latents[i] = k, x
    fit_of = dict(zip(best, np.asarray(fits)))
    # agreement is taken with all of them, the choice is among those refined to the end
    judged = judge(picture, latents, pool, names)
    order = [i for i in chosen_first(judged) if i in best]
    order += [i for i in chosen_first(judged) if i not in best]
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
    sound = [fitted_to(pool[i], size or side) for i in at]
    pruned_from = [framed(fit_of[i], support(pool[i]), size or side) for i in at if i in fit_of]
    kernel = fitted_to(kernel, size or max(extent) | 1)
    found = EdgeStart(kernel, extent, candidates, sound, pruned_from, picture, warning)
    if found.doubtful and not warning and before is not None:
        warning = (
            "the blur that was found looks doubtful: there may be more blur or noise than can be handled; try --region "
            "on a part with clear edges, --kernel-size, or --seeds"
        )
    return found._replace(warning=warning)


@functools.cache
def _deconvolver():
    return compiled(jax.vmap(sparse_latent, (None, 0)))


AT_ONCE = 16  # kernels that are deconvolved with: those of hundreds of seeds would not fit the memory


def deconvolved(picture: NDArray, kernels: Sequence[NDArray]) -> list[NDArray[np.float32]]:
    """The latent image (H, W) of a gray picture (h, w) with each of the kernels (s, s), by `sparse_latent`."""
    size = even_part(len(kernels), AT_ONCE, 1)
    y, stack = jnp.asarray(picture), np.stack(kernels)
    latents: list[NDArray[np.float32]] = []
    for first in range(0, len(stack), size):
        # the last part is filled up with copies, so that one program does for all
        at = np.minimum(np.arange(first, first + size), len(stack) - 1)
        latents += list(np.asarray(_deconvolver()(y, jnp.asarray(stack[at]))))
    return latents[: len(stack)]


def chosen_first(judged: Sequence[Candidate]) -> list[int]:
    """Indices by score, lowest first; those that failed come last."""

    def rank(i):
        candidate = judged[i]
        return candidate.failure == "not a number", candidate.failure is not None, candidate.terms.score

    return sorted(range(len(judged)), key=rank)


def judge(
    picture: NDArray,
    latents: Sequence[NDArray],
    kernels: Sequence[NDArray],
    names: Sequence[str],
    shown: Sequence[NDArray] | None = None,
) -> list[Candidate]:
    """What speaks against each kernel and the latent image deconvolved with it, and whether it has failed.

    `shown` are the images to look at for failures, where they are others than the latent ones.
    """
    judged = []
    for i, (name, latent, kernel) in enumerate(zip(names, latents, kernels)):
        reason = failure(picture, latent if shown is None else shown[i], kernel)
        readable = np.isfinite(latent).all() and np.isfinite(kernel).all()
        judged.append(Candidate(name, terms(picture, latent, kernel) if readable else NO_TERMS, reason))
    # a failed one must neither lend nor take away support
    sound = [i for i, candidate in enumerate(judged) if not candidate.failure]
    for i, t in zip(sound, with_agreement([judged[i].terms for i in sound], [kernels[i] for i in sound])):
        judged[i] = judged[i]._replace(terms=t)
    return judged
