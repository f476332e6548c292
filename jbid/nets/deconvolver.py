"""Network that corrects a classical deconvolution, given several of them."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

FACTOR = 4  # the sides of the input are multiples of it
DILATIONS = (1, 2, 4, 1)  # of the convolutions at a quarter of the size


def _space_to_depth(x: Float[Array, "n h w c"]) -> Float[Array, "n H W 4*c"]:
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w // 2, 2, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4 * c)


def _depth_to_space(x: Float[Array, "n h w 4"]) -> Float[Array, "n H W"]:
    n, h, w, _ = x.shape
    return x.reshape(n, h, w, 2, 2).transpose(0, 1, 3, 2, 4).reshape(n, 2 * h, 2 * w)


# with zero below zero, the last hidden layer dies on bright images: all of its outputs become zero
_activate = partial(nn.leaky_relu, negative_slope=0.1)


class DeconvolutionNet(nn.Module):
    """Correction of a deconvolution by a U-Net of two levels, at a half and a quarter of the size of the image.

    Without training, the correction is zero.

    Attributes:
        width: channels at half the size.
        deep_width: channels at a quarter of it.
    """

    width: int = 32
    deep_width: int = 48

    @nn.compact
    def __call__(self, maps: Float[Array, "n h w c"], levels: Float[Array, "n d"]) -> Float[Array, "n h w"]:
        """Return what is to be added to the first map.

        Args:
            maps: of `jbid.deconvolution.learned.correction_maps`; sides are multiples of `FACTOR`.
            levels: numbers that hold for the whole image.
        """
        x = _space_to_depth(maps)
        x = (
            nn.Conv(self.width, (3, 3))(x)
            + nn.Dense(self.width, kernel_init=nn.initializers.zeros)(levels)[:, None, None]
        )
        x = _activate(nn.Conv(self.width, (3, 3))(_activate(x)))
        deep = _activate(nn.Conv(self.deep_width, (3, 3))(nn.avg_pool(x, (2, 2), (2, 2))))
        for dilation in DILATIONS:
            deep = deep + _activate(nn.Conv(self.deep_width, (3, 3), kernel_dilation=dilation)(deep))
        deep = jnp.repeat(jnp.repeat(deep, 2, 1), 2, 2)
        x = _activate(nn.Conv(self.width, (3, 3))(jnp.concatenate([x, deep], -1)))
        return _depth_to_space(nn.Conv(4, (3, 3), kernel_init=nn.initializers.zeros)(x))
