"""How good a restoration looks to one who does not know the truth: to choose among seeds, settings and sizes.

NumPy, on the host. What each term is worth, and the regret of the choice, is in docs/experiments.md.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal
from numpy.typing import NDArray

from jbid.deconvolution.sparse import deconvolve_gray
from jbid.engine.batching import even_batch
from jbid.metrics import pairwise_similarity
from jbid.runtime.compile import jit


class Candidate(NamedTuple):
    """One kernel and what speaks against it."""

    name: str
    terms: ScoreTerms
    failure: str | None
    loss: float | None = None  # the method's last one

    def to_dict(self) -> dict[str, Any]:
        """For a report."""
        loss = self.loss if self.loss is not None and np.isfinite(self.loss) else None
        values = {name: round(value, 4) for name, value in self.terms._asdict().items()}
        return {"name": self.name, "score": round(self.terms.score, 3), **values, "failure": self.failure, "loss": loss}


@functools.cache
def _deconvolver():
    return jit(jax.vmap(deconvolve_gray, (None, 0)))


BATCH = 16  # kernels that are deconvolved with: those of hundreds of seeds would not fit the memory


def latent_images(picture: NDArray, kernels: Sequence[NDArray]) -> list[NDArray[np.float32]]:
    """The latent image (H, W) of a gray picture (h, w) with each of the kernels (s, s), by `sparse_latent`."""
    size = even_batch(len(kernels), BATCH, 1)
    y, stack = jnp.asarray(picture), np.stack(kernels)
    latents: list[NDArray[np.float32]] = []
    for first in range(0, len(stack), size):
        # the last part is filled up with copies, so that one program does for all
        at = np.minimum(np.arange(first, first + size), len(stack) - 1)
        latents += list(np.asarray(_deconvolver()(y, jnp.asarray(stack[at]))))
    return latents[: len(stack)]


def order_candidates(judged: Sequence[Candidate]) -> list[int]:
    """Indices by score, lowest first; those that failed come last."""

    def rank(i):
        candidate = judged[i]
        return candidate.failure == "not a number", candidate.failure is not None, candidate.terms.score

    return sorted(range(len(judged)), key=rank)


def rank_candidates(
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
        reason = find_failure(picture, latent if shown is None else shown[i], kernel)
        readable = np.isfinite(latent).all() and np.isfinite(kernel).all()
        judged.append(Candidate(name, score_terms(picture, latent, kernel) if readable else NO_TERMS, reason))
    # a failed one must neither lend nor take away support
    sound = [i for i, candidate in enumerate(judged) if not candidate.failure]
    for i, t in zip(sound, add_disagreement([judged[i].terms for i in sound], [kernels[i] for i in sound])):
        judged[i] = judged[i]._replace(terms=t)
    return judged


# Spread of each term between candidates for one picture, measured on Levin's, Lai's and synthetic images: makes the
# terms comparable. The weights are plain numbers, as finer ones did not choose better on pictures not used to find them
_SPREAD = {"whiteness": 0.49, "sparsity": 0.066, "flatness": 0.104, "disagreement": 0.045}
_WEIGHT = {"whiteness": 0.5, "sparsity": 0.5, "flatness": 2.0, "disagreement": 1.0}
_LAGS = 16  # pixels, of the residual's autocorrelation


class ScoreTerms(NamedTuple):
    """What speaks against a restoration; lower is better in each, and only differences for one picture mean anything.

    residual: log mean r^2 of r = k * x - y, told but not weighed. whiteness: log of the sum of the squared normalized
    autocorrelation of r at lags up to 16 pixels but zero: what a wrong kernel leaves has structure. sparsity: log mean
    |grad x|^(1/2). flatness: log(median |grad x| / rms |grad x|): ringing fills what should be flat. disagreement: less
    the mean similarity of the kernel with those of the other candidates, see `agreement`.
    """

    residual: float
    whiteness: float
    sparsity: float
    flatness: float
    disagreement: float = 0.0

    @property
    def score(self) -> float:
        """The weighted sum, in units of each term's usual spread between candidates."""
        return sum(_WEIGHT[name] * getattr(self, name) / _SPREAD[name] for name in _WEIGHT)


NO_TERMS = ScoreTerms(0.0, 0.0, 0.0, 0.0)


def score_terms(blurred: NDArray, latent: NDArray, kernel: NDArray) -> ScoreTerms:
    """The terms for one gray picture (h, w), its latent image (h + kh - 1, w + kw - 1) and kernel (kh, kw)."""
    blurred, latent, kernel = (np.asarray(v, float) for v in (blurred, latent, kernel))
    residual = scipy.signal.fftconvolve(latent, kernel, "valid") - blurred
    power = float(np.mean(residual**2))
    fast = [scipy.fft.next_fast_len(n + _LAGS, real=True) for n in residual.shape]
    spectrum = np.abs(scipy.fft.rfft2(residual - residual.mean(), fast)) ** 2
    correlation = scipy.fft.irfft2(spectrum, fast)
    near = np.roll(correlation, (_LAGS, _LAGS), (0, 1))[: 2 * _LAGS + 1, : 2 * _LAGS + 1]
    near = near / max(correlation[0, 0], 1e-30)
    kh, kw = kernel.shape
    x = latent[kh // 2 : latent.shape[0] - kh // 2, kw // 2 : latent.shape[1] - kw // 2]
    gradient = np.hypot(np.diff(x, axis=1)[:-1], np.diff(x, axis=0)[:, :-1])
    rms = np.sqrt(np.mean(gradient**2)) + 1e-9
    return ScoreTerms(
        residual=float(np.log(power + 1e-12)),
        whiteness=float(np.log(max(np.sum(near**2) - 1, 0) + 1e-3)),
        sparsity=float(np.log(np.mean(np.sqrt(gradient)) + 1e-9)),
        flatness=float(np.log((np.median(gradient) + 1e-9) / rms)),
    )


def add_disagreement(each: Sequence[ScoreTerms], kernels: Sequence[NDArray]) -> list[ScoreTerms]:
    """The terms with their `disagreement` filled in: less the mean similarity with the other kernels."""
    if len(each) < 2:
        return list(each)
    alike = pairwise_similarity(kernels)
    mean = (alike.sum(1) - alike.diagonal()) / (len(each) - 1)
    return [t._replace(disagreement=-float(m)) for t, m in zip(each, mean)]


def find_failure(blurred: NDArray, image: NDArray, kernel: NDArray) -> str | None:
    """Why a restoration cannot be right: "not a number", "flat image" or "delta kernel"; None where it may be.

    An image is flat where its standard deviation is under a quarter of the blurred picture's, a kernel a delta where
    more than 95 % of its sum lies within 3x3 pixels.
    """
    if not (np.isfinite(image).all() and np.isfinite(kernel).all()):
        return "not a number"
    if np.std(image) < 0.25 * np.std(blurred):
        return "flat image"
    i, j = np.unravel_index(np.argmax(kernel), kernel.shape)
    peak = kernel[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].sum()
    return "delta kernel" if peak > 0.95 * kernel.sum() else None
