"""Blur-operator family F(x, k) and kernel extractor G(x, y): Tran et al., CVPR 2021, sections 3.1 and 3.4.

`KernelWizard` is the network of the authors, from the supplement of the paper. `jbid.nets.gated_wizard` has a compact
one for the same task. Images have a leading batch axis and sides that are multiples of `STRIDE`;
`jbid.methods.explore.blur_operator` pads images of other sizes.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbid.nets.matmul_conv import Convolution, Transposed

STRIDE = 128  # pixels per place of a code, along both axes


class Widths(NamedTuple):
    """Sizes of the layers of `KernelWizard`.

    Attributes:
        features: channels at a quarter of the size.
        fine: channels at full size.
        code: length of the code at each place.
        front, back, blocks: residual blocks of the feature extractor, the reconstruction and the kernel extractor.
    """

    features: int
    fine: int
    code: int
    front: int
    back: int
    blocks: int


class Levels(NamedTuple):
    """Sizes of the layers of `jbid.nets.gated_wizard.GatedWizard`.

    Attributes:
        channels: per color channel, at full size, half the size, a quarter of it and so on.
        code: length of the code at each place.
        kernel: side of the local kernels, at most `STRIDE`.
        filters: channels of the layers between local kernels and code.
    """

    channels: tuple[int, ...]
    code: int
    kernel: int
    filters: tuple[int, ...]


# PyTorch's default for weights, U(-1/sqrt(fan_in), 1/sqrt(fan_in))
torch_uniform_kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# PyTorch takes the number of outputs as fan_in of a transposed convolution
_torch_uniform_transposed = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", in_axis=-1, out_axis=-2)
_residual = nn.initializers.variance_scaling(2 * 0.1**2, "fan_in", "normal")


def leaky_relu(x: Array, slope: float = 0.1) -> Array:
    """Leaky ReLU."""
    return nn.leaky_relu(x, slope)


def conv3(features: int, init: nn.initializers.Initializer = torch_uniform_kernel) -> nn.Conv:
    """Zero-padded 3x3 convolution."""
    return nn.Conv(features, (3, 3), padding=1, kernel_init=init)


def downsampling_conv(features: int, size: int, bias: bool = False) -> Convolution:
    """Convolution of `size` that halves the sides of an image."""
    return Convolution(features, size, 2, 1, bias, torch_uniform_kernel)


def upsampling_conv(features: int, bias: bool = False) -> Transposed:
    """Transposed convolution that doubles the sides of an image."""
    return Transposed(features, 4, 2, 1, bias, _torch_uniform_transposed)


def pixel_shuffle(x: Float[Array, "n h w c"]) -> Float[Array, "n 2*h 2*w c//4"]:
    """Double the sides: channel 4 i + 2 r + s becomes pixel (r, s) of channel i in a 2x2 block, as in PyTorch."""
    n, h, w, c = x.shape
    return x.reshape(n, h, w, c // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(n, 2 * h, 2 * w, c // 4)


class _Residual(nn.Module):
    """x + conv(relu(conv(x))), zero-padded."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = x.shape[-1]
        y = nn.relu(conv3(c, _residual)(x))
        return x + conv3(c, _residual)(y)


def _pad_reflect(x: Array, p: int) -> Array:
    """Mirror padding; edge padding along axes of at most p pixels, where mirroring is impossible."""
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
        for is_last in (False, True):
            y = nn.Conv(c, (3, 3), padding=0, use_bias=self.bias, kernel_init=torch_uniform_kernel)(_pad_reflect(y, 1))
            y = y if is_last else nn.relu(y)
        return x + y


class FeatureExtractor(nn.Module):
    """Features at a quarter of the size, for sharp and blurred images."""

    features: int
    blocks: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w 3"]) -> Float[Array, "n h//4 w//4 c"]:
        x = leaky_relu(conv3(self.features)(x))
        for _ in range(2):
            x = leaky_relu(downsampling_conv(self.features, 3, bias=True)(x))
        for _ in range(self.blocks):
            x = _Residual()(x)
        return x


class KernelExtractor(nn.Module):
    """Mean and deviation of the code of the blur between two feature maps; zero deviation without the VAE.

    Five layers halve the size, then follow residual blocks.
    """

    features: int
    code: int
    blocks: int
    variational: bool

    @nn.compact
    def __call__(
        self, sharp: Float[Array, "n h w c"], blurred: Float[Array, "n h w c"]
    ) -> tuple[Float[Array, "n a b code"], Float[Array, "n a b code"]]:
        width = self.code * (2 if self.variational else 1)
        x = _pad_reflect(jnp.concatenate([sharp, blurred], -1), 3)
        x = nn.relu(nn.Conv(self.features, (7, 7), padding=0, use_bias=False, kernel_init=torch_uniform_kernel)(x))
        for i in range(5):
            x = nn.relu(downsampling_conv(min(self.features << (i + 1), width), 3)(x))
        for _ in range(self.blocks):
            x = _Mirrored()(x)
        if not self.variational:
            return x, jnp.zeros_like(x)
        return x[..., : self.code], x[..., self.code :]


class KernelAdapter(nn.Module):
    """U-Net over the features of an image, with the code as further channels at its lowest level."""

    features: int
    code: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], code: Float[Array, "n a b code"]) -> Float[Array, "n h w c"]:
        f = self.features
        widths = [f, *(min(f << i, self.code) for i in range(1, 5))]
        x = downsampling_conv(widths[0], 4)(x)
        skips = []
        for width in widths[1:]:
            x = leaky_relu(x, 0.2)
            skips.append(x)
            x = downsampling_conv(width, 4)(x)
        x = upsampling_conv(widths[3])(nn.relu(jnp.concatenate([x, code], -1)))
        for width, skip in zip(reversed(widths[:3]), reversed(skips[1:])):
            x = upsampling_conv(width)(nn.relu(jnp.concatenate([x, skip], -1)))
        return nn.tanh(upsampling_conv(f, bias=True)(nn.relu(jnp.concatenate([x, skips[0]], -1))))


class Reconstruction(nn.Module):
    """Change of an image by a blur, from its adapted features: residual blocks, then two steps of upsampling."""

    features: int
    fine: int
    blocks: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n 4*h 4*w 3"]:
        for _ in range(self.blocks):
            x = _Residual()(x)
        for features in (self.features, self.fine):
            x = leaky_relu(pixel_shuffle(conv3(4 * features)(x)))
        x = leaky_relu(conv3(self.fine)(x))
        return conv3(3)(x)


def sample_code(mean: Array, deviation: Array, key: Array | None) -> Array:
    """Random code from N(mean, deviation^2); the mean without a key."""
    return mean if key is None else mean + deviation * jax.random.normal(key, mean.shape)


class KernelWizard(nn.Module):
    """Operator F and extractor G with a common feature extractor: y = F(x, k) with k = G(x, y) (Eq. 3).

    Images are (n, h, w, 3) in [0, 1] with sides that are multiples of `STRIDE`, codes (n, h/128, w/128, code).

    Attributes:
        widths: sizes of the layers.
        variational: G estimates a deviation of the code as well.
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
        """Mean and deviation of the code of the blur between two images; zero deviation without the VAE."""
        return self.kernels(self.extractor(sharp), self.extractor(blurred))

    def blur(self, sharp: Array, code: Array) -> Array:
        """Blurred image F(x, k): x plus a change that depends on k."""
        return sharp + self.reconstruction(self.adapter(self.extractor(sharp), code))

    def __call__(self, sharp: Array, blurred: Array, key: Array | None = None) -> tuple[Array, Array, Array]:
        """F(x, G(x, y)) and the mean and deviation of the code; with `key`, the code is a random one."""
        sharp_features = self.extractor(sharp)
        mean, deviation = self.kernels(sharp_features, self.extractor(blurred))
        code = sample_code(mean, deviation, key)
        return sharp + self.reconstruction(self.adapter(sharp_features, code)), mean, deviation


class KernelDip(nn.Module):
    """Deep prior of codes: a code (a, b, code) from fixed noise z (32 a, 32 b, features); no batch axis.

    A 7x7 convolution, five layers that halve the size and residual blocks, all with biases. The defaults are the
    authors', with 34,787,264 parameters.

    Attributes:
        features: channels of the first layer.
        code: length of the code at each place.
        blocks: residual blocks.
    """

    features: int = 64
    code: int = 512
    blocks: int = 6

    @nn.compact
    def __call__(self, z: Float[Array, "h w c"]) -> Float[Array, "a b code"]:
        x = _pad_reflect(z[None], 3)
        x = nn.relu(nn.Conv(self.features, (7, 7), padding=0, kernel_init=torch_uniform_kernel)(x))
        for i in range(5):
            x = nn.relu(downsampling_conv(min(self.features << (i + 1), self.code), 3, bias=True)(x))
        for _ in range(self.blocks):
            x = _Mirrored(bias=True)(x)
        return x[0]
