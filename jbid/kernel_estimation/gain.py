"""Predicted gain of a deconvolution over the blurred image, without the ground truth, and the confidence in it.

Linear models of the features of `gain_features`, fitted by benchmarks/fit_gain.py to simulated blurs of many kinds, to
sharp images, to noise, JPEG and clipping. docs/development-notes.md holds what it is worth.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from jbid.deconvolution.sparse import CONTRAST
from jbid.io import weights
from jbid.kernel_estimation.ranking import LAGS, autocorrelation, gradient_norm
from jbid.ops.kernels import extent
from jbid.ops.noise import estimate_noise
from jbid.runtime.parallel import map_threads

# features of the blurred image that the confidence depends on, besides the gain
GATE = ("blurred_step1_least", "blurred_step1_most", "blurred_step2_least", "blurred_step2_most", "sharpness", "noise")
LEAST_NOISE = 5e-4  # standard deviation; smaller ones count as this
_QUANTILES = (10, 30, 50, 70, 90)  # percent, of |grad x|
_FAR = 48  # pixels; largest lag of an autocorrelation
_NEAR = 3  # pixels; echoes nearer than this are the width of edges
Measures = dict[str, float]


def _reach(shape: Sequence[int]) -> int:
    return min(_FAR, min(shape) // 3)


def edge_steps(x: NDArray[np.float32]) -> Measures:
    """Steepness of the edges of a gray image (h, w): about 0 for sharp ones, -log w for those w pixels wide.

    Log ratio of the 99.5 % quantiles of the differences over 1 and 4 pixels, and over 2 and 8, least and largest of
    four directions: motion leaves the edges along its own direction sharp.
    """
    h, w = x.shape
    values: Measures = {}
    for near, far in ((1, 4), (2, 8)):
        ratios = []
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):

            def largest(n, down=down, right=right):
                rows, columns = slice(n * down, h), slice(max(0, n * right), w + min(0, n * right))
                others = slice(0, h - n * down), slice(max(0, -n * right), w - max(0, n * right))
                return np.quantile(np.abs(x[rows, columns] - x[others]), 0.995) + 1e-4

            ratios.append(np.log(largest(near) / largest(far)))
        values |= {f"step{near}_least": float(min(ratios)), f"step{near}_most": float(max(ratios))}
    return values


def measure_image(x: NDArray[np.float32], white: float = 1.0) -> Measures:
    """Measures of a gray image (h, w) by itself, with values from 0 to `white`; logarithms, but for `echo`, `strong`.

    `q<p>`: quantiles of |grad x|; `rms`, `mean` and `root`, the root mean square, the mean and the mean square root of
    it; `strong`: share of pixels where it exceeds three times the root mean square; `excess`: mean square of what lies
    beyond this range; `echo`: sum over the distances from 3 pixels on of the largest autocorrelation of both
    derivatives at each distance, as double edges have it (Liu, Wang, Cho, Finkelstein and Rusinkiewicz 2013).
    """
    g = gradient_norm(x)
    rms = float(np.sqrt(np.mean(g**2))) + 1e-9
    reach = _reach(x.shape)
    across, down = (autocorrelation(np.diff(x, axis=axis), reach) for axis in (1, 0))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    distance = np.hypot(rows, columns).astype(int).ravel()
    largest = np.zeros(distance.max() + 1)
    np.maximum.at(largest, distance, np.minimum(np.abs(across), np.abs(down)).ravel())
    values = {f"q{p}": np.log(q + 1e-6) for p, q in zip(_QUANTILES, np.quantile(g, np.divide(_QUANTILES, 100)))}
    values |= {"rms": np.log(rms), "mean": np.log(g.mean() + 1e-9), "root": np.log(np.mean(np.sqrt(g)) + 1e-9)}
    excess = np.mean(np.maximum(x - white, 0) ** 2 + np.maximum(-x, 0) ** 2)
    values |= {"excess": np.log(excess + 1e-9), "strong": np.mean(g > 3 * rms), "echo": largest[_NEAR:reach].sum()}
    return {name: float(value) for name, value in values.items()} | edge_steps(x)


def measure_fit(image: NDArray[np.float32], latent: NDArray[np.float32], kernel: NDArray[np.float32]) -> Measures:
    """Measures of a kernel (s, s) and of the residual k * x - y of the latent image (h + s - 1, w + s - 1).

    `residual`: log of its mean square; `white` and `white_far`: log of the sum of its squared normalized
    autocorrelation at lags up to 16 and up to 48 pixels, except zero; `entropy`, `extent`, `count` and `peak`: of the
    kernel, its entropy, longer side and number of values, and the largest value.
    """
    residual = scipy.signal.fftconvolve(latent, kernel, "valid") - image
    reach = _reach(image.shape)
    power = autocorrelation(residual, reach) ** 2
    near = slice(max(0, reach - LAGS), reach + LAGS + 1)
    positive = kernel[kernel > 0]
    return {
        "residual": float(np.log(np.mean(residual**2) + 1e-12)),
        "white": float(np.log(max(power[near, near].sum() - 1, 0) + 1e-3)),
        "white_far": float(np.log(max(power.sum() - 1, 0) + 1e-3)),
        "entropy": float(-(positive * np.log(positive)).sum()),
        "count": float(np.log(len(positive))),
        "extent": float(np.log(extent(kernel))),
        "peak": float(np.log(positive.max())),
    }


def sharpness(image: NDArray[np.float32], noise: float) -> float:
    """Power of a gray image at 0.3 to 0.45 cycles per pixel, less that of the noise, over that at 0.05 to 0.12, in dB.

    With a Hann window. Blurred images have less; but so do scenes without texture, or largely out of focus.
    """
    h, w = image.shape
    window = np.outer(np.hanning(h), np.hanning(w))
    power = np.abs(np.fft.rfft2((image - image.mean()) * window)) ** 2 / (window**2).sum()
    frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w))
    bands = [power[(frequency > low) & (frequency < high)].mean() for low, high in ((0.3, 0.45), (0.05, 0.12))]
    high, low = (max(band - noise**2, 1e-12) for band in bands)
    return float(10 * np.log10(high / low))


def gain_features(latent: Measures, fit: Measures, blurred: Measures, noise: float) -> dict[str, float]:
    """Features of the model.

    Args:
        latent: `measure_image` of the latent image on the observed window.
        fit: `measure_fit`.
        blurred: `measure_image` of the blurred image, and its `sharpness`.
        noise: estimated standard deviation of the noise.
    """
    level = float(np.log(max(noise, LEAST_NOISE)))
    features: dict[str, float] = {}
    for p in _QUANTILES:
        features[f"flat{p}"] = latent[f"q{p}"] - latent["rms"]
        features[f"flat{p}_change"] = features[f"flat{p}"] - (blurred[f"q{p}"] - blurred["rms"])
    contrast, extent = latent["rms"] - blurred["rms"], fit["extent"]
    features |= {
        name: latent[key] - blurred[key]
        for name, key in (("root_change", "root"), ("mean_change", "mean"), ("excess_change", "excess"))
    }
    features |= {"echo_change": latent["echo"] - blurred["echo"], "strong_change": latent["strong"] - blurred["strong"]}
    features |= {name: fit[name] for name in ("white", "white_far", "extent", "count", "entropy", "peak")}
    features |= {name: latent[name] for name in ("excess", "echo", "strong")}
    for name in ("step1_least", "step1_most", "step2_least", "step2_most"):
        features |= {f"blurred_{name}": blurred[name], f"{name}_change": latent[name] - blurred[name]}
    excess_residual = fit["residual"] / 2 - level
    return features | {
        "mean_flat": latent["mean"] - latent["rms"],
        "contrast": contrast,
        "contrast_squared": contrast**2,
        "contrast_extent": contrast * extent,
        "contrast_noise": contrast * level,
        "residual": excess_residual,
        "residual_squared": excess_residual**2,
        "noise": level,
        "dark_noise": latent["q10"] - level,
        "flat_noise": latent["q30"] - level,
        "blurred_flat_noise": blurred["q30"] - level,
        "sharpness": blurred["sharpness"],
        "sharpness_extent": blurred["sharpness"] * extent,
        "blurred_contrast": blurred["rms"],
    }


class Assessment(NamedTuple):
    """Assessment of a deconvolution without the ground truth.

    Attributes:
        rank: the larger, the better among the candidates of one image; has no unit.
        gain: predicted PSNR of the deconvolution minus that of the blurred image, in dB.
        confidence: probability that it is positive.
    """

    rank: float
    gain: float
    confidence: float


class GainModel(NamedTuple):
    """Linear models of the rank and the gain, and a logistic model of the probability that the gain is positive.

    Attributes:
        names: of the features.
        mean, scale: of each feature over the fitted images.
        rank: coefficients of the standardized features.
        gain: intercept and coefficients of the standardized features.
        confidence: intercept and coefficients of the gain in dB and of the standardized `GATE` features.
    """

    names: tuple[str, ...]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    rank: NDArray[np.float32]
    gain: NDArray[np.float32]
    confidence: NDArray[np.float32]

    def standardize(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Features (..., n) with mean zero and standard deviation one, within four of them."""
        return np.clip((values - self.mean) / self.scale, -4, 4)

    def gate(self, standardized: NDArray, gain: float | NDArray) -> NDArray[np.float64]:
        """Inputs (..., m) of the logistic model, the first one constant."""
        columns = [self.names.index(name) for name in GATE]
        gain = np.clip(gain, -6, 10)
        return np.concatenate([np.ones_like(gain)[..., None], gain[..., None], standardized[..., columns]], -1)

    def assess(self, features: Mapping[str, float]) -> Assessment:
        """Assessment of the deconvolution with these features."""
        values = self.standardize(np.array([features[name] for name in self.names]))
        gain = np.asarray(self.gain[0] + values @ self.gain[1:])
        logit = self.gate(values, gain) @ self.confidence
        return Assessment(float(values @ self.rank), float(gain), float(1 / (1 + np.exp(-logit))))


@functools.cache
def load_model() -> GainModel:
    """The fitted model that ships with jbid."""
    values = weights.load("gain")
    names = tuple(weights.manifest()["gain.npz"]["settings"]["features"])
    return GainModel(names, **{name: values[name] for name in GainModel._fields[1:]})


class GainPredictor:
    """Predicted gains of deconvolutions of one gray image (h, w) in [0, 1], whatever its brightness and contrast.

    Args:
        image: without impulse noise.
    """

    def __init__(self, image: NDArray[np.float32]):
        self.scale = np.float32(CONTRAST / max(float(image.std()), 1e-3))
        self.image = image * self.scale
        self.noise = float(estimate_noise(self.image[..., None]))
        self.measures = measure_image(self.image, float(self.scale)) | {"sharpness": sharpness(self.image, self.noise)}

    def features(self, latent: NDArray[np.float32], kernel: NDArray[np.float32]) -> dict[str, float]:
        """`gain_features` of a latent image (h + s - 1, w + s - 1) and its kernel (s, s)."""
        (h, w), half = self.image.shape, kernel.shape[0] // 2
        latent = latent * self.scale
        window = latent[half : half + h, half : half + w]
        fit = measure_fit(self.image, latent, kernel)
        return gain_features(measure_image(window, float(self.scale)), fit, self.measures, self.noise)

    def assess(self, latents: Sequence[NDArray], kernels: Sequence[NDArray]) -> list[Assessment]:
        """Assessment of each latent image and kernel."""
        model = load_model()
        return map_threads(lambda x, k: model.assess(self.features(x, k)), latents, kernels)
