"""Kernel GAN of GKPILE: a generator of blur kernels and its discriminator.

Zhang et al., Generative-based Kernel Prior and Initializer via Latent Encoding, ECCV 2024. The networks take a leading
batch axis, because their batch norms have statistics over it in training.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbid.nets.layers import leaky_relu
from jbid.nets.matmul_conv import Convolution, Transposed

# kernel, stride and padding of the four transposed convolutions, by size of the blur kernel
GENERATORS = {
    31: ((3, 1, 0), (5, 2, 1), (5, 2, 1), (5, 2, 1)),
    45: ((5, 1, 0), (5, 2, 1), (4, 2, 1), (5, 2, 1)),
    55: ((5, 1, 0), (5, 2, 0), (5, 2, 1), (5, 2, 1)),
    65: ((7, 1, 0), (5, 2, 1), (6, 2, 1), (5, 2, 1)),
    75: ((7, 1, 0), (5, 2, 0), (4, 2, 0), (5, 2, 0)),
}
DISCRIMINATORS = {
    31: ((5, 2, 1), (5, 2, 1), (5, 2, 1), (3, 1, 0)),
    45: ((5, 2, 1), (4, 2, 1), (5, 2, 1), (5, 1, 0)),
    55: ((5, 2, 1), (5, 2, 1), (5, 2, 0), (5, 1, 0)),
    65: ((5, 2, 1), (6, 2, 1), (5, 2, 1), (7, 1, 0)),
    75: ((5, 2, 0), (4, 2, 0), (5, 2, 0), (7, 1, 0)),
}
SIZES = tuple(GENERATORS)
LATENT = 100  # dimensions of z
_EPSILON = 0.8  # of the batch norms, as in the published code


def _normal_around_one(key: Array, shape, dtype=jnp.float32) -> Array:
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


def _norm(epsilon: float = _EPSILON) -> nn.BatchNorm:
    return nn.BatchNorm(momentum=0.9, epsilon=epsilon, scale_init=_normal_around_one)


def layers_of(size: int, table: dict[int, tuple]) -> tuple:
    """Kernel, stride and padding of each layer.

    Args:
        size: of the blur kernels.
        table: `GENERATORS` or `DISCRIMINATORS`.

    Raises:
        ValueError: for a size that is not in `SIZES`.
    """
    if size not in table:
        raise ValueError(f"`size` must be one of {', '.join(map(str, SIZES))}, got {size}")
    return table[size]


class KernelGenerator(nn.Module):
    """Kernels k = softmax(G(z)) over the pixels, (n, size, size) with sum one, of z ~ N(0, I) in 100 dimensions.

    Four transposed convolutions of 256, 128, 64 and 1 channels, with batch norm (epsilon 0.8) and ReLU after all but
    the last. The first one is g1: `first` computes w = g1(z), (n, a, a, 256), and `rest` the kernel of w. With `train`,
    the norms use the statistics of the batch instead of the running ones.

    Attributes:
        size: of the kernels, one of `SIZES`.

    Raises:
        ValueError: for a size that is not in `SIZES`.
    """

    size: int

    def setup(self):
        layers = layers_of(self.size, GENERATORS)
        self.convolutions = [Transposed(c, *layer) for c, layer in zip((256, 128, 64, 1), layers)]
        self.norms = [_norm() for _ in range(3)]

    def _block(self, i: int, x: Array, train: bool) -> Array:
        return nn.relu(self.norms[i](self.convolutions[i](x), use_running_average=not train))

    def first(self, z: Float[Array, "n 100"], train: bool = False) -> Float[Array, "n a a 256"]:
        """Features w = g1(z)."""
        return self._block(0, z[:, None, None], train)

    def rest(self, w: Float[Array, "n a a 256"], train: bool = False) -> Float[Array, "n size size"]:
        """Kernels of the features w."""
        for i in (1, 2):
            w = self._block(i, w, train)
        x = self.convolutions[3](w)
        return nn.softmax(x.reshape(len(x), -1)).reshape(x.shape[:3])

    def __call__(self, z: Float[Array, "n 100"], train: bool = False) -> Float[Array, "n size size"]:
        return self.rest(self.first(z, train), train)


def _trunk(kernel: Array, size: int, outputs: int, epsilon: float, train: bool) -> Array:
    """Four convolutions of 64, 128, 256 and `outputs` channels down to one pixel, (n, outputs)."""
    x = kernel[..., None]
    for i, (channels, layer) in enumerate(zip((64, 128, 256, outputs), layers_of(size, DISCRIMINATORS))):
        x = Convolution(channels, *layer)(x)
        if i in (1, 2):
            x = _norm(epsilon)(x, use_running_average=not train)
        if i < 3:
            x = leaky_relu(x)
    return x.reshape(len(x), outputs)


class Discriminator(nn.Module):
    """Logits of D(k), the probability that a kernel (n, size, size) is a simulated one.

    Four convolutions of 64, 128, 256 and 1 channels, with leaky ReLU of slope 0.2 in between and batch norm (epsilon
    0.8) in the second and third.

    Attributes:
        size: of the kernels, one of `SIZES`.

    Raises:
        ValueError: for a size that is not in `SIZES`.
    """

    size: int

    @nn.compact
    def __call__(self, kernel: Float[Array, "n size size"], train: bool = False) -> Float[Array, " n"]:
        return _trunk(kernel, self.size, 1, _EPSILON, train)[:, 0]


class KernelPosterior(nn.Module):
    """Mean and log standard deviation of the latents q(z | k) = N(mean, deviation^2) of kernels (n, size, size).

    It trains the generator as a variational autoencoder. The layers are those of the discriminator, with 200 outputs
    and epsilon 1e-5 in the norms. The input is the square root of the kernel, because kernels are sparse.

    Attributes:
        size: of the kernels, one of `SIZES`.

    Raises:
        ValueError: for a size that is not in `SIZES`.
    """

    size: int

    @nn.compact
    def __call__(self, kernel: Float[Array, "n size size"], train: bool = False) -> tuple[Array, Array]:
        outputs = _trunk(jnp.sqrt(kernel) * (self.size / 4), self.size, 2 * LATENT, 1e-5, train)
        return outputs[:, :LATENT], jnp.clip(outputs[:, LATENT:] - 1, -6, 3)
