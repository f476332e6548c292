"""Refinement of a kernel on the strong edges of its deconvolution."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from jbid.deconvolution.sparse import CLIPPED, CONTRAST, deconvolve_gray
from jbid.ops.conv import fit_operators
from jbid.ops.kernels import prune_kernel
from jbid.ops.namespace import AnyArray, conjugate_gradients, namespace
from jbid.ops.noise import estimate_noise, smooth
from jbid.runtime.compile import jit
from jbid.runtime.parallel import map_threads, runs_on_host

# standard deviations of the noise, in an image of standard deviation `CONTRAST`, and of the Gaussian, in pixels, that
# both sides of the fit are convolved with
_SMOOTHING = ((0.002, 0.003, 0.005, 0.01, 0.03, 0.06), (0.3, 0.6, 0.75, 0.9, 1.3, 1.6))


class Refinement(NamedTuple):
    """A refined kernel.

    Attributes:
        kernel: sum one.
        image: latent image, deconvolved with the kernel.
        fit: least-squares fit that the kernel was pruned from.
    """

    kernel: Float[AnyArray, "s s"]
    image: Float[AnyArray, "H W"]
    fit: Float[AnyArray, "s s"]


def refine_kernel(
    image: Float[AnyArray, "h w"],
    kernel: Float[AnyArray, "s s"],
    size: int | np.integer | Int[AnyArray, ""],
    *,
    latent: Float[AnyArray, "H W"] | None = None,
    edge: float = 6e-3,
    ridge: float = 1e-3,
) -> Refinement:
    """Refine a kernel on the observed window by a fit to the strong edges of its deconvolution.

    x by `deconvolve_gray`; k = argmin ||t (k * (m grad Gx) - grad Gy)||^2 + ridge sum |m grad Gx|^2 ||k||^2 by
    conjugate gradients over the truncated convolution, with m = 1 where |grad Gx|^2 > edge, else 0, and t = 0 near
    clipped pixels of y, else 1; then `prune_kernel`. Without the selection of edges k would shrink to a delta. G is a
    narrow Gaussian, wider for more noise: Gy = k * Gx holds as well, but x inherits the noise of y, and where both
    sides have the same noise, a fit tends to a delta.

    Args:
        image: gray observed image (h, w).
        kernel: to refine.
        size: side of the support.
        latent: deconvolved with the kernel; None: by `deconvolve_gray`.
        edge: threshold in squared gray levels of an image of standard deviation `CONTRAST`.
        ridge: weight of ||k||^2.
    """
    xp = namespace(image)
    scale = CONTRAST / xp.maximum(image.std(), 1e-3)

    def gradient(v):
        return xp.stack([xp.diff(v, axis=1)[:-1], xp.diff(v, axis=0)[:, :-1]], -1) * scale

    x = deconvolve_gray(image, kernel) if latent is None else latent
    width = xp.interp(scale * estimate_noise(image[..., None]), *map(xp.asarray, _SMOOTHING)).astype(image.dtype)
    g = gradient(smooth(x, width))
    g = xp.where(xp.sum(g * g, -1, keepdims=True) > edge, g, 0)
    predict, adjoint = fit_operators(g, kernel.shape)
    damping = ridge * xp.sum(g * g)
    near_clipped = smooth((image >= CLIPPED[1]).astype(image.dtype), width)
    usable = (near_clipped[:-1, :-1] < 0.05)[..., None].astype(image.dtype)
    fit = conjugate_gradients(
        lambda k: adjoint(usable * predict(k)) + damping * k,
        adjoint(usable * gradient(smooth(image, width))),
        kernel,
        iterations=15,
    )
    kernel = prune_kernel(fit, size)
    return Refinement(kernel, deconvolve_gray(image, kernel, x), fit)


@functools.cache
def _refiner():
    return jit(jax.vmap(refine_kernel, (None, 0, 0)))


def refine_kernels(
    image: NDArray[np.float32],
    kernels: Sequence[NDArray[np.float32]],
    supports: Sequence[int],
    rounds: int = 1,
    latents: Sequence[NDArray[np.float32]] | None = None,
) -> list[list[Refinement]]:
    """Kernels (s, s), not all of one size, each refined on a gray image (h, w): the results of `rounds` steps.

    `latents`, deconvolved with the kernels, save one deconvolution of each on the host.
    """

    def refine(kernel, side, latent):
        steps = []
        for _ in range(rounds):
            steps.append(refine_kernel(image, kernel, side, latent=latent))
            kernel, latent = steps[-1].kernel, steps[-1].image
        return steps

    if runs_on_host():
        return map_threads(refine, kernels, supports, latents or [None] * len(kernels))
    side = max(kernel.shape[0] for kernel in kernels)
    y, sides = jnp.asarray(image), jnp.asarray(supports)
    stack = jnp.asarray(np.stack([np.pad(kernel, (side - kernel.shape[0]) // 2) for kernel in kernels]))
    steps: list[list[Refinement]] = [[] for _ in kernels]
    for _ in range(rounds):
        refined = _refiner()(y, stack, sides)
        stack = refined.kernel
        for i, own in enumerate(steps):
            own.append(Refinement(*(np.asarray(part[i]) for part in refined)))
    return steps
