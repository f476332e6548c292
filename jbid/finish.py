"""Non-blind restoration with a known or estimated kernel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbid.blur import blur, blur_adjoint, crop_centre, normalise_kernel, pad_edge

# first and second derivatives, with the weights that Levin et al. give them
_ORDERS = (((1, 0), 1.0), ((0, 1), 1.0), ((2, 0), 0.25), ((0, 2), 0.25), ((1, 1), 0.25))


def _derivatives(x: Array) -> list[Array]:
    return [jnp.diff(jnp.diff(x, n=i, axis=0), n=j, axis=1) for (i, j), _ in _ORDERS]


def finish(
    blurred: Float[Array, "h w c"],
    kernel: Float[Array, "kh kw"],
    *,
    weight: float = 1e-4,
    exponent: float = 0.8,
    rounds: int = 8,
    iterations: int = 25,
    epsilon: float = 0.005,
    threshold: float = 0.002,
) -> Float[Array, "h w c"]:
    """argmin_x ||k * x - y||^2 + weight sum_j w_j |d_j x|^exponent, on the observed window.

    x has the latent size, so no assumption is made about what lies beyond the border: the data term is the truncated
    convolution. Iteratively reweighted least squares: |d x|^p is replaced by max(|d x|, epsilon)^(p - 2) (d x)^2 at the
    last x, `rounds` times, and each quadratic is lowered by `iterations` steps of conjugate gradients from the last x.
    d_j are the first derivatives (w_j = 1) and the second ones (w_j = 1/4).

    blurred in [0, 1]; kernel values under `threshold` times the largest are removed as noise before it is made to sum
    to one (a small share: stronger thresholds cost accuracy on every kernel measured, docs/experiments.md). The result
    is clipped to [0, 1]. After Levin, Fergus, Durand and Freeman 2007, Image and Depth from a Conventional Camera
    (sparse deconvolution, Eq. 6 to 8 and appendix A).
    """
    kernel = normalise_kernel(kernel, threshold)
    target = blur_adjoint(blurred, kernel)
    start = pad_edge(blurred, kernel.shape)

    def penalty(x, weights):
        parts = _derivatives(x)
        return sum(jnp.sum(w * d * d) for w, d in zip(weights, parts)) / 2

    def solve(x, weights):
        def normal(v):
            return blur_adjoint(blur(v, kernel), kernel) + jax.grad(penalty)(v, weights)

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

    x, _ = jax.lax.fori_loop(0, rounds, round_, (start, reweighted(start, 2.0)))
    return jnp.clip(crop_centre(x, kernel.shape), 0, 1)
