"""Noise: models, an estimate of its level, and the removal of impulses."""

from __future__ import annotations

import functools
from collections.abc import Callable

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from jaxtyping import Array, Bool, Float

from jbid.ops.namespace import AnyArray, Scalar, is_host, namespace

# high-pass filter of the Daubechies-2 wavelet
_HIGH = (-0.48296291314469025, 0.8365163037378079, -0.22414386804185735, -0.12940952255092145)


def estimate_noise(image: Float[AnyArray, "h w c"]) -> Float[AnyArray, ""]:
    """Standard deviation of white Gaussian noise, in the image's units, averaged over the channels.

    sigma = median |HH| / 0.6745 over the nonzero finest diagonal wavelet coefficients HH (Donoho and Johnstone 1994,
    as `skimage.restoration.estimate_sigma`). A blurred image has little detail of its own at that scale, so the
    estimate is accurate for it. 0 for an image without detail or with sides under 8 pixels.
    """
    xp = namespace(image)

    def high_pass(x, axis):
        x = xp.moveaxis(x, axis, 0)
        n = (x.shape[0] - 4) // 2 * 2 + 1
        return xp.moveaxis(sum(f * x[i : i + n : 2] for i, f in enumerate(_HIGH)), 0, axis)

    if image.shape[0] < 8 or image.shape[1] < 8:
        return xp.zeros((), image.dtype)
    detail = abs(high_pass(high_pass(image, 0), 1))
    if is_host(image):
        found = [values[values > 0] for values in detail.reshape(-1, image.shape[-1]).T]
        medians = [float(np.median(values)) if len(values) else 0.0 for values in found]
        return np.asarray(np.mean(medians) / 0.6745, image.dtype)
    median = jnp.nanmedian(jnp.where(detail > 0, detail, jnp.nan), axis=(0, 1))
    return jnp.nan_to_num(median).mean() / 0.6745


BLOCK = 8  # pixels; side of the blocks of JPEG
_LEAST_BLOCKING = 2.5  # of the energy of differences across the borders of blocks, over that within them
_OUTLIER = 0.1  # larger differences are edges
_BLOCK_SHARE = 0.7  # of the error over the jump at a border, a fit to photos (docs/development-notes.md)


def compression_noise(gray: Float[AnyArray, "h w"]) -> float:
    """Standard deviation of the error of a JPEG compression, from the jumps at the borders of its blocks; on the host.

    With e the difference of two neighbors less the mean of the two differences beside it, across and down, it is 0.7
    times the root of half of what mean e^2 at one of eight positions exceeds the median of the others by. 0 without
    blocks. `estimate_noise` sees little of this error, because blocks are smooth.
    """
    x = np.asarray(gray)
    if min(x.shape) < 4 * BLOCK:
        return 0.0
    jumps = []
    for image in (x, x.T):
        d = np.diff(image, axis=1)
        e = np.minimum(abs(d[:, 1:-1] - (d[:, :-2] + d[:, 2:]) / 2), _OUTLIER) ** 2
        energies = np.array([e[:, i::BLOCK].mean() for i in range(BLOCK)])
        inside = max(float(np.median(energies)), 1e-9)
        if energies.max() < _LEAST_BLOCKING * inside:
            return 0.0
        jumps.append(float(energies.max()) - inside)
    return _BLOCK_SHARE * float(np.sqrt(np.mean(jumps) / 2))


def estimate_error(gray: Float[AnyArray, "h w 1"]) -> float:
    """Standard deviation of noise or of the error of a JPEG compression, whichever is larger; on the host."""
    return max(float(estimate_noise(gray)), compression_noise(gray[..., 0]))


_REACH = 5  # pixels of `smooth`; 3 standard deviations of 1.6


def smooth(image: Float[AnyArray, "h w"], width: Scalar) -> Float[AnyArray, "h w"]:
    """Image convolved with a Gaussian of standard deviation `width`, up to 1.6 pixels; borders are mirrored."""
    if is_host(image):
        return scipy.ndimage.gaussian_filter(image, float(width), radius=_REACH)
    taps = jnp.exp(-0.5 * (jnp.arange(-_REACH, _REACH + 1) / width) ** 2)
    taps = taps / taps.sum()
    for axis in (0, 1):
        moved = jnp.moveaxis(image, axis, 0)
        padded = jnp.pad(moved, ((_REACH, _REACH), (0, 0)), mode="symmetric")
        moved = functools.reduce(jnp.add, [tap * padded[i : i + moved.shape[0]] for i, tap in enumerate(taps)])
        image = jnp.moveaxis(moved, 0, axis)
    return image


def _median3(x: Float[AnyArray, "h w c"]) -> Float[AnyArray, "h w c"]:
    if is_host(x):
        return scipy.ndimage.median_filter(x, (3, 3, 1), mode="nearest")
    padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge")
    h, w = x.shape[:2]
    return jnp.median(jnp.stack([padded[i : i + h, j : j + w] for i in range(3) for j in range(3)]), 0)


MANY_IMPULSES = 0.003  # share of pixels with impulses from which on fainter ones are looked for


def detect_impulses(image: Float[AnyArray, "h w c"]) -> Bool[AnyArray, "h w 1"]:
    """Pixels with impulse noise: black or white and unlike their neighbors, which a blurred image cannot have.

    Within 0.02 of 0 or 1, and more than 0.15 from the 3x3 median, in the mean of the channels. If these are more than
    `MANY_IMPULSES` of all pixels, 0.03 suffices, because as many lie in dark and bright parts of the image.
    """
    x = image.mean(-1, keepdims=True)
    gap = ((x < 0.02) | (x > 0.98)) * abs(x - _median3(x))
    is_clear = gap > 0.15
    return is_clear | ((gap > 0.03) & (is_clear.mean() > MANY_IMPULSES))


def remove_impulses(image: Float[AnyArray, "h w c"]) -> Float[AnyArray, "h w c"]:
    """Image whose pixels with impulse noise (`detect_impulses`) are replaced by their 3x3 median."""
    is_hit = detect_impulses(image)
    # without any, which is usual, the median of all channels is spared
    return image if is_host(image) and not is_hit.any() else namespace(image).where(is_hit, _median3(image), image)


def gaussian_noise(key: Array, image: Float[Array, "h w c"], sigma: float) -> Float[Array, "h w c"]:
    """Image plus white N(0, sigma^2), clipped to [0, 1]; sigma in units of the image's range."""
    return jnp.clip(image + sigma * jax.random.normal(key, image.shape), 0, 1)


def impulse_noise(key: Array, image: Float[Array, "h w c"], probability: float) -> Float[Array, "h w c"]:
    """Salt and pepper: each pixel becomes white or black, equally often, with this probability."""
    u = jax.random.uniform(key, (*image.shape[:2], 1))
    return jnp.where(u < probability / 2, 1.0, jnp.where(u < probability, 0.0, image))


def shot_noise(key: Array, image: Float[Array, "h w c"], rate: float) -> Float[Array, "h w c"]:
    """Poisson(rate x) / rate, clipped to [0, 1]; a white pixel counts `rate` photons on average."""
    return jnp.clip(jax.random.poisson(key, rate * jnp.clip(image, 0, 1)) / rate, 0, 1)


def saturation(key: Array, image: Float[Array, "h w 3"], gain: float = 2.0) -> Float[Array, "h w 3"]:
    """HSV saturation times `gain` plus 0.1, clipped to [0, 1]; then N(0, 0.0001^2) is added.

    Zhuang et al., section 4.2.2, after Hendrycks and Dietterich 2019.

    Raises:
        ValueError: for a gray image.
    """
    if image.shape[-1] != 3:
        raise ValueError("saturation noise needs a color image")
    hue, s, value = dm_pix.rgb_to_hsv(jnp.clip(image, 0, 1)).transpose(2, 0, 1)
    saturated = dm_pix.hsv_to_rgb(jnp.stack([hue, jnp.clip(gain * s + 0.1, 0, 1), value], -1))
    return gaussian_noise(key, saturated, 1e-4)


def clipping(key: Array, image: Float[Array, "h w c"], gain: float) -> Float[Array, "h w c"]:
    """min(1, gain x), an overexposed camera; of a blurred image y = min(1, k * (gain x)). Nothing is random."""
    return jnp.minimum(gain * image, 1)


NOISE_MODELS: dict[str, Callable[[Array, Array, float], Array]] = {
    "gaussian": gaussian_noise,
    "impulse": impulse_noise,
    "shot": shot_noise,
    "saturation": saturation,
    "clipping": clipping,
}
# low and high levels of Zhuang et al., section 4.2.2 (the captions of its figures 21 and 22 have others); saturation
# has a single one
NOISE_LEVELS: dict[str, tuple[float, float]] = {
    "gaussian": (0.001, 0.05),
    "impulse": (0.005, 0.08),
    "shot": (90, 25),
    "saturation": (2, 2),
    # about the range in which Lai et al. 2016 stretched their saturated images
    "clipping": (1.4, 1.8),
}


def parse_noise(spec: str) -> tuple[str, float]:
    """Model and level of a specification such as "gaussian:0.05"; the level is a number, "low" or "high".

    Raises:
        ValueError: for an unknown model, a level that is not positive, or a probability above one.
    """
    model, _, text = spec.partition(":")
    if model not in NOISE_MODELS:
        choices = ", ".join(f"{name}:LEVEL" for name in NOISE_MODELS)
        raise ValueError(f"`noise` must be one of {choices}, got {spec!r}")
    if text in ("low", "high"):
        return model, NOISE_LEVELS[model][text == "high"]
    try:
        level = float(text or (NOISE_LEVELS[model][1] if model == "saturation" else "nan"))
    except ValueError:
        level = 0.0
    if not level > 0 or (model == "impulse" and level > 1) or level == float("inf"):
        raise ValueError(
            f"`noise` must have a level such as {model}:{NOISE_LEVELS[model][1]}, low or high, got {spec!r}"
        )
    return model, level


def add_noise(key: Array, image: Float[Array, "h w c"], spec: str) -> Float[Array, "h w c"]:
    """Add noise by a specification such as "gaussian:0.05", see `parse_noise`.

    Args:
        key: random key.
        image: in [0, 1].
        spec: "gaussian:SIGMA", "impulse:PROBABILITY", "shot:RATE", "clipping:GAIN" or "saturation".

    Raises:
        ValueError: for another specification.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> add_noise(jax.random.key(0), jnp.ones((8, 8, 1)), "gaussian:0.01").shape
        (8, 8, 1)
    """
    model, level = parse_noise(spec)
    return NOISE_MODELS[model](key, image, level)
