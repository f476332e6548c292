"""A generator of lines of text, and the encoder that it is trained with as a variational autoencoder.

Both are one-dimensional residual networks over the columns of a line, `PLACE` pixels wide: letters are next to each
other alone, and a place's pixels are one matrix product. At equal time on a CPU that learns far more than transposed
convolutions over both axes, which mistook the letters for a gray band.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

PLACE = 8  # pixels of a line to one latent
LATENT = 24
HEIGHT = 32  # pixels of a line
_he = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
_small = nn.initializers.variance_scaling(0.1, "fan_in", "normal")  # blocks begin near the identity


class _Residual(nn.Module):
    """`depth` blocks x + conv(gelu(conv(norm(x)))) over the places, after a first convolution."""

    width: int
    depth: int

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n d"]:
        x = nn.Conv(self.width, (5,))(x)
        for _ in range(self.depth):
            y = nn.gelu(nn.Conv(self.width, (3,), kernel_init=_he)(nn.LayerNorm()(x)))
            x = x + nn.Conv(self.width, (3,), kernel_init=_small)(y)
        return x


class LineDecoder(nn.Module):
    """x = D(v): a line (32, 8 n) in (0, 1) from n latents of 24 dimensions, N(0, I), one for each 8 pixels of it."""

    width: int = 384
    depth: int = 3

    @nn.compact
    def __call__(self, latents: Float[Array, "b n 24"]) -> Float[Array, "b 32 8*n"]:
        b, n, _ = latents.shape
        x = _Residual(self.width, self.depth)(latents)
        x = nn.Conv(HEIGHT * PLACE, (3,))(nn.gelu(nn.LayerNorm()(x)))
        x = x.reshape(b, n, HEIGHT, PLACE).swapaxes(1, 2).reshape(b, HEIGHT, n * PLACE)
        return nn.sigmoid(2 * x)


class LineEncoder(nn.Module):
    """Mean and logarithm of the deviation of the latents q(v | x) = N(mean, deviation^2) of lines."""

    width: int = 256
    depth: int = 2

    @nn.compact
    def __call__(self, lines: Float[Array, "b 32 w"]) -> tuple[Float[Array, "b n 24"], Float[Array, "b n 24"]]:
        b, h, w = lines.shape
        x = (lines - 0.5).reshape(b, h, w // PLACE, PLACE).swapaxes(1, 2).reshape(b, w // PLACE, h * PLACE)
        told = nn.Dense(2 * LATENT)(_Residual(self.width, self.depth)(x))
        return told[..., :LATENT], jnp.clip(told[..., LATENT:] - 1, -6, 3)
