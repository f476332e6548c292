"""Edge-based kernel estimation, coarse to fine, without a network.

After Xu, Zheng and Jia, Unnatural L0 Sparse Representation for Natural Image Deblurring, CVPR 2013, and Pan, Hu, Su and
Yang, Deblurring Text Images via L0-Regularized Intensity and Gradient Prior, CVPR 2014. Two things differ: the
surroundings of the image are estimated anew in each round, and any number of options and kernel sizes run side by
side. docs/development-notes.md holds the gain of each.
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

PIXELS = 255 * 255  # size of the images that the ridge was tuned on
RATIO = math.sqrt(0.5)  # of the sides of one scale and the next finer one
_SCALES = 5  # the finest ones, over which the weight of the gradients falls


class EdgeOptions(NamedTuple):
    """Options of an edge-based estimate; arrays of one shape run side by side.

    Attributes:
        size: odd side of the square support in pixels.
        weight: of the number of nonzero gradients, in squared gray levels of an image of standard deviation
            `CONTRAST`, at scales of 2^(-5/2) and coarser; it falls over the finer ones.
        ridge: of ||k||^2, in the same units, for an image of `PIXELS` pixels.
    """

    size: Int[Array, "*settings"]
    weight: Float[Array, "*settings"]
    ridge: Float[Array, "*settings"]


# pairs of arrays, because stacking them doubles XLA's time on CPU
def _forward_differences(x: Array) -> tuple[Array, Array]:
    return jnp.roll(x, -1, 1) - x, jnp.roll(x, -1, 0) - x


def _adjoint_differences(across: Array, down: Array) -> Array:
    return jnp.roll(across, 1, 1) - across + jnp.roll(down, 1, 0) - down


def _laplacian_spectrum(shape: tuple[int, ...]) -> Array:
    h, w = shape
    rows, columns = (2 - 2 * jnp.cos(2 * jnp.pi * jnp.arange(n) / m) for n, m in ((h, h), (w // 2 + 1, w)))
    return rows[:, None] + columns


def extend_periodically(image: Float[Array, "h w"], shape: tuple[int, int]) -> Float[Array, "H W"]:
    """Periodic image of `shape` with the image in its upper left corner; the rest connects its borders smoothly."""

    def extend(x, length):
        t = jnp.arange(1, length + 1)[:, None] / (length + 1)
        t = t * t * (3 - 2 * t)
        return jnp.concatenate([x, x[-1:] * (1 - t) + x[:1] * t])

    rows = extend(image, shape[0] - image.shape[0])
    return extend(rows.T, shape[1] - image.shape[1]).T


def transfer_function(kernel: Float[Array, "s s"], shape: tuple[int, int]) -> Array:
    """Spectrum of the periodic convolution with a kernel whose center is the origin."""
    s = kernel.shape[0]
    padded = jnp.zeros(shape).at[:s, :s].set(kernel)
    return jnp.fft.rfft2(jnp.roll(padded, (-(s // 2), -(s // 2)), (0, 1)))


def l0_deconvolution(
    image: Float[Array, "H W"], transfer: Array, weight: Float[Array, ""], *, iterations: int = 11
) -> Float[Array, "H W"]:
    """argmin_x ||k * x - y||^2 + weight #{p : grad x(p) != 0}, periodic, by half-quadratic splitting.

    x and its gradient field g alternate: g = grad x where |grad x|^2 > weight / beta, else 0 (Xu et al. 2013, Eq. 8),
    and x by one division of spectra (Eq. 7). beta begins at 2 weight and grows by 4 in each of `iterations`.
    """
    laplacian = _laplacian_spectrum(image.shape)
    target = jnp.conj(transfer) * jnp.fft.rfft2(image)
    power = jnp.abs(transfer) ** 2

    def step(i, x):
        beta = 2 * weight * 4.0**i
        across, down = _forward_differences(x)
        kept = across * across + down * down > weight / beta
        field = _adjoint_differences(jnp.where(kept, across, 0), jnp.where(kept, down, 0))
        return jnp.fft.irfft2((target + beta * jnp.fft.rfft2(field)) / (power + beta * laplacian), image.shape)

    return jax.lax.fori_loop(0, iterations, step, image)


def ridge_kernel(
    image: Float[Array, "H W"], blurred: Float[Array, "H W"], side: int, ridge: Float[Array, ""]
) -> Float[Array, "side side"]:
    """argmin_k ||k * grad x - grad y||^2 + ridge ||k||^2, periodic, by one division of spectra (Xu et al., Eq. 11)."""
    # |spectrum of the differences|^2, summed over both directions, is that of the Laplacian
    x, y = jnp.fft.rfft2(image), jnp.fft.rfft2(blurred)
    laplacian = _laplacian_spectrum(image.shape)
    k = jnp.fft.irfft2(laplacian * jnp.conj(x) * y / (laplacian * jnp.abs(x) ** 2 + ridge), image.shape)
    return jnp.roll(k, (side // 2, side // 2), (0, 1))[:side, :side]


def _enlarge(kernel: Array, side: int) -> Array:
    scale = jnp.full(2, 1 / RATIO)
    # the center of the old square stays at the center of the new one
    shift = side / 2 - scale * kernel.shape[0] / 2
    return jax.image.scale_and_translate(kernel, (side, side), (0, 1), scale, shift, "linear", antialias=False)


def _odd(x: float) -> int:
    return max(3, 2 * round((x - 1) / 2) + 1)


def estimate_edge_kernel(
    image: Float[Array, "h w"], options: EdgeOptions, *, side: int, rounds: int = 8, decay: float = 1.1
) -> Float[Array, "side side"]:
    """Estimate the blur kernel of a gray image from its edges, coarse to fine.

    Each round of a scale: sharp edges by `l0_deconvolution`; the surroundings of the image replaced by the prediction
    of the estimate; the kernel by `ridge_kernel` and `prune_kernel`. The weight depends on the scale and not on the
    number of scales, which would leave too small a one for a large support.

    Args:
        image: (h, w) in [0, 1].
        options: scalars; the support may be smaller than `side`, so that several sizes share one program.
        side: odd side of the result.
        rounds: at each scale.
        decay: divides the weight after each round.

    Returns:
        Kernel (side, side), centered, with sum one.
    """
    h, w = image.shape
    image = image * (CONTRAST / jnp.maximum(jnp.std(image), 1e-3))
    ridge = options.ridge * (h * w / PIXELS)
    coarsest = max(0, math.ceil(math.log(5 / side) / math.log(RATIO)))
    for level in range(coarsest, -1, -1):
        factor = RATIO**level
        s = _odd(side * factor)
        size = jnp.clip(2 * jnp.round((options.size * factor - 1) / 2).astype(int) + 1, 3, s)
        shape = tuple(max(round(n * factor), s + 2) for n in (h, w))
        scaled = image if level == 0 else jax.image.resize(image, shape, "linear", antialias=True)
        padded = fast_shape(shape[0] + s, shape[1] + s)
        if level == coarsest:
            kernel = delta_kernel((s, s))
        else:
            kernel = center_kernel(prune_kernel(_enlarge(kernel, s), size))
        is_inside = jnp.zeros(padded, bool).at[: shape[0], : shape[1]].set(True)

        def update(_, carry, *, s=s, size=size, padded=padded, is_inside=is_inside):
            kernel, weight, y = carry
            transfer = transfer_function(kernel, padded)
            x = l0_deconvolution(y, transfer, weight)
            predicted = jnp.fft.irfft2(transfer * jnp.fft.rfft2(x), padded)
            y = jnp.where(is_inside, y, jnp.clip(predicted, 0, None))
            return prune_kernel(ridge_kernel(x, y, s, ridge), size), weight / decay, y

        weight = options.weight / decay ** (rounds * max(0, _SCALES - level))
        kernel, _, _ = jax.lax.fori_loop(0, rounds, update, (kernel, weight, extend_periodically(scaled, padded)))
        kernel = center_kernel(kernel)
    return kernel
