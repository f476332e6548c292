"""jbid.kernel_estimation.refine."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jbid.deconvolution.sparse import CONTRAST, deconvolve_gray
from jbid.ops.conv import blur
from jbid.ops.kernels import prune_kernel
from jbid.ops.noise import estimate_noise

# of ||k||^2 for each unit of the noise's variance beyond that of 8 bits, in pictures of standard deviation `CONTRAST`
_NOISE_RIDGE = 2e6
_LITTLE_NOISE = 0.0025


class Refinement(NamedTuple):
    """A kernel with sum one, the latent image that goes with it, and the fit that the kernel was pruned from."""

    kernel: Float[Array, "s s"]
    image: Float[Array, "H W"]
    fit: Float[Array, "s s"]


def refine_kernel(
    picture: Float[Array, "h w"],
    kernel: Float[Array, "s s"],
    size: Int[Array, ""],
    *,
    edge: float = 6e-3,
    ridge: float = 1e-3,
) -> Refinement:
    """The kernel improved on the observed window alone, by a fit to the strong edges of its deconvolution.

    x by `sparse_latent`; k = argmin ||k * (m grad x) - grad y||^2 + ridge sum |m grad x|^2 ||k||^2 by conjugate
    gradients over the truncated convolution, m = 1 where |grad x|^2 > edge, else 0; then `pruned`. Without the
    selection of edges k would shrink to a delta. `edge` is in squared gray levels of a picture of standard deviation
    `CONTRAST`. The answer's image goes with the new kernel.
    """
    scale = CONTRAST / jnp.maximum(jnp.std(picture), 1e-3)

    def gradient(v):
        return jnp.stack([jnp.diff(v, axis=1)[:-1], jnp.diff(v, axis=0)[:, :-1]], -1) * scale

    x = deconvolve_gray(picture, kernel)
    g = gradient(x)
    g = jnp.where(jnp.sum(g * g, -1, keepdims=True) > edge, g, 0)

    def predicted(k):
        return blur(g, k)

    adjoint = jax.linear_transpose(predicted, kernel)
    # noise in the gradients of the picture would be fitted by a rough kernel
    noise = (scale * estimate_noise(picture[..., None])) ** 2 - _LITTLE_NOISE**2
    damping = ridge * jnp.sum(g * g) + _NOISE_RIDGE * jnp.maximum(noise, 0)
    target = adjoint(gradient(picture))[0]
    fitted = jax.scipy.sparse.linalg.cg(
        lambda k: adjoint(predicted(k))[0] + damping * k, target, x0=kernel, tol=0.0, maxiter=15
    )[0]
    kernel = prune_kernel(fitted, size)
    return Refinement(kernel, deconvolve_gray(picture, kernel, x), fitted)
