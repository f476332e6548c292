"""What a camera does to a blurred picture before anyone sees it: gamma, noise, JPEG, 8 bits."""

from __future__ import annotations

from typing import NamedTuple

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jax import Array
from jaxtyping import Float

# the luminance table of ITU-T T.81, Annex K, Table K.1
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
    """The most that is done to a picture; how much is drawn anew for each, from nothing up.

    noise: standard deviation of Gaussian noise. gamma: exponent between 1 / (1 + gamma) and 1 + gamma. jpeg: the
    lowest quality, 100 for none. rounded: to 8 bits. clean: the share of pictures that nothing at all is done to.
    """

    noise: float = 0.0
    gamma: float = 0.0
    jpeg: int = 100
    rounded: bool = False
    clean: float = 0.0


def jpeg(picture: Float[Array, "h w"], quality: Array | float) -> Float[Array, "h w"]:
    """A gray picture in [0, 1] after JPEG: the coefficients of 8x8 DCTs rounded to multiples of the standard table's.

    The table is scaled by the quality (1 to 100) as the Independent JPEG Group's library does it. Not differentiable.
    """
    h, w = picture.shape
    scale = jnp.where(quality < 50, 50 / quality, 2 - quality / 50)
    table = jnp.clip(jnp.floor(_TABLE * scale + 0.5), 1, 255)
    padded = jnp.pad(picture * 255 - 128, ((0, -h % 8), (0, -w % 8)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // 8, 8, -1, 8).swapaxes(1, 2)
    kept = jnp.round(_DCT @ blocks @ _DCT.T / table) * table
    blocks = (_DCT.T @ kept @ _DCT).swapaxes(1, 2)
    return jnp.clip(jnp.round(blocks.reshape(padded.shape)[:h, :w] + 128), 0, 255) / 255


def degrade(key: Array, picture: Float[Array, "h w"], most: Degradation) -> Float[Array, "h w"]:
    """A blurred gray picture in [0, 1] as a camera might store it: gamma, noise, JPEG and rounding, in this order."""
    for_clean, for_gamma, for_level, for_noise, for_quality = jax.random.split(key, 5)
    x = jnp.clip(picture, 0, 1)
    if most.gamma:
        x = dm_pix.adjust_gamma(x, (1 + most.gamma) ** jax.random.uniform(for_gamma, minval=-1, maxval=1))
    if most.noise:
        sigma = most.noise * jax.random.uniform(for_level)
        x = jnp.clip(x + sigma * jax.random.normal(for_noise, x.shape), 0, 1)
    if most.jpeg < 100:
        x = jpeg(x, jax.random.uniform(for_quality, minval=most.jpeg, maxval=100))
    if most.rounded:
        x = jnp.round(x * 255) / 255
    return jnp.where(jax.random.uniform(for_clean) < most.clean, picture, x)
