"""A generator of lines of text, and the encoder that it is trained with as a variational autoencoder."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbid.nets.windowed import Convolution, Transposed

PLACE = 16  # pixels of a line to one latent
LATENT = 48
HEIGHT = 32  # pixels of a line
_he = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def _conv(features: int) -> nn.Conv:
    return nn.Conv(features, (3, 3), padding=1, kernel_init=_he)


class LineDecoder(nn.Module):
    """x = D(v): a line (32, 16 n) in (0, 1) from n latents of 48 dimensions, N(0, I), one for each 16 pixels of it."""

    widths: tuple[int, ...] = (128, 96, 64, 48, 24)

    @nn.compact
    def __call__(self, latents: Float[Array, "b n 48"]) -> Float[Array, "b 32 16*n"]:
        b, n, _ = latents.shape
        x = nn.Conv(2 * self.widths[0], (5,), padding=2, kernel_init=_he)(latents)
        x = nn.relu(x).reshape(b, n, 2, self.widths[0]).swapaxes(1, 2)
        for width in self.widths[1:]:
            y = nn.relu(nn.GroupNorm(8)(_conv(x.shape[-1])(x)))
            y = _conv(x.shape[-1])(y)
            x = nn.relu(Transposed(width, 4, 2, 1, True, _he)(nn.relu(x + y)))
        return nn.sigmoid(_conv(1)(x))[..., 0]


class LineEncoder(nn.Module):
    """Mean and logarithm of the deviation of the latents q(v | x) = N(mean, deviation^2) of lines."""

    widths: tuple[int, ...] = (32, 64, 96, 128)

    @nn.compact
    def __call__(self, lines: Float[Array, "b 32 w"]) -> tuple[Float[Array, "b n 48"], Float[Array, "b n 48"]]:
        x = lines[..., None] - 0.5
        for width in self.widths:
            x = nn.relu(Convolution(width, 4, 2, 1, True, _he)(x))
            x = nn.relu(x + nn.GroupNorm(8)(_conv(width)(x)))
        b, rows, n, c = x.shape
        x = x.swapaxes(1, 2).reshape(b, n, rows * c)
        x = nn.relu(nn.Conv(256, (3,), padding=1, kernel_init=_he)(x))
        told = nn.Dense(2 * LATENT)(x)
        return told[..., :LATENT], jnp.clip(told[..., LATENT:] - 1, -6, 3)
