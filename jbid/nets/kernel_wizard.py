"""The blur-operator family F(x, k) and the kernel extractor G(x, y): Tran et al., CVPR 2021, sections 3.1 and 3.4.

`KernelWizard` is the authors' network, which the paper leaves to its supplement. `GatedWizard` is jbid's own, for the
same task with a thirtieth of the parameters (docs/experiments.md, "The blur operator"). They take a leading batch axis;
sides must be multiples of `STRIDE` (`jbid.operators` pads images of other sizes).
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbid.nets.matmul_conv import Convolution, Transposed

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
    """channels: of a color at full, half, a quarter ... of the size; code: of the kernel's code at each place.

    kernel: side of the local kernels that the code is read from, at most `STRIDE`; filters: channels of the layers that
    read it.
    """

    channels: tuple[int, ...]
    code: int
    kernel: int
    filters: tuple[int, ...]


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
    """Features at a quarter of the size; the same network for sharp and blurred images."""

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
    """A U-Net of five halvings over the image's features, at whose bottom the code is put beside them."""

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
    """The change of an image from its adapted features: residual blocks, then twice the size two times."""

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

    Images are (n, h, w, 3) in [0, 1] with sides that are multiples of `STRIDE`, codes (n, h/128, w/128, code).
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
        """Mean and deviation of the code of the blur between two images; without the VAE, the code and zeros."""
        return self.kernels(self.extractor(sharp), self.extractor(blurred))

    def blur(self, sharp: Array, code: Array) -> Array:
        """F(x, k) = x + the change that the code makes."""
        return sharp + self.reconstruction(self.adapter(self.extractor(sharp), code))

    def __call__(self, sharp: Array, blurred: Array, key: Array | None = None) -> tuple[Array, Array, Array]:
        """F(x, G(x, y)), and the code's mean and deviation; with a key, the code is drawn from them."""
        of_sharp = self.extractor(sharp)
        mean, deviation = self.kernels(of_sharp, self.extractor(blurred))
        return sharp + self.reconstruction(self.adapter(of_sharp, _sampled(mean, deviation, key))), mean, deviation


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
