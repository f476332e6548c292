"""Learned correction of the sparse deconvolution: a network removes what noise and a wrong kernel leave in it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from jbid.deconvolution.sparse import CONTRAST, THRESHOLD, Clipped, sparse_latent
from jbid.io import weights
from jbid.nets.deconvolver import FACTOR, DeconvolutionNet
from jbid.ops.color import luma
from jbid.ops.conv import crop_center, fast_shape
from jbid.ops.kernels import extent, normalize_kernel
from jbid.ops.namespace import AnyArray, Scalar, is_host, namespace
from jbid.ops.noise import remove_impulses
from jbid.ops.periodic import divide, extend_periodically, irfft2, laplacian_spectrum, rfft2, transfer_function
from jbid.runtime.compile import jit

RIDGES = (3e-3, 3e-2)  # of the deconvolutions by one division of spectra
BACK_RIDGES = (0.003, 0.03)  # of the deconvolutions of the residual
# of the maps, so that each has a standard deviation of about 1
IMAGE_FACTOR, RIDGE_FACTOR, BLUR_FACTOR, BACK_FACTOR = 5.0, 30.0, 10.0, 50.0
LEAST_NOISE = 1e-3
# where the network wins on photos of no training, see docs/development-notes.md
LARGEST_EXTENT, NOISES = 90, (0.006, 0.055)
MAPS, LEVELS = 7, 4
NAME = "deconvolver"  # of the weights
GRID = 32 * FACTOR  # pixels; the network runs on images whose sides are multiples of it
SURROUNDINGS = 16  # pixels, beside those that the kernel needs, over which the image is continued periodically


class CorrectionInput(NamedTuple):
    """Input of a `DeconvolutionNet`.

    Attributes:
        maps: of each pixel.
        levels: of the image.
    """

    maps: Float[AnyArray, "h w 7"]
    levels: Float[AnyArray, " 4"]


def is_in_range(kernel: NDArray, noise: float) -> bool:
    """True for a kernel and a noise level with which the network improves the sparse deconvolution.

    Args:
        kernel: of the blur.
        noise: standard deviation in an image of the standard deviation `CONTRAST`.
    """
    return extent(kernel) <= LARGEST_EXTENT and NOISES[0] <= noise <= NOISES[1]


def contrast_scale(gray: NDArray[np.float32]) -> float:
    """Factor that brings a gray image to the standard deviation `CONTRAST`."""
    return CONTRAST / max(float(gray.std()), 1e-3)


def kernel_levels(kernel: NDArray) -> NDArray[np.float32]:
    """Logarithms, around zero, of the extent of a kernel with sum one and of the sum of its squares."""
    return np.array([np.log10(extent(kernel)) - 1.3, np.log10((kernel**2).sum()) + 1.5], np.float32)


def correction_input(
    blurred: Float[AnyArray, "h w"],
    kernel: Float[AnyArray, "s s"],
    latent: Float[AnyArray, "H W"],
    *,
    scale: Scalar,
    noise: Scalar,
    levels: Float[AnyArray, " 2"],
    unknown: Bool[AnyArray, "h w"] | None = None,
) -> CorrectionInput:
    """Input of a `DeconvolutionNet` for a gray image, after Vasu et al. 2018 and Kruse et al. 2017.

    With the sparse deconvolution x of y, the maps are x less its mean; w_i - x for two more deconvolutions w_i =
    F^-1[conj(K) Y / (|K|^2 + ridge_i |D|^2)], which ring or blur more; y - x; the residual r = y - k * x deconvolved,
    F^-1[conj(K) R / (|K|^2 + ridge_i)], which shows where the kernel is wrong; and arsinh(r / sigma). Beyond its border
    y continues as k * x. All but the last are brought to a standard deviation of about 1. The levels are logarithms of
    sigma and of the root mean square of r over sigma, and those of the kernel.

    Args:
        blurred: y, in [0, 1].
        kernel: k, of odd side, with sum one.
        latent: x with its surroundings, H = h + s - 1, W = w + s - 1.
        scale: y and x are multiplied by it; of `contrast_scale`.
        noise: standard deviation sigma in y.
        levels: of `kernel_levels`.
        unknown: pixels without a residual; None: none.
    """
    xp, (h, w), half = namespace(blurred), blurred.shape, kernel.shape[0] // 2
    inside = slice(half, half + h), slice(half, half + w)
    # twice the half kernel at each side, so that nothing wraps around into the image
    shape = fast_shape(h + 4 * half + SURROUNDINGS, w + 4 * half + SURROUNDINGS)
    x, y = extend_periodically(latent * scale, shape), blurred * scale
    transfer = transfer_function(kernel, shape)
    power, laplacian = abs(transfer) ** 2, laplacian_spectrum(x)
    predicted = irfft2(transfer * rfft2(x), shape)
    counts = Clipped.of(blurred[..., None]).within_range(y[..., None], predicted[inside][..., None])[..., 0]
    counts = counts if unknown is None else counts * ~unknown
    residual = counts * (y - predicted[inside])
    r = xp.pad(residual, [(half, n - half - size) for n, size in zip(shape, (h, w))])
    target = transfer.conj() * rfft2(predicted + r)
    x = x[inside]
    others = [irfft2(divide(target, power + ridge * laplacian), shape)[inside] - x for ridge in RIDGES]
    spectrum = transfer.conj() * rfft2(r)
    backs = [irfft2(divide(spectrum, power + ridge), shape)[inside] for ridge in BACK_RIDGES]
    sigma = xp.maximum(xp.asarray(noise * scale, x.dtype), LEAST_NOISE)
    ratio = xp.sqrt(xp.mean(residual**2)) / sigma
    maps = [
        IMAGE_FACTOR * (x - x.mean()),
        *(RIDGE_FACTOR * other for other in others),
        BLUR_FACTOR * (y - x if unknown is None else ~unknown * (y - x)),
        *(BACK_FACTOR * back for back in backs),
        xp.arcsinh(residual / sigma),
    ]
    logarithms = xp.stack([xp.log10(sigma) + 2, 2 * xp.log10(xp.maximum(ratio, 1e-3))])
    return CorrectionInput(xp.stack(maps, -1), xp.concatenate([logarithms, xp.asarray(levels, x.dtype)]))


@functools.cache
def _network(folder: Path) -> Callable[..., Any]:
    variables = weights.load(NAME, folder)
    settings = weights.manifest(folder)[f"{NAME}.npz"]["settings"]
    net = DeconvolutionNet(settings["width"], settings["deep_width"])
    return jit(lambda maps, levels: net.apply(variables, maps[None], levels[None])[0])


def predict_correction(given: CorrectionInput, folder: Path = weights.SHIPPED) -> Float[AnyArray, "h w"]:
    """Correction by the trained `DeconvolutionNet` of a folder, scaled as its input."""
    h, w = given.maps.shape[:2]
    # few shapes, so that few programs are compiled
    padding = [(0, -n % GRID) for n in (h, w)]
    correction = _network(folder)(namespace(given.maps).pad(given.maps, [*padding, (0, 0)]), given.levels)[:h, :w]
    return np.asarray(correction) if is_host(given.maps) else correction


def deconvolve_learned(
    blurred: Float[AnyArray, "h w c"],
    kernel: Float[AnyArray, "s s"],
    *,
    scale: Scalar,
    noise: Scalar,
    levels: Float[AnyArray, " 2"],
    weight: Scalar,
    highest: float = 1.0,
    unknown: Bool[AnyArray, "h w"] | None = None,
    folder: Path = weights.SHIPPED,
    **options: Any,
) -> Float[AnyArray, "h w c"]:
    """Sharp image on the observed window, in [0, highest]: `deconvolve_sparse`, corrected by a network.

    The network sees luma; its correction is added to all channels.

    Args:
        blurred: in [0, 1].
        kernel: square, of odd side; normalized as by `deconvolve_sparse`.
        scale: `contrast_scale` of luma.
        noise: standard deviation in luma.
        levels: `kernel_levels`.
        weight: of the gradient prior.
        highest: as in `deconvolve_sparse`.
        unknown: pixels that do not count; None: all do.
        folder: of the weights.
        **options: of `sparse_latent`.
    """
    xp, kernel = namespace(blurred), normalize_kernel(kernel, THRESHOLD)
    latent = sparse_latent(blurred, kernel, weight=weight, unknown=unknown, **options)
    gray = [luma(image)[..., 0] for image in (remove_impulses(blurred), latent)]
    given = correction_input(gray[0], kernel, gray[1], scale=scale, noise=noise, levels=levels, unknown=unknown)
    correction = predict_correction(given, folder) / scale
    return xp.clip(crop_center(latent, kernel.shape) + correction[..., None], 0, highest)
