"""Learned correction of the sparse deconvolution: a network removes what noise and a wrong kernel leave in it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
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
BACK_RIDGE = 0.02  # of the deconvolution of the residual
MAPS = 5
NAME = "deconvolver"  # of the weights
GRID = 32 * FACTOR  # pixels; the network runs on images whose sides are multiples of it
SURROUNDINGS = 16  # pixels, beside those that the kernel needs, over which the image is continued periodically


def contrast_scale(gray: NDArray[np.float32]) -> float:
    """Factor that brings a gray image to the standard deviation `CONTRAST`."""
    return CONTRAST / max(float(gray.std()), 1e-3)


def correction_maps(
    blurred: Float[AnyArray, "h w"], kernel: Float[AnyArray, "s s"], latent: Float[AnyArray, "H W"], scale: Scalar
) -> Float[AnyArray, "h w 5"]:
    """Input of a `DeconvolutionNet` for a gray image, after Vasu et al. 2018 and Kruse et al. 2017.

    With the sparse deconvolution x of y, the maps are x; w_i - x for two more deconvolutions w_i = F^-1[conj(K) Y /
    (|K|^2 + ridge_i |D|^2)], which ring or blur more; y - x; and the residual r = y - k * x deconvolved, F^-1[
    conj(K) R / (|K|^2 + ridge)], which shows where the kernel is wrong. Beyond its border y continues as k * x.

    Args:
        blurred: y, in [0, 1].
        kernel: k, of odd side, with sum one.
        latent: x with its surroundings, H = h + s - 1, W = w + s - 1.
        scale: all maps are multiplied by it; of `contrast_scale`.
    """
    xp, (h, w), half = namespace(blurred), blurred.shape, kernel.shape[0] // 2
    inside = slice(half, half + h), slice(half, half + w)
    # twice the half kernel at each side, so that nothing wraps around into the image
    shape = fast_shape(h + 4 * half + SURROUNDINGS, w + 4 * half + SURROUNDINGS)
    x = extend_periodically(latent * scale, shape)
    y = blurred * scale
    transfer = transfer_function(kernel, shape)
    power, laplacian = abs(transfer) ** 2, laplacian_spectrum(x)
    predicted = irfft2(transfer * rfft2(x), shape)
    within = Clipped.of(blurred[..., None]).within_range(y[..., None], predicted[inside][..., None])[..., 0]
    rest = [(half, n - half - size) for n, size in zip(shape, (h, w))]
    r = xp.pad(within * (y - predicted[inside]), rest)
    target = transfer.conj() * rfft2(predicted + r)
    x = x[inside]
    others = [irfft2(divide(target, power + ridge * laplacian), shape)[inside] - x for ridge in RIDGES]
    back = irfft2(divide(transfer.conj() * rfft2(r), power + BACK_RIDGE), shape)[inside]
    return xp.stack([x, *others, y - x, back], -1)


def image_levels(noise: float, scale: float, kernel: NDArray) -> NDArray[np.float32]:
    """Noise and extent of the kernel, as a `DeconvolutionNet` takes them: logarithms, around zero."""
    return np.array([np.log10(max(noise * scale, 1e-4)) + 2, np.log10(extent(kernel)) - 1.3], np.float32)


@functools.cache
def _network(folder: Path) -> Callable[..., Any]:
    settings = weights.manifest(folder)[f"{NAME}.npz"]["settings"]
    variables = weights.load(NAME, folder)
    net = DeconvolutionNet(settings["width"], settings["deep_width"])
    return jit(lambda maps, levels: net.apply(variables, maps[None], levels[None])[0])


def predict_correction(
    maps: Float[AnyArray, "h w 5"], levels: Float[AnyArray, " 2"], folder: Path = weights.SHIPPED
) -> Float[AnyArray, "h w"]:
    """Correction of the first map by the trained `DeconvolutionNet` of a folder."""
    h, w = maps.shape[:2]
    # few shapes, so that few programs are compiled
    padding = [(0, -n % GRID) for n in (h, w)]
    correction = _network(folder)(namespace(maps).pad(maps, [*padding, (0, 0)]), levels)[:h, :w]
    return np.asarray(correction) if is_host(maps) else correction


def deconvolve_learned(
    blurred: Float[AnyArray, "h w c"],
    kernel: Float[AnyArray, "kh kw"],
    *,
    scale: Scalar,
    levels: Float[AnyArray, " 2"],
    weight: Scalar,
    folder: Path = weights.SHIPPED,
    **options: Any,
) -> Float[AnyArray, "h w c"]:
    """Sharp image on the observed window, in [0, 1]: `deconvolve_sparse`, corrected by a network.

    The network sees luma; its correction is added to all channels.

    Args:
        blurred: in [0, 1].
        kernel: normalized as by `deconvolve_sparse`.
        scale: `contrast_scale` of luma.
        levels: `image_levels`.
        weight: of the gradient prior.
        folder: of the weights.
        **options: of `sparse_deconvolution`.
    """
    xp, kernel = namespace(blurred), normalize_kernel(kernel, THRESHOLD)
    latent = sparse_latent(blurred, kernel, weight=weight, **options)
    maps = correction_maps(luma(remove_impulses(blurred))[..., 0], kernel, luma(latent)[..., 0], scale)
    correction = predict_correction(maps, levels, folder) / scale
    return xp.clip(crop_center(latent, kernel.shape) + correction[..., None], 0, 1)
