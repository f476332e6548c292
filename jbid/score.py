"""How good a restoration looks to one who does not know the truth: to choose among seeds, settings and sizes.

NumPy, on the host. What each term is worth, and the regret of the choice, is in docs/experiments.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

# Spread of each term between candidates for one picture, measured on Levin's, Lai's and synthetic images: makes the
# terms comparable. The weights are plain numbers, as finer ones did not choose better on pictures not used to find them
_SPREAD = {"whiteness": 0.49, "sparsity": 0.066, "flatness": 0.104, "disagreement": 0.045}
_WEIGHT = {"whiteness": 0.5, "sparsity": 0.5, "flatness": 2.0, "disagreement": 1.0}
_LAGS = 16  # pixels, of the residual's autocorrelation


class Terms(NamedTuple):
    """What speaks against a restoration; lower is better in each, and only differences for one picture mean anything.

    residual: log mean r^2 of r = k * x - y, told but not weighed. whiteness: log of the sum of the squared normalised
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


NO_TERMS = Terms(0.0, 0.0, 0.0, 0.0)


def terms(blurred: NDArray, latent: NDArray, kernel: NDArray) -> Terms:
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
    return Terms(
        residual=float(np.log(power + 1e-12)),
        whiteness=float(np.log(max(np.sum(near**2) - 1, 0) + 1e-3)),
        sparsity=float(np.log(np.mean(np.sqrt(gradient)) + 1e-9)),
        flatness=float(np.log((np.median(gradient) + 1e-9) / rms)),
    )


def similarities(kernels: Sequence[NDArray]) -> NDArray[np.float64]:
    """The largest normalised cross-correlation over shifts of each pair of kernels (s, s) with non-negative values."""
    ks = np.stack([np.asarray(k, float) for k in kernels])
    ks /= np.maximum(np.linalg.norm(ks, axis=(1, 2), keepdims=True), 1e-30)
    fast = [scipy.fft.next_fast_len(2 * n - 1, real=True) for n in ks.shape[1:]]
    spectra = scipy.fft.rfft2(ks, fast)
    return np.array([scipy.fft.irfft2(spectra * np.conj(s), fast).max((1, 2)) for s in spectra])


def with_agreement(each: Sequence[Terms], kernels: Sequence[NDArray]) -> list[Terms]:
    """The terms with their `disagreement` filled in: less the mean similarity with the other kernels."""
    if len(each) < 2:
        return list(each)
    alike = similarities(kernels)
    mean = (alike.sum(1) - alike.diagonal()) / (len(each) - 1)
    return [t._replace(disagreement=-float(m)) for t, m in zip(each, mean)]


def failure(blurred: NDArray, image: NDArray, kernel: NDArray) -> str | None:
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


def aligned_mean(kernels: Sequence[NDArray], onto: NDArray) -> NDArray[np.float32]:
    """The mean of kernels (s, s) after the shift by whole pixels that correlates each best with `onto`; sum one."""
    total = np.zeros(onto.shape)
    for kernel in kernels:
        total += moved(kernel, best_shift(kernel, onto), onto.shape) / kernel.sum()
    return (total / total.sum()).astype(np.float32)


def best_shift(kernel: NDArray, onto: NDArray) -> tuple[int, int]:
    """Pixels down and right by which a kernel is to be moved to correlate best with another one."""
    correlation = scipy.signal.correlate(onto, kernel, "full", "fft")
    dy, dx = np.unravel_index(np.argmax(correlation), correlation.shape)
    return int(dy) - kernel.shape[0] + 1, int(dx) - kernel.shape[1] + 1


def moved(values: NDArray, shift: tuple[int, int], shape: tuple[int, ...]) -> NDArray:
    """An array moved by whole pixels down and right, in an array of `shape`; zero where nothing came from."""
    out = np.zeros(shape, values.dtype)
    to = tuple(slice(max(0, s), max(0, min(n, m + s))) for s, n, m in zip(shift, shape, values.shape))
    out[to] = values[tuple(slice(part.start - s, part.stop - s) for part, s in zip(to, shift))]
    return out
