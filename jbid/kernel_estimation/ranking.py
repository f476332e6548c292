"""No-reference score of kernels and images, to choose among seeds, settings and sizes without the ground truth.

The score runs in NumPy on the host. docs/development-notes.md holds the worth of each term and the regret of the
choice.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

from jbid.deconvolution.sparse import deconvolve_gray
from jbid.engine.batching import even_batch
from jbid.metrics import pairwise_similarity
from jbid.ops.kernels import place_kernel
from jbid.runtime.compile import jit
from jbid.runtime.parallel import map_threads, runs_on_host

BATCH = 16  # kernels deconvolved at once: those of hundreds of seeds would not fit the memory

# Spread of each term between the candidates of one image, over Levin's, Lai's and synthetic images: it makes the terms
# comparable. The weights are round numbers, because finer ones chose no better on other images
_SPREAD = {"whiteness": 0.49, "sparsity": 0.066, "flatness": 0.104, "disagreement": 0.045}
_WEIGHT = {"whiteness": 0.5, "sparsity": 0.5, "flatness": 2.0, "disagreement": 1.0}
LAGS = 16  # pixels, of the residual's autocorrelation


class ScoreTerms(NamedTuple):
    """Terms of the no-reference score; lower is better, and only differences for one image are meaningful.

    Attributes:
        residual: log mean r^2 of r = k * x - y; reported, but without weight.
        whiteness: log of the sum of the squared normalized autocorrelation of r at lags up to 16 pixels, except zero:
            the residual of a wrong kernel has structure.
        sparsity: log mean |grad x|^(1/2).
        flatness: log(median |grad x| / rms |grad x|): ringing fills areas that should be flat.
        disagreement: minus the mean similarity of the kernel to those of the other candidates.
    """

    residual: float
    whiteness: float
    sparsity: float
    flatness: float
    disagreement: float = 0.0

    @property
    def score(self) -> float:
        """Weighted sum of the terms, each in units of its usual spread between candidates."""
        return sum(_WEIGHT[name] * getattr(self, name) / _SPREAD[name] for name in _WEIGHT)


NO_TERMS = ScoreTerms(0.0, 0.0, 0.0, 0.0)


class Candidate(NamedTuple):
    """A kernel among others for the same image.

    Attributes:
        name: for reports.
        terms: of its score.
        failure: "not a number", "flat image", "delta kernel", or None.
        loss: last loss of the method; None without a network.
        gain: predicted gain in dB, see `jbid.kernel_estimation.gain`; None if it was not needed.
    """

    name: str
    terms: ScoreTerms
    failure: str | None
    loss: float | None = None
    gain: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Entry of a report, ready for JSON."""
        loss = self.loss if self.loss is not None and np.isfinite(self.loss) else None
        values = {name: round(value, 4) for name, value in self.terms._asdict().items()}
        entry = {"name": self.name, "score": round(self.terms.score, 3), **values, "failure": self.failure}
        return entry | {"loss": loss, "gain": None if self.gain is None else round(self.gain, 2)}


@functools.cache
def _deconvolver():
    return jit(jax.vmap(deconvolve_gray, (None, 0)))


def latent_images(image: NDArray, kernels: Sequence[NDArray]) -> list[NDArray[np.float32]]:
    """Latent image (H, W) of a gray image (h, w) with each of the kernels (s, s), by `deconvolve_gray`."""
    if not len(kernels):
        return []
    if runs_on_host():
        return map_threads(partial(deconvolve_gray, np.asarray(image, np.float32)), kernels)
    size = even_batch(len(kernels), BATCH, 1)
    y, stack = jnp.asarray(image), np.stack(kernels)
    latents: list[NDArray[np.float32]] = []
    for first in range(0, len(stack), size):
        # copies fill up the last batch, so that one program serves all
        indices = np.minimum(np.arange(first, first + size), len(stack) - 1)
        latents += list(np.asarray(_deconvolver()(y, jnp.asarray(stack[indices]))))
    return latents[: len(stack)]


def autocorrelation(values: NDArray, reach: int) -> NDArray:
    """Normalized autocorrelation of an array (h, w) at lags up to `reach` pixels, (2 reach + 1, 2 reach + 1)."""
    fast = [scipy.fft.next_fast_len(n + reach, real=True) for n in values.shape]
    spectrum = np.abs(scipy.fft.rfft2(values - values.mean(), fast)) ** 2
    near = np.roll(scipy.fft.irfft2(spectrum, fast), (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    return near / max(near[reach, reach], 1e-30)


def whiteness(residual: NDArray) -> float:
    """Log of the sum of the squared normalized autocorrelation at lags up to 16 pixels, except zero."""
    return float(np.log(max(np.sum(autocorrelation(residual, LAGS) ** 2) - 1, 0) + 1e-3))


def gradient_norm(x: NDArray) -> NDArray:
    """|grad x| of an image (h, w) at the pixels that have both differences, (h - 1, w - 1)."""
    return np.hypot(np.diff(x, axis=1)[:-1], np.diff(x, axis=0)[:, :-1])


def score_terms(blurred: NDArray, latent: NDArray, kernel: NDArray) -> ScoreTerms:
    """Terms of the score for a gray image (h, w), its latent image (h + kh - 1, w + kw - 1) and kernel (kh, kw)."""
    blurred, latent, kernel = (np.asarray(v, float) for v in (blurred, latent, kernel))
    residual = scipy.signal.fftconvolve(latent, kernel, "valid") - blurred
    kh, kw = kernel.shape
    x = latent[kh // 2 : latent.shape[0] - kh // 2, kw // 2 : latent.shape[1] - kw // 2]
    gradient = gradient_norm(x)
    rms = np.sqrt(np.mean(gradient**2)) + 1e-9
    return ScoreTerms(
        residual=float(np.log(np.mean(residual**2) + 1e-12)),
        whiteness=whiteness(residual),
        sparsity=float(np.log(np.mean(np.sqrt(gradient)) + 1e-9)),
        flatness=float(np.log((np.median(gradient) + 1e-9) / rms)),
    )


def add_disagreement(terms: Sequence[ScoreTerms], kernels: Sequence[NDArray]) -> list[ScoreTerms]:
    """Terms with their `disagreement`: minus the mean similarity to the other kernels."""
    if len(terms) < 2:
        return list(terms)
    side = max(max(kernel.shape) for kernel in kernels)
    similarity = pairwise_similarity([place_kernel(kernel, side) for kernel in kernels])
    mean = (similarity.sum(1) - similarity.diagonal()) / (len(terms) - 1)
    return [t._replace(disagreement=-float(m)) for t, m in zip(terms, mean)]


def find_failure(blurred: NDArray, image: NDArray, kernel: NDArray) -> str | None:
    """Reason for which a restoration cannot be right: "not a number", "flat image", "delta kernel"; None if it may be.

    An image is flat if its standard deviation is under a quarter of the blurred one's, a kernel a delta if more than
    95 % of its sum lies within 3x3 pixels.
    """
    if not (np.isfinite(image).all() and np.isfinite(kernel).all()):
        return "not a number"
    if np.std(image) < 0.25 * np.std(blurred):
        return "flat image"
    i, j = np.unravel_index(np.argmax(kernel), kernel.shape)
    peak = kernel[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].sum()
    return "delta kernel" if peak > 0.95 * kernel.sum() else None


def rank_candidates(
    image: NDArray,
    latents: Sequence[NDArray],
    kernels: Sequence[NDArray],
    names: Sequence[str],
    shown: Sequence[NDArray] | None = None,
) -> list[Candidate]:
    """Score kernels, with the latent images deconvolved with them.

    Args:
        image: gray observed image (h, w).
        latents: latent image of each kernel.
        kernels: (kh, kw) each.
        names: of the candidates.
        shown: images to check for failures, if these are not the latent ones.

    Returns:
        Candidates in the order of the kernels; `order_candidates` sorts them.
    """
    candidates = []
    for i, (name, latent, kernel) in enumerate(zip(names, latents, kernels)):
        failure = find_failure(image, latent if shown is None else shown[i], kernel)
        is_finite = np.isfinite(latent).all() and np.isfinite(kernel).all()
        candidates.append(Candidate(name, score_terms(image, latent, kernel) if is_finite else NO_TERMS, failure))
    # failed candidates take no part in the agreement
    valid = [i for i, candidate in enumerate(candidates) if not candidate.failure]
    terms = add_disagreement([candidates[i].terms for i in valid], [kernels[i] for i in valid])
    for i, t in zip(valid, terms):
        candidates[i] = candidates[i]._replace(terms=t)
    return candidates


def order_candidates(candidates: Sequence[Candidate]) -> list[int]:
    """Indices of candidates by score, the lowest first; failed ones come last."""

    def rank(i):
        candidate = candidates[i]
        return candidate.failure == "not a number", candidate.failure is not None, candidate.terms.score

    return sorted(range(len(candidates)), key=rank)
