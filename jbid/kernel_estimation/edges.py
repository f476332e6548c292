"""Edge-based kernel estimation, coarse to fine, without a network.

After Xu, Zheng and Jia, Unnatural L0 Sparse Representation for Natural Image Deblurring, CVPR 2013, and Pan, Hu, Su and
Yang, Deblurring Text Images via L0-Regularized Intensity and Gradient Prior, CVPR 2014. Two things differ: the
surroundings of the image are estimated anew in each round, and any number of options and kernel sizes run side by
side. docs/development-notes.md holds the gain of each.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from jaxtyping import Float, Int

from jbid.deconvolution.sparse import CONTRAST
from jbid.ops.conv import fast_shape
from jbid.ops.kernels import center_kernel, delta_kernel, prune_kernel
from jbid.ops.namespace import AnyArray, is_host, namespace, repeat
from jbid.ops.periodic import (
    Image,
    Spectrum,
    adjoint_differences,
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

    size: int | Int[AnyArray, "*settings"]
    weight: float | Float[AnyArray, "*settings"]
    ridge: float | Float[AnyArray, "*settings"]


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
    weight: float | Float[AnyArray, ""],
    *,
    iterations: int = 11,
    growth: float = 4.0,
) -> Image:
    """argmin_x ||k * x - y||^2 + weight #{p : grad x(p) != 0}, periodic, by half-quadratic splitting.

    x and its gradient field g alternate: g = grad x where |grad x|^2 > weight / beta, else 0 (Xu et al. 2013, Eq. 8),
    and x by one division of spectra (Eq. 7). beta begins at 2 weight and grows by `growth` in each of `iterations`.
    """
    laplacian = laplacian_spectrum(image)
    target = transfer.conj() * rfft2(image)
    power = abs(transfer) ** 2

    def step(i, x):
        beta = 2 * weight * growth**i
        across, down = forward_differences(x)
        kept = across * across + down * down > weight / beta
        field = adjoint_differences(across * kept, down * kept)
        return irfft2((target + beta * rfft2(field)) / (power + beta * laplacian), image.shape)

    return repeat(iterations, step, image, on_host=is_host(image))


def ridge_kernel(
    image: Image, blurred: Image, side: int, ridge: float | Float[AnyArray, ""]
) -> Float[AnyArray, "side side"]:
    """argmin_k ||k * grad x - grad y||^2 + ridge ||k||^2, periodic, by one division of spectra (Xu et al., Eq. 11)."""
    # |spectrum of the differences|^2, summed over both directions, is that of the Laplacian
    xp, laplacian = namespace(image), laplacian_spectrum(image)
    x, y = rfft2(image), rfft2(blurred)
    k = irfft2(laplacian * x.conj() * y / (laplacian * abs(x) ** 2 + ridge), image.shape)
    return xp.roll(k, (side // 2, side // 2), (0, 1))[:side, :side]


def _odd(x: float) -> int:
    return max(3, 2 * round((x - 1) / 2) + 1)


def estimate_edge_kernel(
    image: Float[AnyArray, "h w"],
    options: EdgeOptions,
    *,
    side: int,
    schedule: Schedule = LONG,
    initial: Float[AnyArray, "s s"] | None = None,
    levels: int | None = None,
) -> Float[AnyArray, "side side"]:
    """Estimate the blur kernel of a gray image from its edges, coarse to fine.

    Each round of a scale: sharp edges by `l0_deconvolution`; the surroundings of the image replaced by the prediction
    of the estimate; the kernel by `ridge_kernel` and `prune_kernel`. The weight depends on the scale and not on the
    number of scales, which would leave too small a one for a large support.

    Args:
        image: (h, w) in [0, 1], of NumPy or JAX.
        options: scalars; the support may be smaller than `side`, so that several sizes share one compiled program.
        side: odd side of the result.
        schedule: effort.
        initial: kernel of the scale before the first one; None: no blur.
        levels: number of scales, each `RATIO` of the next; None: from a kernel of about five pixels on.

    Returns:
        Kernel (side, side), centered, with sum one.
    """
    h, w = image.shape
    xp, rounds, decay = namespace(image), schedule.rounds, schedule.decay
    image = image * (CONTRAST / xp.maximum(image.std(), 1e-3))
    ridge = options.ridge * (h * w / PIXELS)
    levels = levels or 1 + max(0, math.ceil(math.log(5 / side) / math.log(RATIO)))
    kernel = initial
    for level in reversed(range(levels)):
        factor = RATIO**level
        s = _odd(side * factor)
        half = xp.clip(xp.round((options.size * factor - 1) / 2), 1, s // 2).astype(int)
        shape = (max(round(h * factor), s + 2), max(round(w * factor), s + 2))
        scaled = image if level == 0 else resize(image, shape)
        padded = fast_shape(shape[0] + s, shape[1] + s)
        size = 2 * half + 1
        if kernel is None:
            kernel = delta_kernel((s, s), xp).astype(image.dtype)
        else:
            kernel = center_kernel(prune_kernel(enlarge(kernel, s, 1 / RATIO), size))

        def update(_, carry, *, s=s, size=size, padded=padded, scaled=scaled):
            kernel, weight, y = carry
            transfer = transfer_function(kernel, padded)
            x = l0_deconvolution(y, transfer, weight, iterations=schedule.iterations, growth=schedule.growth)
            y = put_inside(scaled, xp.maximum(irfft2(transfer * rfft2(x), padded), 0))
            return prune_kernel(ridge_kernel(x, y, s, ridge), size), weight / decay, y

        weight = options.weight / decay ** (rounds * max(0, _SCALES - level))
        start = (kernel, weight, extend_periodically(scaled, padded))
        kernel, _, _ = repeat(rounds, update, start, on_host=is_host(image))
        kernel = center_kernel(kernel)
    return kernel
