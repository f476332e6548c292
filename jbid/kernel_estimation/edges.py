"""Edge-based kernel estimation, coarse to fine, without a network.

After Xu, Zheng and Jia, Unnatural L0 Sparse Representation for Natural Image Deblurring, CVPR 2013, and Pan, Hu, Su and
Yang, Deblurring Text Images via L0-Regularized Intensity and Gradient Prior, CVPR 2014. Two things differ: the
surroundings of the image are estimated anew in each round, and any number of options and kernel sizes run side by
side. docs/development-notes.md holds the gain of each.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from jbid.deconvolution.sparse import CLIPPED, CONTRAST
from jbid.ops.conv import fast_shape
from jbid.ops.kernels import center_kernel, delta_kernel, prune_kernel
from jbid.ops.namespace import AnyArray, Scalar, is_host, namespace, repeat
from jbid.ops.periodic import (
    Image,
    Spectrum,
    adjoint_differences,
    divide,
    enlarge,
    extend_periodically,
    forward_differences,
    irfft2,
    laplacian_spectrum,
    put_inside,
    resize,
    rfft2,
    transfer_function,
)
from jbid.runtime.compile import jit
from jbid.runtime.parallel import map_threads, runs_on_host

DARKEST = 0.001  # share of the pixels of an image that may be darker than its darkest level
PIXELS = 255 * 255  # size of the images that the ridge was tuned on
RATIO = math.sqrt(0.5)  # of the sides of one scale and the next finer one
_SCALES = 5  # the finest ones, over which the weight of the gradients falls


class EdgeOptions(NamedTuple):
    """Options of n edge-based estimates, which run side by side.

    Attributes:
        size: odd side of the square support in pixels.
        weight: of the number of nonzero gradients, in squared gray levels of an image of standard deviation
            `CONTRAST`, at scales of 2^(-5/2) and coarser; it falls over the finer ones.
        ridge: of ||k||^2, in the same units, for an image of `PIXELS` pixels.
        intensity: weight of the number of pixels above the darkest level, over that of the gradients; 0 or more.
    """

    size: Int[AnyArray, " n"]
    weight: Float[AnyArray, " n"]
    ridge: Float[AnyArray, " n"]
    intensity: Float[AnyArray, " n"]


def stack_options(options: Sequence[tuple[int, float, float, float]], xp: Any = np) -> EdgeOptions:
    """Options (size, weight, ridge, intensity) as arrays of NumPy or JAX."""
    return EdgeOptions(*(xp.asarray(column) for column in zip(*options)))


class Schedule(NamedTuple):
    """Effort of an edge-based estimate.

    Attributes:
        rounds: at each scale.
        decay: divides the weight after each round.
        iterations: of `l0_deconvolution`.
        growth: of the penalty in each of them.
    """

    rounds: int = 8
    decay: float = 1.1
    iterations: int = 11
    growth: float = 4.0


LONG = Schedule()
# finds large kernels as often, in less than half the time (docs/development-notes.md)
SHORT = Schedule(rounds=5, decay=1.18, iterations=7, growth=8.0)


def l0_deconvolution(
    image: Image,
    transfer: Spectrum,
    weight: Float[AnyArray, "*n 1 1"],
    *,
    intensity: Float[AnyArray, "*n 1 1"] | None = None,
    dark: Scalar = 0.0,
    iterations: int = 11,
    growth: float = 4.0,
) -> Image:
    """argmin_x ||k * x - y||^2 + weight (#{grad x != 0} + intensity #{x != dark}), periodic.

    By half-quadratic splitting: x, its gradient field g and its copy u alternate. g = grad x where |grad x|^2 >
    weight / beta, else 0 (Xu et al. 2013, Eq. 8); u = x where (x - dark)^2 > intensity weight / beta, else dark (Pan et
    al. 2014, Eq. 8, with one beta for both); and x by one division of spectra (Eq. 7 of both). beta begins at 2 weight
    and grows by `growth` in each of `iterations`. With no `intensity`, or where it is 0, u takes no part.
    """
    xp, laplacian = namespace(image), laplacian_spectrum(image)
    target = transfer.conj() * rfft2(image)
    power = abs(transfer) ** 2
    penalty = laplacian if intensity is None else laplacian + (intensity > 0)

    def step(i, x):
        beta = 2 * weight * growth**i
        across, down = forward_differences(x)
        kept = across * across + down * down > weight / beta
        copies = adjoint_differences(across * kept, down * kept)
        if intensity is not None:
            u = xp.where((x - dark) ** 2 > intensity * weight / beta, x, dark)
            copies = copies + (intensity > 0) * u
        return irfft2(divide(target + beta * rfft2(copies), power + beta * penalty), image.shape[-2:])

    return repeat(iterations, step, image, on_host=is_host(image))


def ridge_kernel(
    image: Image, blurred: Image, side: int, ridge: Scalar | Float[AnyArray, "*n 1 1"]
) -> Float[AnyArray, "*n side side"]:
    """argmin_k ||k * grad x - grad y||^2 + ridge ||k||^2, periodic, by one division of spectra (Xu et al., Eq. 11)."""
    # |spectrum of the differences|^2, summed over both directions, is that of the Laplacian
    xp, laplacian = namespace(image), laplacian_spectrum(image)
    x, y = rfft2(image), rfft2(blurred)
    k = irfft2(divide(laplacian * x.conj() * y, laplacian * abs(x) ** 2 + ridge), image.shape[-2:])
    return xp.roll(k, (side // 2, side // 2), (-2, -1))[..., :side, :side]


def _odd(x: float) -> int:
    return max(3, 2 * round((x - 1) / 2) + 1)


def _prune(kernels: Float[AnyArray, "n s s"], sizes: Int[AnyArray, " n"]) -> Float[AnyArray, "n s s"]:
    if is_host(kernels):
        return np.stack([prune_kernel(kernel, size) for kernel, size in zip(kernels, sizes)])
    return jax.vmap(prune_kernel)(kernels, sizes)


def _center(kernels: Float[AnyArray, "n s s"]) -> Float[AnyArray, "n s s"]:
    return (
        np.stack([center_kernel(kernel) for kernel in kernels])
        if is_host(kernels)
        else jax.vmap(center_kernel)(kernels)
    )


def _no_blur(image: Image, count: int, side: int) -> Float[AnyArray, "n side side"]:
    xp = namespace(image)
    return xp.broadcast_to(delta_kernel((side, side), xp).astype(image.dtype), (count, side, side))


def _solver(image: Image, intensities: Float[AnyArray, "n 1 1"], schedule: Schedule) -> Callable[..., Image]:
    """`l0_deconvolution` with the darkest level of an image."""
    return partial(
        l0_deconvolution,
        # on the host the copy of the image costs time
        intensity=None if is_host(image) and not intensities.any() else intensities,
        dark=namespace(image).quantile(image, DARKEST).astype(image.dtype),
        iterations=schedule.iterations,
        growth=schedule.growth,
    )


def estimate_edge_kernels(
    image: Float[AnyArray, "h w"],
    options: EdgeOptions,
    *,
    side: int,
    schedule: Schedule = LONG,
    initial: Float[AnyArray, "n s s"] | None = None,
    first: int | None = None,
    last: int = 0,
) -> Float[AnyArray, "n S S"]:
    """Estimate the blur kernel of a gray image from its edges, coarse to fine, with n options side by side.

    Each round of a scale: sharp edges by `l0_deconvolution`; the surroundings of the image replaced by the prediction
    of the estimate; the kernel by `ridge_kernel` and `prune_kernel`. The weight depends on the scale and not on the
    number of scales, which would leave too small a one for a large support.

    Args:
        image: (h, w) in [0, 1], of NumPy or JAX.
        options: arrays (n,) of the same kind; the supports may be smaller than `side`.
        side: odd side of the kernels at the full scale.
        schedule: effort.
        initial: kernels of the scale before the first one; None: no blur.
        first, last: numbers of scales, each `RATIO` times the one below; None: from a kernel of about five pixels on.

    Returns:
        Kernels of the last scale, centered, with sum one; (n, side, side) at the full one.
    """
    h, w = image.shape
    xp, rounds, decay = namespace(image), schedule.rounds, schedule.decay
    scale = CONTRAST / xp.maximum(image.std(), 1e-3)
    image = image * scale
    weights, ridges, intensities = (xp.asarray(v)[:, None, None].astype(image.dtype) for v in options[1:])
    ridges, white = ridges * (h * w / PIXELS), CLIPPED[1] * scale
    solve = _solver(image, intensities, schedule)
    first = max(last, math.ceil(math.log(5 / side) / math.log(RATIO))) if first is None else first
    kernels = initial
    for level in reversed(range(last, first + 1)):
        factor = RATIO**level
        s = _odd(side * factor)
        sizes = 2 * xp.clip(xp.round((xp.asarray(options.size) * factor - 1) / 2), 1, s // 2).astype(int) + 1
        shape = (max(round(h * factor), s + 2), max(round(w * factor), s + 2))
        scaled = image if level == 0 else resize(image, shape)
        padded = fast_shape(shape[0] + s, shape[1] + s)
        kernels = _no_blur(image, len(sizes), s) if kernels is None else enlarge(kernels, s, 1 / RATIO)
        kernels = _center(_prune(kernels, sizes))

        def update(_, carry, *, s=s, sizes=sizes, padded=padded, scaled=scaled):
            kernels, weights, y = carry
            transfer = transfer_function(kernels, padded)
            x = solve(y, transfer, weights)
            predicted = xp.maximum(irfft2(transfer * rfft2(x), padded), 0)
            inside = predicted[..., : scaled.shape[0], : scaled.shape[1]]
            # a clipped pixel is at least as bright as it looks
            y = put_inside(xp.where(scaled >= white, xp.maximum(inside, scaled), scaled), predicted)
            return _prune(ridge_kernel(x, y, s, ridges), sizes), weights / decay, y

        extended = xp.broadcast_to(extend_periodically(scaled, padded), (len(sizes), *padded))
        start = (kernels, weights / decay ** (rounds * max(0, _SCALES - level)), extended)
        kernels = _center(repeat(rounds, update, start, on_host=is_host(image))[0])
    return kernels


def wide_frame(size: int) -> int:
    """Side of the square that a support is estimated in: more surroundings, and a coarser first scale, find more."""
    return size * 5 // 3 | 1


@functools.lru_cache(maxsize=16)
def _compiled(side: int, schedule: Schedule, last: int):
    return jit(partial(estimate_edge_kernels, side=side, schedule=schedule, last=last))


def sample_edge_kernels(
    image: NDArray[np.float32],
    options: Sequence[tuple[int, float, float, float]],
    schedule: Schedule = LONG,
    *,
    last: int = 0,
) -> list[NDArray[np.float32]]:
    """Estimates of a gray image (h, w) with options (size, weight, ridge, intensity), at the scale `last`.

    On CPU on the host, those of one size together, where they share the work on small images, with and without
    `intensity` apart; on an accelerator all at once.
    """
    if not runs_on_host():
        side = wide_frame(max(size for size, *_ in options))
        return list(np.asarray(_compiled(side, schedule, last)(jnp.asarray(image), stack_options(options, jnp))))
    kinds = [(size, intensity > 0) for size, *_, intensity in options]
    groups = [[i for i, own in enumerate(kinds) if own == kind] for kind in dict.fromkeys(kinds)]

    def estimate(group):
        items = [options[i] for i in group]
        side = wide_frame(items[0][0])
        return estimate_edge_kernels(image, stack_options(items), side=side, schedule=schedule, last=last)

    found = {i: k for group, ks in zip(groups, map_threads(estimate, groups)) for i, k in zip(group, ks)}
    return [found[i] for i in range(len(options))]
