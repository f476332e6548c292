"""The blur-operator family F(x, k) and the kernel extractor G(x, y): Tran et al., CVPR 2021, sections 3.1 and 3.4.

`KernelWizard` is the authors' network, which the paper leaves to its supplement. `GatedWizard` is jbid's own, for the
same task with a thirtieth of the parameters (docs/experiments.md, "The blur operator"). They take a leading batch axis;
sides must be multiples of `STRIDE` (`jbid.operators` pads pictures of other sizes).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jbid.nets.windowed import Convolution, Transposed

STRIDE = 128  # pixels to one place of the code


class Widths(NamedTuple):
    """features: channels at a quarter of the size; fine: at full size; code: of the kernel's code at each place.

    front, back, blocks: residual blocks of the feature extractor, of the reconstruction and of the kernel extractor.
    """

    features: int
    fine: int
    code: int
    front: int
    back: int
    blocks: int


class Levels(NamedTuple):
    """channels: of a colour at full, half, a quarter ... of the size; code: of the kernel's code at each place.

    kernel: side of the local kernels that the code is read from, at most `STRIDE`; filters: channels of the layers that
    read it.
    """

    channels: tuple[int, ...]
    code: int
    kernel: int
    filters: tuple[int, ...]


WIDTHS: dict[str, Widths | Levels] = {
    "published": Widths(64, 64, 512, 10, 20, 4),
    "compact": Levels((8, 16, 48, 96, 128), 128, 48, (16, 32, 64)),
}

# PyTorch's default for weights, U(-1/sqrt(fan_in), 1/sqrt(fan_in))
_torch = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# for transposed convolutions PyTorch counts the outputs
_torch_transposed = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", in_axis=-1, out_axis=-2)
_residual = nn.initializers.variance_scaling(2 * 0.1**2, "fan_in", "normal")


def _leaky(x: Array, slope: float = 0.1) -> Array:
    return nn.leaky_relu(x, slope)


def _conv3(features: int, init=_torch) -> nn.Conv:
    return nn.Conv(features, (3, 3), padding=1, kernel_init=init)


def _halved(features: int, size: int, bias: bool = False) -> Convolution:
    return Convolution(features, size, 2, 1, bias, _torch)


def _doubled(features: int, bias: bool = False) -> Transposed:
    return Transposed(features, 4, 2, 1, bias, _torch_transposed)


def pixel_shuffle(x: Float[Array, "n h w 4*c"]) -> Float[Array, "n 2*h 2*w c"]:
    """Channel 4 i + 2 r + s becomes pixel (r, s) of channel i in a block of 2x2, as `torch.nn.PixelShuffle(2)`."""
    n, h, w, c = x.shape
    return x.reshape(n, h, w, c // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(n, 2 * h, 2 * w, c // 4)


class _Residual(nn.Module):
    """x + conv(relu(conv(x))), zero-padded."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = x.shape[-1]
        y = nn.relu(_conv3(c, _residual)(x))
        return x + _conv3(c, _residual)(y)


def _reflected(x: Array, p: int) -> Array:
    # a side of one pixel has nothing to mirror
    for axis in (1, 2):
        width = [(p, p) if a == axis else (0, 0) for a in range(4)]
        x = jnp.pad(x, width, mode="reflect" if x.shape[axis] > p else "edge")
    return x


class _Mirrored(nn.Module):
    """x + conv(relu(conv(x))), padded by reflection."""

    bias: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c, y = x.shape[-1], x
        for last in (False, True):
            y = nn.Conv(c, (3, 3), padding=0, use_bias=self.bias, kernel_init=_torch)(_reflected(y, 1))
            y = y if last else nn.relu(y)
        return x + y


class FeatureExtractor(nn.Module):
    """Features at a quarter of the size; the same network for sharp and blurred pictures."""

    features: int
    blocks: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w 3"]) -> Float[Array, "n h//4 w//4 c"]:
        x = _leaky(_conv3(self.features)(x))
        for _ in range(2):
            x = _leaky(_halved(self.features, 3, bias=True)(x))
        for _ in range(self.blocks):
            x = _Residual()(x)
        return x


class KernelExtractor(nn.Module):
    """Code of the blur between two feature maps: five halvings, residual blocks. Variational: mean and deviation."""

    features: int
    code: int
    blocks: int
    variational: bool

    @nn.compact
    def __call__(
        self, sharp: Float[Array, "n h w c"], blurred: Float[Array, "n h w c"]
    ) -> tuple[Float[Array, "n a b code"], Float[Array, "n a b code"]]:
        width = self.code * (2 if self.variational else 1)
        x = _reflected(jnp.concatenate([sharp, blurred], -1), 3)
        x = nn.relu(nn.Conv(self.features, (7, 7), padding=0, use_bias=False, kernel_init=_torch)(x))
        for i in range(5):
            x = nn.relu(_halved(min(self.features << (i + 1), width), 3)(x))
        for _ in range(self.blocks):
            x = _Mirrored()(x)
        if not self.variational:
            return x, jnp.zeros_like(x)
        return x[..., : self.code], x[..., self.code :]


class KernelAdapter(nn.Module):
    """A U-Net of five halvings over the picture's features, at whose bottom the code is put beside them."""

    features: int
    code: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], code: Float[Array, "n a b code"]) -> Float[Array, "n h w c"]:
        f = self.features
        widths = [f, *(min(f << i, self.code) for i in range(1, 5))]
        x = _halved(widths[0], 4)(x)
        kept = []
        for width in widths[1:]:
            x = _leaky(x, 0.2)
            kept.append(x)
            x = _halved(width, 4)(x)
        x = _doubled(widths[3])(nn.relu(jnp.concatenate([x, code], -1)))
        for width, skip in zip(reversed(widths[:3]), reversed(kept[1:])):
            x = _doubled(width)(nn.relu(jnp.concatenate([x, skip], -1)))
        return nn.tanh(_doubled(f, bias=True)(nn.relu(jnp.concatenate([x, kept[0]], -1))))


class Reconstruction(nn.Module):
    """The change of a picture from its adapted features: residual blocks, then twice the size two times."""

    features: int
    fine: int
    blocks: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n 4*h 4*w 3"]:
        for _ in range(self.blocks):
            x = _Residual()(x)
        for features in (self.features, self.fine):
            x = _leaky(pixel_shuffle(_conv3(4 * features)(x)))
        x = _leaky(_conv3(self.fine)(x))
        return _conv3(3)(x)


def _sampled(mean: Array, deviation: Array, key: Array | None) -> Array:
    return mean if key is None else mean + deviation * jax.random.normal(key, mean.shape)


class KernelWizard(nn.Module):
    """F and G, which share the feature extractor: y = F(x, k) with k = G(x, y) (Eq. 3).

    Pictures are (n, h, w, 3) in [0, 1] with sides that are multiples of `STRIDE`, codes (n, h/128, w/128, code).
    """

    widths: Widths
    variational: bool = False

    def setup(self):
        w = self.widths
        self.extractor = FeatureExtractor(w.features, w.front)
        self.kernels = KernelExtractor(w.features, w.code, w.blocks, self.variational)
        self.adapter = KernelAdapter(w.features, w.code)
        self.reconstruction = Reconstruction(w.features, w.fine, w.back)

    def extract(self, sharp: Array, blurred: Array) -> tuple[Array, Array]:
        """Mean and deviation of the code of the blur between two pictures; without the VAE, the code and zeros."""
        return self.kernels(self.extractor(sharp), self.extractor(blurred))

    def blur(self, sharp: Array, code: Array) -> Array:
        """F(x, k) = x + the change that the code makes."""
        return sharp + self.reconstruction(self.adapter(self.extractor(sharp), code))

    def __call__(self, sharp: Array, blurred: Array, key: Array | None = None) -> tuple[Array, Array, Array]:
        """F(x, G(x, y)), and the code's mean and deviation; with a key, the code is drawn from them."""
        of_sharp = self.extractor(sharp)
        mean, deviation = self.kernels(of_sharp, self.extractor(blurred))
        return sharp + self.reconstruction(self.adapter(of_sharp, _sampled(mean, deviation, key))), mean, deviation


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
    half = s // 2 + 1  # the rest of a real picture's spectrum is that half again
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
    """Code of the blur between two pictures, read from the `local_kernels` of each place, and its deviation."""

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


FRAME = 16  # pixels that are mirrored around a picture: so far do wrong borders reach


class GatedBlur(nn.Module):
    """The change of a picture: a U-Net over each colour by itself, the features of every level times 1 + A k + b.

    Between places the code's gates are interpolated. Products of code and features make F nearly bilinear, as blur is.
    With a frame, the picture is mirrored by so many pixels on all sides, for the layers' zero padding is no picture.
    """

    levels: Levels

    @nn.compact
    def __call__(
        self, sharp: Float[Array, "n h w c"], code: Float[Array, "n a b code"], frame: int = 0
    ) -> Float[Array, "n h w c"]:
        sharp = jnp.pad(sharp, ((0, 0), (frame, frame), (frame, frame), (0, 0)), mode="symmetric")
        n, h, w, colours = sharp.shape
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
            x = _conv3(widths[i])(skip) * jnp.repeat(gates, colours, 0)
            x = x if out is None else x + _doubled(widths[i], bias=True)(out)
            out = x + _conv3(widths[i])(nn.relu(x))
        change = nn.Conv(1, (3, 3), padding=1, kernel_init=nn.initializers.zeros)(out)
        return change.reshape(n, colours, h, w).transpose(0, 2, 3, 1)[:, frame : h - frame, frame : w - frame]


class GatedWizard(nn.Module):
    """F and G as in `KernelWizard`, for any number of colours; G looks at local kernels, F is gated by k."""

    widths: Levels
    variational: bool = False

    def setup(self):
        self.kernels = LocalKernelExtractor(self.widths, self.variational)
        self.change = GatedBlur(self.widths)

    def extract(self, sharp: Array, blurred: Array) -> tuple[Array, Array]:
        """Mean and deviation of the code of the blur between two pictures; without the VAE, the code and zeros."""
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


Wizard = KernelWizard | GatedWizard


def network(width: str, variational: bool) -> Wizard:
    """F and G of one of `WIDTHS`. Raises ValueError for another name."""
    if width not in WIDTHS:
        raise ValueError(f"got width {width!r}, expected one of {', '.join(WIDTHS)}")
    of = WIDTHS[width]
    return KernelWizard(of, variational) if isinstance(of, Widths) else GatedWizard(of, variational)


class KernelDip(nn.Module):
    """A code from fixed noise z (32 a, 32 b, features): 7x7, five halvings, residual blocks, all with biases.

    The authors' has 64 features, a code of 512 and six blocks: 34,787,264 parameters. No batch axis.
    """

    features: int = 64
    code: int = 512
    blocks: int = 6

    @nn.compact
    def __call__(self, z: Float[Array, "h w c"]) -> Float[Array, "a b code"]:
        x = nn.relu(nn.Conv(self.features, (7, 7), padding=0, kernel_init=_torch)(_reflected(z[None], 3)))
        for i in range(5):
            x = nn.relu(_halved(min(self.features << (i + 1), self.code), 3, bias=True)(x))
        for _ in range(self.blocks):
            x = _Mirrored(bias=True)(x)
        return x[0]
