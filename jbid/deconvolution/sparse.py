"""Sparse non-blind deconvolution: hyper-Laplacian gradients by iteratively reweighted least squares."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jbid.ops.conv import blur_operators, crop_center, pad_edge
from jbid.ops.kernels import normalize_kernel
from jbid.ops.namespace import AnyArray, Scalar, conjugate_gradients, is_host, namespace, repeat
from jbid.ops.noise import detect_impulses, estimate_noise, remove_impulses
from jbid.runtime.parallel import map_threads

CONTRAST = 0.17  # standard deviation that images are scaled to, so that thresholds mean the same for all

CLIPPED = (1 / 255, 0.99)  # values from which on a pixel may be clipped
# of the second derivatives, after Levin et al.; that of the first ones is 1
_SECOND = 0.25


def _adjoint_difference(x: AnyArray, axis: int) -> AnyArray:
    """Adjoint of `diff` along an axis."""
    if not is_host(x):
        return -jnp.diff(jnp.pad(x, [(int(i == axis),) * 2 for i in range(x.ndim)]), axis=axis)
    shape = list(x.shape)
    shape[axis] += 1
    out = np.zeros(shape, x.dtype)
    inner = out if axis == 0 else out.swapaxes(0, 1)
    values = x if axis == 0 else x.swapaxes(0, 1)
    inner[1:] = values
    inner[:-1] -= values
    return out


def _derivatives(x: AnyArray) -> list[AnyArray]:
    """Both first and all three second derivatives."""
    xp = namespace(x)
    down, across = xp.diff(x, axis=0), xp.diff(x, axis=1)
    return [down, across, xp.diff(down, axis=0), xp.diff(across, axis=1), xp.diff(down, axis=1)]


def _penalty_gradient(x: AnyArray, weights: list[AnyArray]) -> AnyArray:
    """Gradient of sum_j w_j (d_j x)^2 / 2."""
    down, across, down2, across2, mixed = (w * d for w, d in zip(weights, _derivatives(x)))
    down = down + _adjoint_difference(down2, 0) + _adjoint_difference(mixed, 1)
    across = across + _adjoint_difference(across2, 1)
    return _adjoint_difference(down, 0) + _adjoint_difference(across, 1)


def _within_range(blurred: AnyArray, predicted: AnyArray, dark: float, bright: float) -> AnyArray:
    """0 for pixels whose value is clipped and predicted to lie beyond, else 1."""
    is_beyond = ((blurred <= dark) & (predicted < blurred)) | ((blurred >= bright) & (predicted > blurred))
    return 1.0 - is_beyond.astype(blurred.dtype)


def regularization_weight(noise: Scalar) -> Scalar:
    """Weight of `sparse_deconvolution` for a noise level: max(1e-4, 0.2 sigma^1.4), sigma a standard deviation.

    A fit to the best weights on images with known kernels (docs/development-notes.md).
    """
    return namespace(noise).maximum(0.2 * noise**1.4, 1e-4)


def sparse_deconvolution(
    blurred: Float[AnyArray, "h w c"],
    kernel: Float[AnyArray, "kh kw"],
    init_image: Float[AnyArray, "H W c"],
    *,
    weight: Scalar = 1e-4,
    exponent: float = 0.8,
    rounds: int = 8,
    iterations: int = 25,
    epsilon: float = 0.005,
    trusted: Float[AnyArray, "h w 1"] | None = None,
    limits: tuple[float, float] | None = None,
) -> Float[AnyArray, "H W c"]:
    """argmin_x ||t (k * x - y)||^2 + weight sum_j w_j |d_j x|^exponent over the latent image.

    The data term is the truncated convolution, so it assumes nothing about the pixels beyond the border. d_j are the
    first derivatives (w_j = 1) and the second ones (w_j = 1/4). Iteratively reweighted least squares: |d x|^p is
    replaced by max(|d x|, epsilon)^(p - 2) (d x)^2 at the last x, and conjugate gradients lower each quadratic.
    After Levin, Fergus, Durand and Freeman 2007, Image and Depth from a Conventional Camera (sparse deconvolution,
    Eq. 6 to 8 and appendix A).

    Args:
        blurred: observed image y.
        kernel: k, with sum one.
        init_image: latent image to begin with.
        weight: of the gradient prior.
        exponent: of the gradients.
        rounds: number of reweightings.
        iterations: steps of conjugate gradients in each round.
        epsilon: bound of the gradients from below.
        trusted: t, 1 or 0 for pixels without information; None: 1 everywhere.
        limits: values from which on pixels are clipped, at the dark and the bright end. Such a pixel counts only while
            the prediction is within the range: y = min(1, k * x). None: no pixel is clipped.
    """
    xp = namespace(blurred)
    forward, adjoint = blur_operators(kernel, init_image.shape)
    everywhere = 1.0 if trusted is None else trusted

    def reweight(x, exponent):
        # an exponent of 2 is the plain quadratic of the first round
        orders = zip((1, 1, _SECOND, _SECOND, _SECOND), _derivatives(x))
        return [weight * w * xp.maximum(abs(d), epsilon) ** (exponent - 2) for w, d in orders]

    def round_(_, carry):
        x, weights = carry
        mask = everywhere if limits is None else everywhere * _within_range(blurred, forward(x), *limits)

        def normal(v):
            return adjoint(mask * forward(v)) + _penalty_gradient(v, weights)

        x = conjugate_gradients(normal, adjoint(mask * blurred), x, iterations)
        return x, reweight(x, exponent)

    start = (init_image, reweight(init_image, 2.0))
    return repeat(rounds, round_, start, on_host=is_host(blurred))[0]


def deconvolve_sparse(
    blurred: Float[AnyArray, "h w c"],
    kernel: Float[AnyArray, "kh kw"],
    *,
    threshold: float = 0.002,
    weight: Scalar | None = None,
    **options: Any,
) -> Float[AnyArray, "h w c"]:
    """Sharp image on the observed window, in [0, 1]: `sparse_deconvolution` with a known kernel.

    Pixels with impulse noise are not trusted, and clipped ones only while the prediction is within the range.

    Args:
        blurred: in [0, 1].
        kernel: normalized after values under `threshold` times the maximum are removed as noise.
        threshold: a small share, because larger ones cost accuracy (docs/development-notes.md).
        weight: of the gradient prior; None: `regularization_weight` of the estimated noise level.
        **options: of `sparse_deconvolution`.
    """
    kernel = normalize_kernel(kernel, threshold)
    clean = remove_impulses(blurred)
    weight = regularization_weight(estimate_noise(clean)) if weight is None else weight
    init_image = pad_edge(clean, kernel.shape)
    trusted = 1.0 - detect_impulses(blurred).astype(blurred.dtype)

    def solve(clean, init_image):
        return sparse_deconvolution(
            clean, kernel, init_image, weight=weight, trusted=trusted, limits=CLIPPED, **options
        )

    if is_host(blurred):
        # one channel for each thread
        channels = [slice(i, i + 1) for i in range(blurred.shape[-1])]
        x = np.concatenate(map_threads(lambda c: solve(clean[..., c], init_image[..., c]), channels), -1)
    else:
        x = solve(clean, init_image)
    return namespace(x).clip(crop_center(x, kernel.shape), 0, 1)


def deconvolve_gray(
    image: Float[AnyArray, "h w"], kernel: Float[AnyArray, "kh kw"], init_image: Float[AnyArray, "H W"] | None = None
) -> Float[AnyArray, "H W"]:
    """Latent image by a short `sparse_deconvolution` of a gray image, scaled to `CONTRAST` meanwhile."""
    scale = CONTRAST / namespace(image).maximum(image.std(), 1e-3)
    y = (image * scale)[..., None]
    x = pad_edge(y, kernel.shape) if init_image is None else init_image[..., None] * scale
    weight = regularization_weight(estimate_noise(y))
    return sparse_deconvolution(y, kernel, x, weight=weight, rounds=3, iterations=10)[..., 0] / scale
