"""Where an optimization sets out from: a blur kernel estimated from edges, coarse to fine, without a network.

After Xu, Zheng and Jia, Unnatural L0 Sparse Representation for Natural Image Deblurring, CVPR 2013, and Pan, Hu, Su and
Yang, Deblurring Text Images via L0-Regularized Intensity and Gradient Prior, CVPR 2014. What differs from them, and
what it brought, is in docs/experiments.md: the surroundings of the picture are re-estimated in each round, any number
of settings and kernel sizes run side by side, and the last word has a sparse deconvolution without assumptions about
the border, with edges selected by their strength.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jbid.deconvolution.sparse import CONTRAST
from jbid.ops.conv import fast_shape
from jbid.ops.kernels import center_kernel, delta_kernel, prune_kernel

PIXELS = 255 * 255  # of the pictures that the ridge was tuned on
RATIO = math.sqrt(0.5)  # of the side from one scale to the next coarser one
_SCALES = 5  # from the finest one, over which the weight of the gradients falls


class EdgeSettings(NamedTuple):
    """What is worth varying; arrays of one shape are run side by side.

    size: side of the square support in pixels, odd. weight: of the number of non-zero gradients, in squared gray levels
    of a picture of standard deviation `CONTRAST`, at scales of 2^(-5/2) and coarser; it falls from there. ridge: of
    ||k||^2, likewise, for a picture of `PIXELS` pixels.
    """

    size: Int[Array, "*settings"]
    weight: Float[Array, "*settings"]
    ridge: Float[Array, "*settings"]


# pairs of arrays, as stacking them takes XLA twice the time on CPU
def _forward_differences(x: Array) -> tuple[Array, Array]:
    return jnp.roll(x, -1, 1) - x, jnp.roll(x, -1, 0) - x


def _adjoint_differences(across: Array, down: Array) -> Array:
    return jnp.roll(across, 1, 1) - across + jnp.roll(down, 1, 0) - down


def _laplacian_spectrum(shape: tuple[int, ...]) -> Array:
    h, w = shape
    rows, columns = (2 - 2 * jnp.cos(2 * jnp.pi * jnp.arange(n) / m) for n, m in ((h, h), (w // 2 + 1, w)))
    return rows[:, None] + columns


def extend_periodically(picture: Float[Array, "h w"], shape: tuple[int, int]) -> Float[Array, "H W"]:
    """The picture at the upper left of a periodic one of `shape`; what is added leads smoothly round to its start."""

    def led_round(x, length):
        t = jnp.arange(1, length + 1)[:, None] / (length + 1)
        t = t * t * (3 - 2 * t)
        return jnp.concatenate([x, x[-1:] * (1 - t) + x[:1] * t])

    rows = led_round(picture, shape[0] - picture.shape[0])
    return led_round(rows.T, shape[1] - picture.shape[1]).T


def transfer_function(kernel: Float[Array, "s s"], shape: tuple[int, int]) -> Array:
    """The spectrum of periodic convolution with a kernel whose center is the origin."""
    s = kernel.shape[0]
    padded = jnp.zeros(shape).at[:s, :s].set(kernel)
    return jnp.fft.rfft2(jnp.roll(padded, (-(s // 2), -(s // 2)), (0, 1)))


def l0_deconvolution(
    picture: Float[Array, "H W"], transfer: Array, weight: Float[Array, ""], *, iterations: int = 11
) -> Float[Array, "H W"]:
    """argmin_x ||k * x - y||^2 + weight #{p : grad x(p) != 0}, periodic, by half-quadratic splitting.

    x and its gradient field g are found in turn: g = grad x where |grad x|^2 > weight / beta, else 0 (Xu et al. 2013,
    Eq. 8), and x by one division of spectra (Eq. 7); beta goes from 2 weight, times 4 in each of `iterations`.
    """
    laplacian = _laplacian_spectrum(picture.shape)
    target = jnp.conj(transfer) * jnp.fft.rfft2(picture)
    power = jnp.abs(transfer) ** 2

    def step(i, x):
        beta = 2 * weight * 4.0**i
        across, down = _forward_differences(x)
        kept = across * across + down * down > weight / beta
        field = _adjoint_differences(jnp.where(kept, across, 0), jnp.where(kept, down, 0))
        return jnp.fft.irfft2((target + beta * jnp.fft.rfft2(field)) / (power + beta * laplacian), picture.shape)

    return jax.lax.fori_loop(0, iterations, step, picture)


def ridge_kernel(
    image: Float[Array, "H W"], picture: Float[Array, "H W"], side: int, ridge: Float[Array, ""]
) -> Float[Array, "side side"]:
    """argmin_k ||k * grad x - grad y||^2 + ridge ||k||^2, periodic, by one division of spectra (Xu et al., Eq. 11)."""
    # |spectrum of the differences|^2 is that of the Laplacian, for both directions together
    x, y = jnp.fft.rfft2(image), jnp.fft.rfft2(picture)
    laplacian = _laplacian_spectrum(image.shape)
    k = jnp.fft.irfft2(laplacian * jnp.conj(x) * y / (laplacian * jnp.abs(x) ** 2 + ridge), image.shape)
    return jnp.roll(k, (side // 2, side // 2), (0, 1))[:side, :side]


def _enlarged(kernel: Array, side: int) -> Array:
    scale = jnp.full(2, 1 / RATIO)
    # keeps the center of the old square at the center of the new one
    shift = side / 2 - scale * kernel.shape[0] / 2
    return jax.image.scale_and_translate(kernel, (side, side), (0, 1), scale, shift, "linear", antialias=False)


def _odd(x: float) -> int:
    return max(3, 2 * round((x - 1) / 2) + 1)


def estimate_edge_kernel(
    picture: Float[Array, "h w"], settings: EdgeSettings, *, side: int, rounds: int = 8, decay: float = 1.1
) -> Float[Array, "side side"]:
    """A blur kernel from one gray picture, coarse to fine; sum one, centerd in a square of `side` (odd).

    At each scale, `rounds` times: sharp edges by `l0_deconvolution`, whose weight is divided by `decay` after each; the
    surroundings of the picture replaced by what the estimate predicts there; the kernel by `ridge_kernel`, `pruned`.
    `settings` (scalars) choose the support within `side`, so that several sizes share one program. The weight depends
    on the scale and not on how many scales there are: a large support would otherwise end with too small a one.
    """
    h, w = picture.shape
    picture = picture * (CONTRAST / jnp.maximum(jnp.std(picture), 1e-3))
    ridge = settings.ridge * (h * w / PIXELS)
    coarsest = max(0, math.ceil(math.log(5 / side) / math.log(RATIO)))
    for level in range(coarsest, -1, -1):
        factor = RATIO**level
        s = _odd(side * factor)
        size = jnp.clip(2 * jnp.round((settings.size * factor - 1) / 2).astype(int) + 1, 3, s)
        shape = tuple(max(round(n * factor), s + 2) for n in (h, w))
        seen = picture if level == 0 else jax.image.resize(picture, shape, "linear", antialias=True)
        padded = fast_shape(shape[0] + s, shape[1] + s)
        if level == coarsest:
            kernel = delta_kernel((s, s))
        else:
            kernel = center_kernel(prune_kernel(_enlarged(kernel, s), size))
        inside = jnp.zeros(padded, bool).at[: shape[0], : shape[1]].set(True)

        def round_(_, carry, *, s=s, size=size, padded=padded, inside=inside):
            kernel, weight, y = carry
            transfer = transfer_function(kernel, padded)
            x = l0_deconvolution(y, transfer, weight)
            predicted = jnp.fft.irfft2(transfer * jnp.fft.rfft2(x), padded)
            y = jnp.where(inside, y, jnp.clip(predicted, 0, None))
            return prune_kernel(ridge_kernel(x, y, s, ridge), size), weight / decay, y

        weight = settings.weight / decay ** (rounds * max(0, _SCALES - level))
        kernel, _, _ = jax.lax.fori_loop(0, rounds, round_, (kernel, weight, extend_periodically(seen, padded)))
        kernel = center_kernel(kernel)
    return kernel
