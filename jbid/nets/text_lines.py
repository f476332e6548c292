"""Generator of lines of typewritten text and its encoder, which make up a variational autoencoder.

Both are one-dimensional residual networks over the letters of a line, each of which is `PLACE` pixels wide. One matrix
product makes all pixels of a letter.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

PLACE = 12  # pixels; width of a letter
LATENT = 12  # dimensions of the latent of a letter
HEIGHT = 32  # pixels; height of a line
PAPER, INK = (0.75, 1.0), (0.0, 0.25)  # ranges of the gray levels
_he = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
_small = nn.initializers.variance_scaling(0.1, "fan_in", "normal")  # makes untrained blocks close to the identity


class Latents(NamedTuple):
    """Latents of a line with the prior N(0, I).

    Attributes:
        letters: of each letter.
        levels: of the gray levels of paper and ink.
    """

    letters: Float[Array, "*b n 12"]
    levels: Float[Array, "*b 2"]


class _Residual(nn.Module):
    """Convolution over the letters, then `depth` blocks x + conv(gelu(conv(norm(x))))."""

    width: int
    depth: int

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n d"]:
        x = nn.Conv(self.width, (3,))(x)
        for _ in range(self.depth):
            y = nn.gelu(nn.Conv(self.width, (3,), kernel_init=_he)(nn.LayerNorm()(x)))
            x = x + nn.Conv(self.width, (3,), kernel_init=_small)(y)
        return x


class LineDecoder(nn.Module):
    """Lines x = D(v) of n letters, (32, 12 n) in [0, 1]: paper + (ink - paper) m with a mask m of the letters.

    The normal distribution function maps the latents of the levels to the ranges `PAPER` and `INK`. So N(0, 1) gives
    evenly distributed gray levels, like those of the rendered lines.

    Attributes:
        width: channels of the residual network.
        depth: number of its blocks.
    """

    width: int = 192
    depth: int = 2

    @nn.compact
    def __call__(self, latents: Latents) -> Float[Array, "b 32 w"]:
        b, n, _ = latents.letters.shape
        x = _Residual(self.width, self.depth)(latents.letters)
        x = nn.sigmoid(2 * nn.Dense(HEIGHT * PLACE)(nn.gelu(nn.LayerNorm()(x))) - 2)
        mask = x.reshape(b, n, HEIGHT, PLACE).swapaxes(1, 2).reshape(b, HEIGHT, n * PLACE)
        share = jax.scipy.stats.norm.cdf(latents.levels)[..., None, None]
        paper, ink = (low + (high - low) * share[:, i] for i, (low, high) in enumerate((PAPER, INK)))
        return paper + (ink - paper) * mask


class LineEncoder(nn.Module):
    """Mean and log standard deviation of the latents q(v | x) = N(mean, deviation^2) of lines.

    Attributes:
        width: channels of the residual network.
        depth: number of its blocks.
    """

    width: int = 192
    depth: int = 2

    @nn.compact
    def __call__(self, lines: Float[Array, "b 32 w"]) -> tuple[Latents, Latents]:
        b, h, w = lines.shape
        x = (lines - 0.5).reshape(b, h, w // PLACE, PLACE).swapaxes(1, 2).reshape(b, w // PLACE, h * PLACE)
        x = _Residual(self.width, self.depth)(x)
        levels = nn.Dense(4)(nn.gelu(nn.Dense(32)(x.mean(1))))
        outputs = (nn.Dense(2 * LATENT)(x), levels)
        means, logs = zip(*(jnp.split(output, 2, -1) for output in outputs))
        return Latents(*means), Latents(*(jnp.clip(log - 1, -6, 3) for log in logs))
