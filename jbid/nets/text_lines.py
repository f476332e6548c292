"""A generator of lines of typewritten text, and the encoder that it is trained with as a variational autoencoder.

Both are one-dimensional residual networks over the places of a line, `PLACE` pixels wide and one letter each. Letters
that are not side by side have nothing to do with one another, and a place's pixels are one matrix product.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

PLACE = 12  # pixels of a line to one letter
LATENT = 12
HEIGHT = 32  # pixels of a line
PAPER, INK = (0.75, 1.0), (0.0, 0.25)  # the grays that a line may have
_he = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
_small = nn.initializers.variance_scaling(0.1, "fan_in", "normal")  # blocks begin near the identity


class Latents(NamedTuple):
    """Latents of a line, N(0, I): 12 dimensions for each letter, and the levels of paper and ink."""

    letters: Float[Array, "*b n 12"]
    levels: Float[Array, "*b 2"]


class _Residual(nn.Module):
    """`depth` blocks x + conv(gelu(conv(norm(x)))) over the places, after a first convolution."""

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
    """x = D(v): a line (32, 12 n) of n letters in [0, 1], paper + (ink - paper) m, with a mask m of the letters.

    The levels go to grays by the normal distribution function, so that N(0, 1) is evenly spread between `PAPER`'s and
    `INK`'s limits, as the rendered lines' grays are.
    """

    width: int = 192
    depth: int = 2

    @nn.compact
    def __call__(self, latents: Latents) -> Float[Array, "b 32 12*n"]:
        b, n, _ = latents.letters.shape
        x = _Residual(self.width, self.depth)(latents.letters)
        x = nn.sigmoid(2 * nn.Dense(HEIGHT * PLACE)(nn.gelu(nn.LayerNorm()(x))) - 2)
        mask = x.reshape(b, n, HEIGHT, PLACE).swapaxes(1, 2).reshape(b, HEIGHT, n * PLACE)
        share = jax.scipy.stats.norm.cdf(latents.levels)[..., None, None]
        paper, ink = (low + (high - low) * share[:, i] for i, (low, high) in enumerate((PAPER, INK)))
        return paper + (ink - paper) * mask


class LineEncoder(nn.Module):
    """Mean and logarithm of the deviation of the latents q(v | x) = N(mean, deviation^2) of lines."""

    width: int = 192
    depth: int = 2

    @nn.compact
    def __call__(self, lines: Float[Array, "b 32 w"]) -> tuple[Latents, Latents]:
        b, h, w = lines.shape
        x = (lines - 0.5).reshape(b, h, w // PLACE, PLACE).swapaxes(1, 2).reshape(b, w // PLACE, h * PLACE)
        x = _Residual(self.width, self.depth)(x)
        levels = nn.Dense(4)(nn.gelu(nn.Dense(32)(x.mean(1))))
        told = (nn.Dense(2 * LATENT)(x), levels)
        mean, log = zip(*(jnp.split(part, 2, -1) for part in told))
        return Latents(*mean), Latents(*(jnp.clip(part - 1, -6, 3) for part in log))
