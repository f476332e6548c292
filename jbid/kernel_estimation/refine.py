"""Refinement of a kernel on the strong edges of its deconvolution."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jbid.deconvolution.sparse import CONTRAST, deconvolve_gray
from jbid.ops.conv import blur
from jbid.ops.kernels import prune_kernel
from jbid.ops.noise import estimate_noise

# weight of ||k||^2 per unit of the noise's variance beyond that of 8 bits, for images of standard deviation `CONTRAST`
_NOISE_RIDGE = 2e6
_LITTLE_NOISE = 0.0025


class Refinement(NamedTuple):
    """A refined kernel.

    Attributes:
        kernel: sum one.
        image: latent image, deconvolved with the kernel.
        fit: least-squares fit that the kernel was pruned from.
    """

    kernel: Float[Array, "s s"]
    image: Float[Array, "H W"]
    fit: Float[Array, "s s"]


def refine_kernel(
    image: Float[Array, "h w"],
    kernel: Float[Array, "s s"],
    size: Int[Array, ""],
    *,
    edge: float = 6e-3,
    ridge: float = 1e-3,
) -> Refinement:
    """Refine a kernel on the observed window by a fit to the strong edges of its deconvolution.

    x by `deconvolve_gray`; k = argmin ||k * (m grad x) - grad y||^2 + ridge sum |m grad x|^2 ||k||^2 by conjugate
    gradients over the truncated convolution, with m = 1 where |grad x|^2 > edge, else 0; then `prune_kernel`. Without
    the selection of edges k would shrink to a delta.

    Args:
        image: gray observed image (h, w).
        kernel: to refine.
        size: side of the support.
        edge: threshold in squared gray levels of an image of standard deviation `CONTRAST`.
        ridge: weight of ||k||^2.
    """
    scale = CONTRAST / jnp.maximum(jnp.std(image), 1e-3)

    def gradient(v):
        return jnp.stack([jnp.diff(v, axis=1)[:-1], jnp.diff(v, axis=0)[:, :-1]], -1) * scale

    x = deconvolve_gray(image, kernel)
    g = gradient(x)
    g = jnp.where(jnp.sum(g * g, -1, keepdims=True) > edge, g, 0)

    def predict(k):
        return blur(g, k)

    adjoint = jax.linear_transpose(predict, kernel)
    # a rough kernel would fit the noise in the gradients of the image
    noise = (scale * estimate_noise(image[..., None])) ** 2 - _LITTLE_NOISE**2
    damping = ridge * jnp.sum(g * g) + _NOISE_RIDGE * jnp.maximum(noise, 0)
    target = adjoint(gradient(image))[0]
    fit = jax.scipy.sparse.linalg.cg(
        lambda k: adjoint(predict(k))[0] + damping * k, target, x0=kernel, tol=0.0, maxiter=15
    )[0]
    kernel = prune_kernel(fit, size)
    return Refinement(kernel, deconvolve_gray(image, kernel, x), fit)
