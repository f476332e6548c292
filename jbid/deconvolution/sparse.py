"""Sparse non-blind deconvolution: hyper-Laplacian gradients by iteratively reweighted least squares."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbid.ops.conv import blur, blur_adjoint, crop_center, pad_edge
from jbid.ops.kernels import normalize_kernel
from jbid.ops.noise import detect_impulses, estimate_noise, remove_impulses

CONTRAST = 0.17  # standard deviation that images are scaled to, so that thresholds mean the same for all

# first and second derivatives, with the weights of Levin et al.
_ORDERS = (((1, 0), 1.0), ((0, 1), 1.0), ((2, 0), 0.25), ((0, 2), 0.25), ((1, 1), 0.25))


def _derivatives(x: Array) -> list[Array]:
    return [jnp.diff(jnp.diff(x, n=i, axis=0), n=j, axis=1) for (i, j), _ in _ORDERS]


def regularization_weight(noise: Float[Array, ""]) -> Float[Array, ""]:
    """Weight of `sparse_deconvolution` for a noise level: max(1e-4, 0.2 sigma^1.4), sigma a standard deviation.

    A fit to the best weights on images with known kernels (docs/development-notes.md).
    """
    return jnp.maximum(0.2 * noise**1.4, 1e-4)


def sparse_deconvolution(
    blurred: Float[Array, "h w c"],
    kernel: Float[Array, "kh kw"],
    init_image: Float[Array, "H W c"],
    *,
    weight: float | Float[Array, ""] = 1e-4,
    exponent: float = 0.8,
    rounds: int = 8,
    iterations: int = 25,
    epsilon: float = 0.005,
    trusted: Float[Array, "h w 1"] | None = None,
) -> Float[Array, "H W c"]:
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
    """
    mask = 1.0 if trusted is None else trusted
    target = blur_adjoint(mask * blurred, kernel)

    def penalty(x, weights):
        parts = _derivatives(x)
        return sum(jnp.sum(w * d * d) for w, d in zip(weights, parts)) / 2

    def solve(x, weights):
        def normal(v):
            return blur_adjoint(mask * blur(v, kernel), kernel) + jax.grad(penalty)(v, weights)

        return jax.scipy.sparse.linalg.cg(normal, target, x0=x, tol=0.0, maxiter=iterations)[0]

    def reweight(x, exponent):
        # an exponent of 2 is the plain quadratic of the first round
        return [
            weight * w * jnp.maximum(jnp.abs(d), epsilon) ** (exponent - 2)
            for (_, w), d in zip(_ORDERS, _derivatives(x))
        ]

    def round_(_, carry):
        x = solve(*carry)
        return x, reweight(x, exponent)

    return jax.lax.fori_loop(0, rounds, round_, (init_image, reweight(init_image, 2.0)))[0]


def deconvolve_sparse(
    blurred: Float[Array, "h w c"],
    kernel: Float[Array, "kh kw"],
    *,
    threshold: float = 0.002,
    weight: float | Float[Array, ""] | None = None,
    **options: Any,
) -> Float[Array, "h w c"]:
    """Sharp image on the observed window, in [0, 1]: `sparse_deconvolution` with a known kernel.

    Pixels with impulse noise are not trusted.

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
    init_image, trusted = pad_edge(clean, kernel.shape), 1.0 - detect_impulses(blurred)
    x = sparse_deconvolution(blurred, kernel, init_image, weight=weight, trusted=trusted, **options)
    return jnp.clip(crop_center(x, kernel.shape), 0, 1)


def deconvolve_gray(
    image: Float[Array, "h w"], kernel: Float[Array, "kh kw"], init_image: Float[Array, "H W"] | None = None
) -> Float[Array, "H W"]:
    """Latent image by a short `sparse_deconvolution` of a gray image, scaled to `CONTRAST` meanwhile."""
    scale = CONTRAST / jnp.maximum(jnp.std(image), 1e-3)
    y = (image * scale)[..., None]
    x = pad_edge(y, kernel.shape) if init_image is None else init_image[..., None] * scale
    weight = regularization_weight(estimate_noise(y))
    return sparse_deconvolution(y, kernel, x, weight=weight, rounds=3, iterations=10)[..., 0] / scale
