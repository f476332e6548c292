"""Learned corrections of the sparse deconvolution: networks remove what noise and a wrong kernel leave in it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from jbid.deconvolution.sparse import CONTRAST, THRESHOLD, Clipped, sparse_latent
from jbid.io import weights
from jbid.nets.deconvolver import FACTOR, Correction, DeconvolutionNet
from jbid.ops.color import luma
from jbid.ops.conv import crop_center, fast_shape
from jbid.ops.kernels import extent, normalize_kernel
from jbid.ops.namespace import AnyArray, Scalar, is_host, namespace
from jbid.ops.noise import remove_impulses
from jbid.ops.periodic import (
    Spectrum,
    divide,
    extend_periodically,
    irfft2,
    laplacian_spectrum,
    put_inside,
    rfft2,
    transfer_function,
)
from jbid.runtime.compile import jit

RIDGES = (3e-3, 3e-2)  # of the deconvolutions by one division of spectra
BACK_RIDGES = (0.003, 0.03)  # of the deconvolutions of the residual
# of the maps, so that each has a standard deviation of about 1
IMAGE_FACTOR, RIDGE_FACTOR, BLUR_FACTOR, BACK_FACTOR = 5.0, 30.0, 10.0, 50.0
LEAST_NOISE = 1e-3
# where the networks win on photos of no training, see docs/development-notes.md; with exact kernels and on large photos
# not without noise
LARGEST_EXTENT, LARGEST_NOISE, LEAST_EXACT, LEAST_LARGE = 90, 0.055, 0.0015, 0.006
SHARE = 0.75  # of the correction, which on other photos gains as much as all of it and harms fewer of them
MAPS, LEVELS = 7, 5
NAME = "deconvolver"  # of the weights
GRID = 32 * FACTOR  # pixels; the network runs on images whose sides are multiples of it
SURROUNDINGS = 16  # pixels, beside those that the kernel needs, over which the image is continued periodically


class Observation(NamedTuple):
    """A blurred gray image, scaled, with its blur.

    Attributes:
        blurred: y.
        clipped: pixels that are clipped in it.
        known: 1, or 0 for pixels that do not count.
        transfer: spectrum of the kernel for periodic images that contain y.
        noise: standard deviation sigma in y.
        levels: of the kernel.
    """

    blurred: Float[AnyArray, "h w"]
    clipped: Clipped
    known: Float[AnyArray, "h w"]
    transfer: Spectrum
    noise: Scalar
    levels: Float[AnyArray, " 2"]


class CorrectionInput(NamedTuple):
    """Input of a `DeconvolutionNet`.

    Attributes:
        maps: of each pixel.
        levels: of the image.
    """

    maps: Float[AnyArray, "h w 7"]
    levels: Float[AnyArray, " 5"]


def is_in_range(kernel: NDArray, noise: float, *, is_exact: bool, is_large: bool) -> bool:
    """True for a kernel and a noise level with which the networks improve the sparse deconvolution.

    Args:
        kernel: of the blur.
        noise: standard deviation in an image of the standard deviation `CONTRAST`.
        is_exact: the kernel is known, not estimated.
        is_large: the image is a large photo.
    """
    least = max(LEAST_EXACT * is_exact, LEAST_LARGE * is_large)
    return extent(kernel) <= LARGEST_EXTENT and least <= noise <= LARGEST_NOISE


def contrast_scale(gray: NDArray[np.float32]) -> float:
    """Factor that brings a gray image to the standard deviation `CONTRAST`."""
    return CONTRAST / max(float(gray.std()), 1e-3)


def kernel_levels(kernel: NDArray) -> NDArray[np.float32]:
    """Logarithms, around zero, of the extent of a kernel with sum one and of the sum of its squares."""
    return np.array([np.log10(extent(kernel)) - 1.3, np.log10((kernel**2).sum()) + 1.5], np.float32)


def periodic_shape(window: Sequence[int], side: int) -> tuple[int, int]:
    """Shape of a periodic image in which a kernel of `side` pixels joins nothing beyond the borders of a window."""
    # twice the half kernel at each side
    h, w = (n + 4 * (side // 2) + SURROUNDINGS for n in window)
    return fast_shape(h, w)


def observe(
    blurred: Float[AnyArray, "h w"],
    kernel: Float[AnyArray, "s s"],
    *,
    scale: Scalar,
    noise: Scalar,
    levels: Float[AnyArray, " 2"],
    unknown: Bool[AnyArray, "h w"] | None = None,
) -> Observation:
    """Observation of a blurred gray image, for a learned deconvolution.

    Args:
        blurred: in [0, 1].
        kernel: of odd side, with sum one.
        scale: that it is multiplied by; of `contrast_scale`.
        noise: standard deviation in `blurred`.
        levels: of `kernel_levels`.
        unknown: pixels that do not count; None: all do.
    """
    xp = namespace(blurred)
    known = xp.ones_like(blurred) if unknown is None else 1 - xp.asarray(unknown, blurred.dtype)
    clipped = Clipped(*(x[..., 0] for x in Clipped.of(blurred[..., None])))
    transfer = transfer_function(kernel, periodic_shape(blurred.shape, kernel.shape[0]))
    sigma = xp.maximum(xp.asarray(noise * scale, blurred.dtype), LEAST_NOISE)
    return Observation(blurred * scale, clipped, known, transfer, sigma, xp.asarray(levels, blurred.dtype))


def place_latent(latent: Float[AnyArray, "H W"], side: int, shape: tuple[int, int]) -> Float[AnyArray, "P Q"]:
    """Periodic image of a latent image with the surroundings of a kernel of `side`, the observed window in a corner."""
    return namespace(latent).roll(extend_periodically(latent, shape), (-(side // 2), -(side // 2)), (0, 1))


def _residual(observed: Observation, x: Float[AnyArray, "P Q"]) -> tuple[AnyArray, AnyArray]:
    """y - k * x, periodic and zero where no pixel counts, and the spectrum of k * x."""
    (h, w), xp = observed.blurred.shape, namespace(x)
    predicted = observed.transfer * rfft2(x)
    inside = irfft2(predicted, x.shape)[:h, :w]
    counts = observed.known * observed.clipped.within_range(observed.blurred, inside)
    return put_inside(counts * (observed.blurred - inside), xp.zeros_like(x)), predicted


def correction_input(
    observed: Observation, x: Float[AnyArray, "P Q"], first_ratio: Scalar | None = None
) -> CorrectionInput:
    """Input of a `DeconvolutionNet`, after Vasu et al. 2018 and Kruse et al. 2017.

    With a deconvolution x of y, the maps are x less its mean; w_i - x for two more deconvolutions w_i =
    F^-1[conj(K) Y / (|K|^2 + ridge_i |D|^2)], which ring or blur more; y - x; the residual r = y - k * x deconvolved,
    F^-1[conj(K) R / (|K|^2 + ridge_i)], which shows where x or the kernel is wrong; and arsinh(r / sigma). Beyond its
    border y continues as k * x. All but the last are brought to a standard deviation of about 1. The levels are
    logarithms of sigma and of the root mean square of r over sigma, that of the first deconvolution, and those of the
    kernel.

    Args:
        observed: y and its blur.
        x: periodic, with the observed window in the upper left corner, scaled as y.
        first_ratio: second level of the first deconvolution; None: this is the first.
    """
    y = observed.blurred
    xp, (h, w), shape = namespace(y), y.shape, x.shape
    power, laplacian = abs(observed.transfer) ** 2, laplacian_spectrum(x)
    r, predicted = _residual(observed, x)
    spectrum = rfft2(r)
    target, back = (observed.transfer.conj() * v for v in (predicted + spectrum, spectrum))
    inside, residual = x[:h, :w], r[:h, :w]
    others = [irfft2(divide(target, power + ridge * laplacian), shape)[:h, :w] - inside for ridge in RIDGES]
    backs = [irfft2(divide(back, power + ridge), shape)[:h, :w] for ridge in BACK_RIDGES]
    maps = [
        IMAGE_FACTOR * (inside - inside.mean()),
        *(RIDGE_FACTOR * other for other in others),
        BLUR_FACTOR * observed.known * (y - inside),
        *(BACK_FACTOR * back for back in backs),
        xp.arcsinh(residual / observed.noise),
    ]
    ratio = 2 * xp.log10(xp.maximum(xp.sqrt(xp.mean(residual**2)) / observed.noise, 1e-3))
    logarithms = xp.stack([xp.log10(observed.noise) + 2, ratio, ratio if first_ratio is None else first_ratio])
    return CorrectionInput(xp.stack(maps, -1), xp.concatenate([logarithms, observed.levels]))


def correct(
    observed: Observation, x: Float[AnyArray, "P Q"], networks: Sequence[Callable[[CorrectionInput], Correction]]
) -> list[Float[AnyArray, "h w"]]:
    """Observed window of a deconvolution after each of several corrections.

    z_i = x_i + network_i(y, k, x_i), x_i+1 = argmin_x ||y - k * x||^2 + beta_i ||x - z_i||^2, which is z_i +
    F^-1[conj(K) F(y - k * z_i) / (|K|^2 + beta_i)] as far as the image is periodic (after Kruse et al. 2017, with the
    identity for their filters).

    Args:
        observed: y and its blur.
        x: first deconvolution; as in `correction_input`.
        networks: that give the corrections and beta.
    """
    (h, w), power, first_ratio, results = observed.blurred.shape, abs(observed.transfer) ** 2, None, []
    for network in networks:
        given = correction_input(observed, x, first_ratio)
        first_ratio = given.levels[1] if first_ratio is None else first_ratio
        added, ridge = network(given)
        x = put_inside(x[:h, :w] + added, x)
        x = x + irfft2(divide(observed.transfer.conj() * rfft2(_residual(observed, x)[0]), power + ridge), x.shape)
        results.append(x[:h, :w])
    return results


def predict_correction(net: DeconvolutionNet, params: Any, given: CorrectionInput) -> Correction:
    """Correction of one image by a network with these weights."""
    return jax.tree.map(lambda v: v[0], net.apply({"params": params}, given.maps[None], given.levels[None]))


@functools.cache
def trained_networks(folder: Path = weights.SHIPPED) -> list[Callable[[CorrectionInput], Correction]]:
    """Trained networks of a folder, for `correct`."""
    stages = weights.load(NAME, folder)["params"]
    settings = weights.manifest(folder)[f"{NAME}.npz"]["settings"]
    apply = jit(partial(predict_correction, DeconvolutionNet(settings["width"], settings["deep_width"])))

    def predict(params, given):
        h, w = given.maps.shape[:2]
        # few shapes, so that few programs are compiled
        padding = [(0, -n % GRID) for n in (h, w)]
        added, ridge = apply(params, given._replace(maps=namespace(given.maps).pad(given.maps, [*padding, (0, 0)])))
        found = added[:h, :w], ridge
        return Correction(*map(np.asarray, found)) if is_host(given.maps) else Correction(*found)

    return [partial(predict, stages[name]) for name in sorted(stages)]


def apply_networks(
    blurred: Float[AnyArray, "h w"],
    kernel: Float[AnyArray, "s s"],
    latent: Float[AnyArray, "H W"],
    *,
    scale: Scalar,
    noise: Scalar,
    levels: Float[AnyArray, " 2"],
    unknown: Bool[AnyArray, "h w"] | None = None,
    folder: Path = weights.SHIPPED,
) -> Float[AnyArray, "h w"]:
    """Observed window of a deconvolution plus `SHARE` of its correction by the trained networks of a folder.

    Args:
        blurred, kernel, scale, noise, levels, unknown: of `observe`.
        latent: the deconvolution with its surroundings.
        folder: of the weights.
    """
    observed = observe(blurred, kernel, scale=scale, noise=noise, levels=levels, unknown=unknown)
    side, (h, w) = kernel.shape[0], blurred.shape
    x = place_latent(latent * scale, side, periodic_shape((h, w), side))
    *_, corrected = correct(observed, x, trained_networks(folder))
    return (x[:h, :w] + SHARE * (corrected - x[:h, :w])) / scale


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
    """Sharp image on the observed window, in [0, highest]: `deconvolve_sparse` and `apply_networks`.

    The networks see luma; their correction is added to all channels.

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
    numbers = {"scale": scale, "noise": noise, "levels": levels, "unknown": unknown}
    corrected = apply_networks(gray[0], kernel, gray[1], folder=folder, **numbers)
    latent = crop_center(latent, kernel.shape)
    return xp.clip(latent + (corrected - luma(latent)[..., 0])[..., None], 0, highest)
