"""Fast non-blind deconvolution by half-quadratic splitting, to judge many kernels on the host."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from jbid.ops.conv import fast_shape
from jbid.ops.periodic import (
    adjoint_differences,
    extend_periodically,
    forward_differences,
    irfft2,
    laplacian_spectrum,
    put_inside,
    rfft2,
    transfer_function,
)

EXPONENT = 0.8  # of the gradients
_BETAS = (1, 4, 16, 64, 256)


def deconvolve_splitting(
    image: Float[np.ndarray, "h w"], kernel: Float[np.ndarray, "s s"], *, weight: float = 2e-4, rounds: int = 3
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """argmin_x ||k * x - y||^2 / 2 + weight sum |grad x|^0.8, and its residual k * x - y, on the observed window.

    Krishnan and Fergus 2009, Fast Image Deconvolution using Hyper-Laplacian Priors: x by a division of spectra
    (Eq. 4), its gradients by a shrinkage (Eq. 5, approximated by one step of reweighting), while beta grows. The
    pixels beyond the window are those that the result of the last of `rounds` predicts. A fraction of the time of
    `jbid.deconvolution.sparse`, and less accurate.

    Args:
        image: y.
        kernel: square of odd side, sum one.
        weight: of the gradient prior.
        rounds: predictions of the surroundings.
    """
    h, w = image.shape
    padded = fast_shape(h + kernel.shape[0], w + kernel.shape[0])
    transfer = transfer_function(kernel, padded)
    observed = extend_periodically(image, padded)
    power, laplacian = transfer.real**2 + transfer.imag**2, laplacian_spectrum(observed)
    field = np.zeros_like(observed)
    for i in range(rounds):
        target = transfer.conj() * rfft2(observed)
        for beta in _BETAS if i == 0 else _BETAS[-2:]:
            penalty = 40 * weight * beta
            spectrum = (target + penalty * rfft2(field)) / (power + penalty * laplacian)
            x = irfft2(spectrum, padded)
            field = adjoint_differences(*(_shrink(g, weight / penalty) for g in forward_differences(x)))
        predicted = irfft2(transfer * spectrum, padded)
        observed = put_inside(image, predicted)
    return x[:h, :w], predicted[:h, :w] - image


def _shrink(gradient: np.ndarray, threshold: float) -> np.ndarray:
    size = np.abs(gradient)
    return gradient * np.maximum(0, 1 - threshold * np.maximum(size, 1e-3) ** (EXPONENT - 1) / np.maximum(size, 1e-8))
