"""Learned initializer of GKPILE: a ResNet-18 that estimates the latent of the kernel from a blurred image.

Zhang et al., ECCV 2024; the network is He et al.'s (CVPR 2016, Table 1) for images of one channel. It takes a leading
batch axis, because its batch norms have statistics over it in training.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbid.nets.kernel_gan import LATENT
from jbid.nets.layers import torch_uniform

# initialization of torchvision (He et al. 2015)
_he = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _conv(features: int, size: int, stride: int = 1) -> nn.Conv:
    return nn.Conv(features, (size, size), (stride, stride), (size - 1) // 2, use_bias=False, kernel_init=_he)


class _Block(nn.Module):
    """Residual block relu(x + norm(conv(relu(norm(conv(x)))))); a 1x1 convolution adapts x if the size changes."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        y = nn.relu(norm()(_conv(self.features, 3, self.stride)(x)))
        y = norm()(_conv(self.features, 3)(y))
        if y.shape != x.shape:
            x = norm()(_conv(self.features, 1, self.stride)(x))
        return nn.relu(x + y)


class KernelEncoder(nn.Module):
    """Latent z = E(y) of the kernel, in 100 dimensions, from blurred luma (n, h, w) in [0, 1] of any size.

    Attributes:
        width: channels of the first of four stages, 64 in the paper; each stage doubles them.
    """

    width: int = 64

    @nn.compact
    def __call__(self, blurred: Float[Array, "n h w"], train: bool = False) -> Float[Array, "n 100"]:
        x = _conv(self.width, 7, 2)(blurred[..., None])
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage in range(4):
            x = _Block(self.width << stage, 1 if stage == 0 else 2)(x, train)
            x = _Block(self.width << stage, 1)(x, train)
        x = jnp.mean(x, (1, 2))
        init = torch_uniform(x.shape[-1])
        weight = self.param("weight", init, (x.shape[-1], LATENT))
        return x @ weight + self.param("bias", init, (LATENT,))
