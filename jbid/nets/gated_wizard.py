"""Compact blur-operator family: a U-Net over each color channel whose features are gated by the code of the blur.

Its task is that of Tran et al., CVPR 2021, sections 3.1 and 3.4. It has a thirtieth of the parameters of the authors'
network, `jbid.nets.kernel_wizard.KernelWizard` (docs/development-notes.md, "The blur operator").
"""

from __future__ import annotations

import functools
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jbid.nets.kernel_wizard import (
    STRIDE,
    Levels,
    conv3,
    downsampling_conv,
    leaky_relu,
    sample_code,
    torch_uniform_kernel,
    upsampling_conv,
)

TAPER = 16  # pixels over which the border of a tile fades out
RIDGES = (1.0, 0.1, 0.01)  # regularization, as shares of the mean power
FRAME = 16  # pixels mirrored around an image, as far as wrong borders reach

_matmul = partial(jnp.matmul, precision="highest")


def _waves(positions: np.ndarray, n_frequencies: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of the Fourier transform of a tile, (positions, frequencies)."""
    angles = 2 * np.pi / STRIDE * np.arange(STRIDE)
    cosines, sines = (f(np.outer(positions, angles[:n_frequencies])).astype(np.float32) for f in (np.cos, np.sin))
    return cosines, sines


@functools.cache
def _tile_waves() -> tuple[np.ndarray, ...]:
    """Cosines and sines for the rows of a tile, then for its columns.

    The columns need half the frequencies, because the spectrum of a real image is symmetric.
    """
    rows, rows_i = _waves(np.arange(STRIDE), STRIDE)
    return rows, rows_i, rows[:, : STRIDE // 2 + 1], rows_i[:, : STRIDE // 2 + 1]


def _gradient_spectrum(image: Float[Array, "n h w c"]) -> tuple[Array, Array]:
    """Real and imaginary part of the spectrum of both gradients of each tile, (2, n, a, b, STRIDE, STRIDE // 2 + 1)."""
    s = STRIDE
    n, h, w, _ = image.shape
    fade = np.sin(np.clip((np.minimum(np.arange(s), np.arange(s)[::-1]) + 0.5) / TAPER, 0, 1) * np.pi / 2) ** 2
    rows, rows_i, columns, columns_i = _tile_waves()
    x = image.mean(-1).reshape(n, h // s, s, w // s, s).swapaxes(2, 3)
    gradients = fade[:, None] * fade * jnp.stack([jnp.roll(x, -1, -1) - x, jnp.roll(x, -1, -2) - x])
    real, minus = _matmul(gradients, columns), _matmul(gradients, columns_i)
    return (
        _matmul(rows, real) - _matmul(rows_i, minus),
        -_matmul(rows_i, real) - _matmul(rows, minus),
    )


def local_kernels(
    sharp: Float[Array, "n h w c"], blurred: Float[Array, "n h w c"], side: int
) -> Float[Array, "n a b side side 3"]:
    """Kernels argmin_k ||k * grad x - grad y||^2 + r ||k||^2 of each tile of `STRIDE` pixels, for three ridges r.

    The images are the means of the channels, with faded borders. The Fourier transforms are matrix products, because
    the rounding of those does not depend on the load of the machine.

    Args:
        sharp, blurred: x and y, with sides that are multiples of `STRIDE`.
        side: of the kernels, which are multiplied by it.
    """
    s, half = STRIDE, STRIDE // 2 + 1
    (xr, xi), (yr, yi) = _gradient_spectrum(sharp), _gradient_spectrum(blurred)
    power = (xr**2 + xi**2).sum(0)[..., None]
    ridge = jnp.asarray(RIDGES) * power.mean((-3, -2), keepdims=True) + 1e-8
    cross_r, cross_i = ((xr * yr + xi * yi).sum(0)[..., None], (xr * yi - xi * yr).sum(0)[..., None])
    hr, hi = (jnp.moveaxis(v / (power + ridge), -1, 0) for v in (cross_r, cross_i))
    positions = np.arange(side) - side // 2
    (rows, rows_i), (columns, columns_i) = _waves(positions, s), _waves(positions, half)
    multiplicity = np.where((np.arange(half) == 0) | (np.arange(half) == s // 2), 1, 2).astype(np.float32)
    real, imaginary = _matmul(rows, hr) - _matmul(rows_i, hi), _matmul(rows, hi) + _matmul(rows_i, hr)
    k = _matmul(real * multiplicity, columns.T) - _matmul(imaginary * multiplicity, columns_i.T)
    return jnp.moveaxis(k, 0, -1) * (side / s**2)


class LocalKernelExtractor(nn.Module):
    """Mean and deviation of the code of the blur between two images, from the `local_kernels` of each place."""

    levels: Levels
    variational: bool

    @nn.compact
    def __call__(self, sharp: Array, blurred: Array) -> tuple[Float[Array, "n a b code"], Float[Array, "n a b code"]]:
        k = local_kernels(sharp, blurred, self.levels.kernel)
        places = k.shape[:3]
        x = k.reshape(-1, *k.shape[3:])
        for features in self.levels.filters:
            x = leaky_relu(downsampling_conv(features, 4, bias=True)(x))
        x = x.reshape(*places, -1)
        mean = nn.Dense(self.levels.code, kernel_init=torch_uniform_kernel, name="mean")(x)
        if not self.variational:
            return mean, jnp.zeros_like(mean)
        deviation = nn.Dense(self.levels.code, name="deviation", bias_init=nn.initializers.constant(0.1))(x)
        return mean, deviation


class GatedBlur(nn.Module):
    """Change of an image by a blur: a U-Net over each color channel, with features of each level times 1 + A k + b.

    The gates are interpolated between the places of the code k. Because features and code are multiplied, F is nearly
    bilinear, as blur is.
    """

    levels: Levels

    @nn.compact
    def __call__(
        self, sharp: Float[Array, "n h w c"], code: Float[Array, "n a b code"], frame: int = 0
    ) -> Float[Array, "n h w c"]:
        """Return the change of each image.

        Args:
            sharp: images with sides that are multiples of `STRIDE`.
            code: codes of their blurs.
            frame: pixels mirrored on all sides, because zero padding differs from the content of an image.
        """
        sharp = jnp.pad(sharp, ((0, 0), (frame, frame), (frame, frame), (0, 0)), mode="symmetric")
        n, h, w, colors = sharp.shape
        widths = self.levels.channels
        x = leaky_relu(conv3(widths[0])(sharp.transpose(0, 3, 1, 2).reshape(-1, h, w, 1)))
        skips = [x]
        for features in widths[1:]:
            x = leaky_relu(downsampling_conv(features, 4, bias=True)(x))
            skips.append(x)
        out = None
        for i, skip in reversed(list(enumerate(skips))):
            gates = 1 + nn.Dense(widths[i], kernel_init=torch_uniform_kernel, name=f"gates_{i}")(code)
            if gates.shape[1:3] != (1, 1):
                border = frame >> i
                gates = jax.image.resize(gates, (n, *(m - 2 * border for m in skip.shape[1:3]), widths[i]), "linear")
                gates = jnp.pad(gates, ((0, 0), (border, border), (border, border), (0, 0)), mode="edge")
            x = conv3(widths[i])(skip) * jnp.repeat(gates, colors, 0)
            x = x if out is None else x + upsampling_conv(widths[i], bias=True)(out)
            out = x + conv3(widths[i])(nn.relu(x))
        change = nn.Conv(1, (3, 3), padding=1, kernel_init=nn.initializers.zeros)(out)
        return change.reshape(n, colors, h, w).transpose(0, 2, 3, 1)[:, frame : h - frame, frame : w - frame]


class GatedWizard(nn.Module):
    """Operator F and extractor G as in `KernelWizard`, for any number of color channels.

    G reads the code k from local kernels, and F multiplies its features by gates that depend on k.

    Attributes:
        widths: sizes of the layers.
        variational: G estimates a deviation of the code as well.
    """

    widths: Levels
    variational: bool = False

    def setup(self):
        self.kernels = LocalKernelExtractor(self.widths, self.variational)
        self.change = GatedBlur(self.widths)

    def extract(self, sharp: Array, blurred: Array) -> tuple[Array, Array]:
        """Mean and deviation of the code of the blur between two images; zero deviation without the VAE."""
        return self.kernels(sharp, blurred)

    def blur(self, sharp: Array, code: Array) -> Array:
        """Blurred image F(x, k), with x mirrored at its borders."""
        return sharp + self.change(sharp, code, FRAME)

    def __call__(self, sharp: Array, blurred: Array, key: Array | None = None) -> tuple[Array, Array, Array]:
        """F(x, G(x, y)) and the mean and deviation of the code; with `key`, the code is a random one.

        Training calls this without the mirrored frame, because it ignores the borders: the pixels beyond are unknown.
        """
        mean, deviation = self.extract(sharp, blurred)
        return sharp + self.change(sharp, sample_code(mean, deviation, key)), mean, deviation
