"""Network that corrects a classical deconvolution, given several of them."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jbid.ops.namespace import AnyArray

FACTOR = 4  # the sides of the input are multiples of it
DILATIONS = (1, 2, 4, 1)  # of the convolutions at a quarter of the size
DIFFERENT = (1, 2, 4, 5)  # maps in which deconvolutions differ
REACH = 9  # pixels at half the size, in which they are averaged
LEAST_DOUBT = 0.01
RIDGE_RANGE = (-4.0, 2.0)  # decimal logarithms of the least and the largest ridge
HIDDEN = 16  # numbers that are made of the levels
OUTPUT = 0.03  # standard deviation of corrections where these differences are usual, about; of the unit of these maps


def _space_to_depth(x: Float[Array, "n h w c"]) -> Float[Array, "n H W 4*c"]:
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w // 2, 2, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4 * c)


def _depth_to_space(x: Float[Array, "n h w d"]) -> Float[Array, "n H W c"]:
    n, h, w, c = x.shape
    return x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, c // 4)


def _doubt(maps: Float[Array, "n h w c"]) -> Float[Array, "n H W 1"]:
    """Local root mean square of the maps in which deconvolutions differ, at half the size."""
    energy = nn.avg_pool(jnp.square(maps[..., jnp.array(DIFFERENT)]).mean(-1, keepdims=True), (2, 2), (2, 2))
    total = REACH**2 * nn.avg_pool(energy, (REACH, REACH), padding="SAME")
    # with `count_include_pad`, XLA counts at compile time, for seconds
    rows, columns = (np.convolve(np.ones(n), np.ones(REACH))[REACH // 2 :][:n] for n in energy.shape[1:3])
    return jnp.sqrt(total / np.outer(rows, columns)[..., None] + LEAST_DOUBT**2)


# with zero below zero, the last hidden layer dies on bright images: all of its outputs become zero
_activate = partial(nn.leaky_relu, negative_slope=0.1)


class Correction(NamedTuple):
    """Output of a `DeconvolutionNet`.

    Attributes:
        added: to the deconvolved image.
        ridge: beta of the division of spectra F^-1[conj(K) R / (|K|^2 + beta)] that follows.
    """

    added: Float[AnyArray, "*n h w"]
    ridge: Float[AnyArray, "*n"]


class DeconvolutionNet(nn.Module):
    """Correction of a deconvolution by a U-Net of two levels, at a half and a quarter of the size of the image.

    The correction is a sum of the maps in which deconvolutions differ, each times a factor of every pixel, and of an
    image proportional to these differences nearby, so that it vanishes where they agree. Without training it is zero.
    The levels also give the weight with which the corrected image is kept when it is brought back to what was seen.

    Attributes:
        width: channels at half the size.
        deep_width: channels at a quarter of it.
    """

    width: int = 32
    deep_width: int = 48

    @nn.compact
    def __call__(self, maps: Float[Array, "n h w c"], levels: Float[Array, "n d"]) -> Correction:
        """Return the correction.

        Args:
            maps: of `jbid.deconvolution.learned.correction_input`; sides are multiples of `FACTOR`.
            levels: of it.
        """
        hidden = _activate(nn.Dense(HIDDEN)(levels))
        doubt = _doubt(maps)

        def convolve(x, width, dilation=1):
            shift = nn.Dense(width)(hidden)[:, None, None]
            return _activate(nn.Conv(width, (3, 3), kernel_dilation=dilation)(x) + shift)

        x = convolve(jnp.concatenate([_space_to_depth(maps), jnp.log(doubt)], -1), self.width)
        x = x + convolve(x, self.width)
        deep = convolve(nn.avg_pool(x, (2, 2), (2, 2)), self.deep_width)
        for dilation in DILATIONS:
            deep = deep + convolve(deep, self.deep_width, dilation)
        deep = jnp.repeat(jnp.repeat(deep, 2, 1), 2, 2)
        x = x + convolve(jnp.concatenate([x, deep], -1), self.width)
        x = x + convolve(x, self.width)
        strength = 1 + nn.Dense(1, kernel_init=nn.initializers.zeros)(hidden)[..., None]
        outputs = nn.Conv(4 * (1 + len(DIFFERENT)), (3, 3), kernel_init=nn.initializers.zeros)(x)
        free, *factors = jnp.moveaxis(_depth_to_space(outputs), -1, 0)
        correction = jnp.repeat(jnp.repeat(doubt[..., 0], 2, 1), 2, 2) * free
        for factor, i in zip(factors, DIFFERENT):
            correction += factor * maps[..., i]
        logarithm = nn.Dense(1, kernel_init=nn.initializers.zeros)(hidden)[:, 0]
        return Correction(OUTPUT * strength * correction, 10 ** jnp.clip(logarithm, *RIDGE_RANGE))
