"""jbid.nets.gated_wizard."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jbid.nets.kernel_wizard import STRIDE, Levels, _conv3, _doubled, _halved, _leaky, _sampled, _torch

TAPER = 16  # pixels over which a tile's edge fades
RIDGES = (1.0, 0.1, 0.01)  # shares of the mean power


def local_kernels(
    sharp: Float[Array, "n h w c"], blurred: Float[Array, "n h w c"], side: int
) -> Float[Array, "n a b side side 3"]:
    """In each tile of `STRIDE` pixels, argmin_k ||k * grad x - grad y||^2 + r ||k||^2 for three ridges r.

    Of the mean of the channels, with faded edges, times `side`. The Fourier transforms are matrix products, whose
    rounding does not depend on how busy the machine is.
    """
    s = STRIDE
    n, h, w, _ = sharp.shape
    fade = np.sin(np.clip((np.minimum(np.arange(s), np.arange(s)[::-1]) + 0.5) / TAPER, 0, 1) * np.pi / 2) ** 2
    half = s // 2 + 1  # the rest of a real image's spectrum is that half again
    angle = 2 * np.pi / s * np.arange(s)

    product = partial(jnp.matmul, precision="highest")

    def waves(points, count):
        return tuple(f(np.outer(points, angle[:count])).astype(np.float32) for f in (np.cos, np.sin))

    rows, rows_i = waves(np.arange(s), s)
    columns, columns_i = rows[:, :half], rows_i[:, :half]

    def spectrum(x):
        x = x.mean(-1).reshape(n, h // s, s, w // s, s).swapaxes(2, 3)
        d = fade[:, None] * fade * jnp.stack([jnp.roll(x, -1, -1) - x, jnp.roll(x, -1, -2) - x])
        real, minus = product(d, columns), product(d, columns_i)
        return (
            product(rows, real) - product(rows_i, minus),
            -product(rows_i, real) - product(rows, minus),
        )

    (xr, xi), (yr, yi) = spectrum(sharp), spectrum(blurred)
    power = (xr**2 + xi**2).sum(0)[..., None]
    ridge = jnp.asarray(RIDGES) * power.mean((-3, -2), keepdims=True) + 1e-8
    cross_r, cross_i = ((xr * yr + xi * yi).sum(0)[..., None], (xr * yi - xi * yr).sum(0)[..., None])
    hr, hi = (jnp.moveaxis(v / (power + ridge), -1, 0) for v in (cross_r, cross_i))
    shown = np.arange(side) - side // 2
    (up, up_i), (over, over_i) = waves(shown, s), waves(shown, half)
    twice = np.where((np.arange(half) == 0) | (np.arange(half) == s // 2), 1, 2).astype(np.float32)
    real, imaginary = product(up, hr) - product(up_i, hi), product(up, hi) + product(up_i, hr)
    k = product(real * twice, over.T) - product(imaginary * twice, over_i.T)
    return jnp.moveaxis(k, 0, -1) * (side / s**2)


class LocalKernelExtractor(nn.Module):
    """Code of the blur between two images, read from the `local_kernels` of each place, and its deviation."""

    levels: Levels
    variational: bool

    @nn.compact
    def __call__(self, sharp: Array, blurred: Array) -> tuple[Float[Array, "n a b code"], Float[Array, "n a b code"]]:
        k = local_kernels(sharp, blurred, self.levels.kernel)
        places = k.shape[:3]
        x = k.reshape(-1, *k.shape[3:])
        for features in self.levels.filters:
            x = _leaky(_halved(features, 4, bias=True)(x))
        x = x.reshape(*places, -1)
        mean = nn.Dense(self.levels.code, kernel_init=_torch, name="mean")(x)
        if not self.variational:
            return mean, jnp.zeros_like(mean)
        deviation = nn.Dense(self.levels.code, name="deviation", bias_init=nn.initializers.constant(0.1))(x)
        return mean, deviation


FRAME = 16  # pixels that are mirrored around an image: so far do wrong borders reach


class GatedBlur(nn.Module):
    """The change of an image: a U-Net over each color by itself, the features of every level times 1 + A k + b.

    Between places the code's gates are interpolated. Products of code and features make F nearly bilinear, as blur is.
    With a frame, the image is mirrored by so many pixels on all sides, for the layers' zero padding is no image.
    """

    levels: Levels

    @nn.compact
    def __call__(
        self, sharp: Float[Array, "n h w c"], code: Float[Array, "n a b code"], frame: int = 0
    ) -> Float[Array, "n h w c"]:
        sharp = jnp.pad(sharp, ((0, 0), (frame, frame), (frame, frame), (0, 0)), mode="symmetric")
        n, h, w, colors = sharp.shape
        widths = self.levels.channels
        x = _leaky(_conv3(widths[0])(sharp.transpose(0, 3, 1, 2).reshape(-1, h, w, 1)))
        kept = [x]
        for features in widths[1:]:
            x = _leaky(_halved(features, 4, bias=True)(x))
            kept.append(x)
        out = None
        for i, skip in reversed(list(enumerate(kept))):
            gates = 1 + nn.Dense(widths[i], kernel_init=_torch, name=f"gates_{i}")(code)
            if gates.shape[1:3] != (1, 1):
                around = frame >> i
                gates = jax.image.resize(gates, (n, *(m - 2 * around for m in skip.shape[1:3]), widths[i]), "linear")
                gates = jnp.pad(gates, ((0, 0), (around, around), (around, around), (0, 0)), mode="edge")
            x = _conv3(widths[i])(skip) * jnp.repeat(gates, colors, 0)
            x = x if out is None else x + _doubled(widths[i], bias=True)(out)
            out = x + _conv3(widths[i])(nn.relu(x))
        change = nn.Conv(1, (3, 3), padding=1, kernel_init=nn.initializers.zeros)(out)
        return change.reshape(n, colors, h, w).transpose(0, 2, 3, 1)[:, frame : h - frame, frame : w - frame]


class GatedWizard(nn.Module):
    """F and G as in `KernelWizard`, for any number of colors; G looks at local kernels, F is gated by k."""

    widths: Levels
    variational: bool = False

    def setup(self):
        self.kernels = LocalKernelExtractor(self.widths, self.variational)
        self.change = GatedBlur(self.widths)

    def extract(self, sharp: Array, blurred: Array) -> tuple[Array, Array]:
        """Mean and deviation of the code of the blur between two images; without the VAE, the code and zeros."""
        return self.kernels(sharp, blurred)

    def blur(self, sharp: Array, code: Array) -> Array:
        """F(x, k) = x + the change that the code makes, x mirrored at its borders."""
        return sharp + self.change(sharp, code, FRAME)

    def __call__(self, sharp: Array, blurred: Array, key: Array | None = None) -> tuple[Array, Array, Array]:
        """F(x, G(x, y)), and the code's mean and deviation; with a key, the code is drawn from them.

        For training, without the frame: there the borders do not count, as what lies beyond is not known.
        """
        mean, deviation = self.extract(sharp, blurred)
        return sharp + self.change(sharp, _sampled(mean, deviation, key)), mean, deviation
