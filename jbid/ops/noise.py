"""Noise models, and an estimate of how much noise there is."""

from __future__ import annotations

from collections.abc import Callable

import dm_pix
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# high-pass filter of the Daubechies-2 wavelet
_HIGH = (-0.48296291314469025, 0.8365163037378079, -0.22414386804185735, -0.12940952255092145)


def estimate_noise(image: Float[Array, "h w c"]) -> Float[Array, ""]:
    """Standard deviation of white Gaussian noise, in the image's units, averaged over the channels.

    sigma = median |HH| / 0.6745 over the finest diagonal wavelet coefficients HH that are not zero (Donoho and
    Johnstone 1994, as `skimage.restoration.estimate_sigma`). A blurred image has next to no detail of its own at that
    scale, which makes the estimate good there. 0 for an image without any detail.
    """

    def high(x, axis):
        x = jnp.moveaxis(x, axis, 0)
        n = (x.shape[0] - 4) // 2 * 2 + 1
        return jnp.moveaxis(sum(f * x[i : i + n : 2] for i, f in enumerate(_HIGH)), 0, axis)

    if image.shape[0] < 8 or image.shape[1] < 8:
        return jnp.zeros(())
    detail = jnp.abs(high(high(image, 0), 1))
    median = jnp.nanmedian(jnp.where(detail > 0, detail, jnp.nan), axis=(0, 1))
    return jnp.nan_to_num(median).mean() / 0.6745


def _median3(x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge")
    h, w = x.shape[:2]
    return jnp.median(jnp.stack([padded[i : i + h, j : j + w] for i in range(3) for j in range(3)]), 0)


def detect_impulses(image: Float[Array, "h w c"]) -> Bool[Array, "h w 1"]:
    """The pixels that are black or white and unlike their neighbors, which a blurred picture cannot have.

    Within 0.02 of 0 or 1, and more than 0.15 from the median of 3x3 pixels, in the mean of the channels.
    """
    x = image.mean(-1, keepdims=True)
    return ((x < 0.02) | (x > 0.98)) & (jnp.abs(x - _median3(x)) > 0.15)


def remove_impulses(image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """The image with each of its `impulses` replaced by the median of 3x3 pixels."""
    return jnp.where(detect_impulses(image), _median3(image), image)


def gaussian_noise(key: Array, image: Float[Array, "h w c"], sigma: float) -> Float[Array, "h w c"]:
    """The image with white N(0, sigma^2) added, clipped to [0, 1]; sigma in units of the image's range."""
    return jnp.clip(image + sigma * jax.random.normal(key, image.shape), 0, 1)


def impulse_noise(key: Array, image: Float[Array, "h w c"], probability: float) -> Float[Array, "h w c"]:
    """Salt and pepper: each pixel becomes white or black, half the time each, with this probability."""
    hit = jax.random.uniform(key, (*image.shape[:2], 1))
    return jnp.where(hit < probability / 2, 1.0, jnp.where(hit < probability, 0.0, image))


def shot_noise(key: Array, image: Float[Array, "h w c"], rate: float) -> Float[Array, "h w c"]:
    """Poisson(rate x) / rate, clipped to [0, 1]: `rate` photons are counted where the image is white."""
    return jnp.clip(jax.random.poisson(key, rate * jnp.clip(image, 0, 1)) / rate, 0, 1)


def saturation(key: Array, image: Float[Array, "h w 3"], gain: float = 2.0) -> Float[Array, "h w 3"]:
    """HSV saturation times `gain` plus 0.1, clipped to [0, 1]; then N(0, 0.0001^2) is added.

    Zhuang et al., section 4.2.2, after Hendrycks and Dietterich 2019. Raises ValueError for an image without color.
    """
    if image.shape[-1] != 3:
        raise ValueError("saturation needs a picture in color")
    hue, s, value = dm_pix.rgb_to_hsv(jnp.clip(image, 0, 1)).transpose(2, 0, 1)
    changed = dm_pix.hsv_to_rgb(jnp.stack([hue, jnp.clip(gain * s + 0.1, 0, 1), value], -1))
    return gaussian_noise(key, changed, 1e-4)


Noise = Callable[[Array, Array, float], Array]

NOISE_MODELS: dict[str, Noise] = {
    "gaussian": gaussian_noise,
    "impulse": impulse_noise,
    "shot": shot_noise,
    "saturation": saturation,
}
# Zhuang et al., section 4.2.2 (the captions of its figures 21 and 22 have others); of saturation there is one level
NOISE_LEVELS: dict[str, tuple[float, float]] = {
    "gaussian": (0.001, 0.05),
    "impulse": (0.005, 0.08),
    "shot": (90, 25),
    "saturation": (2, 2),
}


def parse_noise(text: str) -> tuple[str, float]:
    """The model and level that a text such as "gaussian:0.05" names.

    The level is a number, "low" or "high" (Zhuang et al.'s). Raises ValueError for unknown models and for levels that
    are not positive, or probabilities above one.
    """
    model, _, level = text.partition(":")
    if model not in NOISE_MODELS:
        raise ValueError(f"got noise {text!r}, expected one of {', '.join(f'{m}:LEVEL' for m in NOISE_MODELS)}")
    if level in ("low", "high"):
        return model, NOISE_LEVELS[model][level == "high"]
    try:
        value = float(level or (NOISE_LEVELS[model][1] if model == "saturation" else "nan"))
    except ValueError:
        value = 0.0
    if not value > 0 or (model == "impulse" and value > 1) or value == float("inf"):
        raise ValueError(
            f"got noise {text!r}, expected a level such as {model}:{NOISE_LEVELS[model][1]}, or low or high"
        )
    return model, value
