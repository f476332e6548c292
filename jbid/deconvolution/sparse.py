"""Non-blind restoration with a known or estimated kernel."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbid.ops.conv import blur, blur_adjoint, crop_center, pad_edge
from jbid.ops.kernels import normalize_kernel
from jbid.ops.noise import detect_impulses, estimate_noise, remove_impulses

# first and second derivatives, with the weights that Levin et al. give them
_ORDERS = (((1, 0), 1.0), ((0, 1), 1.0), ((2, 0), 0.25), ((0, 2), 0.25), ((1, 1), 0.25))


def _derivatives(x: Array) -> list[Array]:
    return [jnp.diff(jnp.diff(x, n=i, axis=0), n=j, axis=1) for (i, j), _ in _ORDERS]


def regularization_weight(noise: Float[Array, ""]) -> Float[Array, ""]:
    """The weight of `sparse_deconvolution` that restores best at this noise level, a standard deviation.

    max(1e-4, 0.2 sigma^1.4), a fit to what was best on pictures with known kernels at sigma from 0.0025 to 0.05: gray
    ones with few details want half as much again, color ones with many two thirds (docs/experiments.md). 8-bit
    pictures without other noise get the least.
    """
    return jnp.maximum(0.2 * noise**1.4, 1e-4)


def sparse_deconvolution(
    blurred: Float[Array, "h w c"],
    kernel: Float[Array, "kh kw"],
    start: Float[Array, "H W c"],
    *,
    weight: float | Float[Array, ""] = 1e-4,
    exponent: float = 0.8,
    rounds: int = 8,
    iterations: int = 25,
    epsilon: float = 0.005,
    trusted: Float[Array, "h w 1"] | None = None,
) -> Float[Array, "H W c"]:
    """argmin_x ||t (k * x - y)||^2 + weight sum_j w_j |d_j x|^exponent over the latent image, set out from `start`.

    t is `trusted`: 1, or 0 for pixels that tell nothing.

    The data term is the truncated convolution, so nothing is assumed of what lies beyond the border. Iteratively
    reweighted least squares: |d x|^p is replaced by max(|d x|, epsilon)^(p - 2) (d x)^2 at the last x, `rounds` times,
    and each quadratic is lowered by `iterations` steps of conjugate gradients from the last x. d_j are the first
    derivatives (w_j = 1) and the second ones (w_j = 1/4). After Levin, Fergus, Durand and Freeman 2007, Image and Depth
    from a Conventional Camera (sparse deconvolution, Eq. 6 to 8 and appendix A).
    """
    known = 1.0 if trusted is None else trusted
    target = blur_adjoint(known * blurred, kernel)

    def penalty(x, weights):
        parts = _derivatives(x)
        return sum(jnp.sum(w * d * d) for w, d in zip(weights, parts)) / 2

    def solve(x, weights):
        def normal(v):
            return blur_adjoint(known * blur(v, kernel), kernel) + jax.grad(penalty)(v, weights)

        return jax.scipy.sparse.linalg.cg(normal, target, x0=x, tol=0.0, maxiter=iterations)[0]

    def reweighted(x, exponent):
        # an exponent of 2 is the plain quadratic, with which the first round starts
        return [
            weight * w * jnp.maximum(jnp.abs(d), epsilon) ** (exponent - 2)
            for (_, w), d in zip(_ORDERS, _derivatives(x))
        ]

    def round_(_, carry):
        x = solve(*carry)
        return x, reweighted(x, exponent)

    return jax.lax.fori_loop(0, rounds, round_, (start, reweighted(start, 2.0)))[0]


def deconvolve_sparse(
    blurred: Float[Array, "h w c"],
    kernel: Float[Array, "kh kw"],
    *,
    threshold: float = 0.002,
    weight: float | Float[Array, ""] | None = None,
    **options: Any,
) -> Float[Array, "h w c"]:
    """The sharp image on the observed window: `sparse_deconvolution` with a known kernel, clipped to [0, 1].

    blurred in [0, 1]; kernel values under `threshold` times the largest are removed as noise before it is made to sum
    to one (a small share: stronger thresholds cost accuracy on every kernel measured, docs/experiments.md). weight
    None: by the noise level of the picture, `weight_for`. Pixels hit by impulse noise are not trusted. `options` are
    those of `sparse_deconvolution`.
    """
    kernel = normalize_kernel(kernel, threshold)
    clean = remove_impulses(blurred)
    weight = regularization_weight(estimate_noise(clean)) if weight is None else weight
    start, trusted = pad_edge(clean, kernel.shape), 1.0 - detect_impulses(blurred)
    x = sparse_deconvolution(blurred, kernel, start, weight=weight, trusted=trusted, **options)
    return jnp.clip(crop_center(x, kernel.shape), 0, 1)


CONTRAST = 0.17  # standard deviation to which a picture is scaled, so that thresholds mean the same for all


def deconvolve_gray(
    picture: Float[Array, "h w"], kernel: Float[Array, "s s"], start: Float[Array, "H W"] | None = None
) -> Float[Array, "H W"]:
    """The latent image by a short `sparse_deconvolution` of a gray picture, scaled to `CONTRAST` meanwhile."""
    scale = CONTRAST / jnp.maximum(jnp.std(picture), 1e-3)
    y = (picture * scale)[..., None]
    x = pad_edge(y, kernel.shape) if start is None else start[..., None] * scale
    weight = regularization_weight(estimate_noise(y))
    return sparse_deconvolution(y, kernel, x, weight=weight, rounds=3, iterations=10)[..., 0] / scale
