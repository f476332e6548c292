"""Degradation of a blurred image by a camera: gamma, noise, JPEG, rounding to 8 bits."""

from __future__ import annotations

from typing import NamedTuple

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jax import Array
from jaxtyping import Float

# luminance table of ITU-T T.81, Annex K, Table K.1
_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_DCT = scipy.fft.dct(np.eye(8), axis=0, norm="ortho")


class Degradation(NamedTuple):
    """Upper bounds of a random degradation; each image draws its own between nothing and the bound.

    Attributes:
        noise: standard deviation of Gaussian noise.
        gamma: the exponent lies between 1 / (1 + gamma) and 1 + gamma.
        jpeg: lowest quality; 100: no compression.
        rounded: round to 8 bits.
        clean: share of images without any degradation.
    """

    noise: float = 0.0
    gamma: float = 0.0
    jpeg: int = 100
    rounded: bool = False
    clean: float = 0.0


def jpeg(image: Float[Array, "h w"], quality: Array | float) -> Float[Array, "h w"]:
    """Compress a gray image in [0, 1] by JPEG: coefficients of 8x8 DCTs rounded to multiples of the standard table.

    The quality (1 to 100) scales the table as in the Independent JPEG Group's library. Not differentiable.
    """
    h, w = image.shape
    scale = jnp.where(quality < 50, 50 / quality, 2 - quality / 50)
    table = jnp.clip(jnp.floor(_TABLE * scale + 0.5), 1, 255)
    padded = jnp.pad(image * 255 - 128, ((0, -h % 8), (0, -w % 8)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // 8, 8, -1, 8).swapaxes(1, 2)
    coefficients = jnp.round(_DCT @ blocks @ _DCT.T / table) * table
    blocks = (_DCT.T @ coefficients @ _DCT).swapaxes(1, 2)
    return jnp.clip(jnp.round(blocks.reshape(padded.shape)[:h, :w] + 128), 0, 255) / 255


def degrade(key: Array, image: Float[Array, "h w"], bounds: Degradation) -> Float[Array, "h w"]:
    """Degrade a blurred gray image in [0, 1] as a camera might: gamma, noise, JPEG and rounding, in this order."""
    clean_key, gamma_key, level_key, noise_key, quality_key = jax.random.split(key, 5)
    x = jnp.clip(image, 0, 1)
    if bounds.gamma:
        x = dm_pix.adjust_gamma(x, (1 + bounds.gamma) ** jax.random.uniform(gamma_key, minval=-1, maxval=1))
    if bounds.noise:
        sigma = bounds.noise * jax.random.uniform(level_key)
        x = jnp.clip(x + sigma * jax.random.normal(noise_key, x.shape), 0, 1)
    if bounds.jpeg < 100:
        x = jpeg(x, jax.random.uniform(quality_key, minval=bounds.jpeg, maxval=100))
    if bounds.rounded:
        x = jnp.round(x * 255) / 255
    return jnp.where(jax.random.uniform(clean_key) < bounds.clean, image, x)
