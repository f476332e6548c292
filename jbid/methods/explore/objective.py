"""Objective of `explore`, Eq. 5 in two phases, and its blur models."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jbid import losses
from jbid.engine.deep_prior import Restore
from jbid.engine.generators import fixed, kernel_prior
from jbid.io import torch_weights
from jbid.io.weights import weights_folder
from jbid.kernel_estimation.edges import ridge_kernel
from jbid.methods.explore import blur_operator
from jbid.methods.explore.generators import dip_code, free_code
from jbid.nets.kernel_wizard import KernelDip
from jbid.ops.conv import blur, pad_edge
from jbid.ops.kernels import delta_kernel, normalize_kernel
from jbid.ops.periodic import extend_periodically
from jbid.types import Forward, Generator, Loss, MethodOutput

BICUBIC = 8  # factor of the reduction
RIDGE = 1e-2  # of the displayed convolution kernel, as a share of the mean power of the gradients

# of a term, before and after the change of phase
Weights = tuple[float, float] | list[float]


def objective(
    loss: str,
    loss_weight: float,
    warm_up: int,
    second_from: int,
    kernel_weights: Weights,
    sparse_weights: Weights,
    vgg: str,
) -> Loss:
    """Eq. 5 in two phases after the warm-up; the weights of the terms change from the first to the second."""
    change = warm_up + second_from

    def phased(weights: Weights, term: Loss) -> Loss:
        # computed in either phase: a branch with convolutions would be slow on CPU
        before, after = weights
        return lambda e, r, y, t: jnp.where(t < change, before, after) * term(e, r, y, t)

    if loss == "perceptual":
        features = losses.perceptual(torch_weights.vgg19(vgg))
        terms = [phased((0.6, 1), features), phased((1, 0), losses.one_minus_ssim())]
    else:
        data_terms = {"charbonnier": losses.charbonnier, "ssim": losses.one_minus_ssim, "mse": losses.mse}
        terms = [data_terms[loss]()]
    total = losses.add(
        *[phased((loss_weight, loss_weight), term) for term in terms],
        phased(kernel_weights, losses.kernel_norm()),
        phased(sparse_weights, losses.sparse_sobel()),
    )
    if not warm_up:
        return total
    return lambda e, r, y, t: jnp.where(t < warm_up, losses.image_to_blurred_mse(e, r, y, t), total(e, r, y, t))


def equivalent_kernel(operator: blur_operator.Operator, image: Array, code: Array, shape: tuple[int, int]) -> Array:
    """Convolution kernel closest to F(., code) on an image: argmin_k ||k * grad x - grad F(x, code)||^2.

    Regularized by a ridge; not negative, sum one. It serves for display and for the deconvolution.
    """
    side = max(shape)
    x, y = (
        extend_periodically(v.mean(-1), (v.shape[0] + side, v.shape[1] + side))
        for v in (image, operator.blur(image, code))
    )
    power = jnp.sum(jnp.square(jnp.diff(x, axis=0))) + jnp.sum(jnp.square(jnp.diff(x, axis=1)))
    k = ridge_kernel(x, y, side, RIDGE * power)
    top, left = (side - shape[0]) // 2, (side - shape[1]) // 2
    # a small offset, so that a fit that finds nothing still is a kernel
    k = jnp.maximum(k[top : top + shape[0], left : left + shape[1]], 0) + 1e-8
    return normalize_kernel(k, 0.05)


def _reduce_and_enlarge(image: Array, kernel: Array) -> Array:
    """The image reduced by `BICUBIC` and enlarged again: the fixed operator of PULSE."""
    h, w, c = image.shape
    small = jax.image.resize(image, (-(-h // BICUBIC), -(-w // BICUBIC), c), "cubic", antialias=True)
    return jax.image.resize(small, image.shape, "cubic")


def blur_model(
    name: str, kernel_net: str, shape: tuple[int, int], weights: str, noise: float, kernel: Array | None
) -> tuple[Generator, Forward, Restore]:
    """Kernel generator, forward model and restoration of a blur model, by its name.

    Raises:
        ValueError: for a known kernel where the model is no convolution.
    """
    if kernel is not None and name != "convolution":
        raise ValueError(
            "`kernel` must be None for a learned blur operator. Choose another `method` or `blur_model` = convolution."
        )
    if name == "operator":
        operator = blur_operator.operator("operator", weights_folder(weights))
        net = KernelDip(max(operator.width // 8, 1), operator.width)  # the authors' proportion, 64 to 512
        generator = free_code(operator) if kernel_net == "free" else dip_code(operator, net, noise)
        return generator, operator.blur, _restore_with_kernel(operator, shape)
    if name == "bicubic":
        return fixed(delta_kernel(shape)), _reduce_and_enlarge, lambda e, y: MethodOutput(*e)
    if kernel is None:
        generator = kernel_prior("free" if kernel_net == "free" else "mlp", shape, noise=noise)
    else:
        generator = fixed(kernel)
    # the image has the size of the blurred one, so its edge continues beyond the border
    return generator, lambda x, k: blur(pad_edge(x, shape), k), lambda e, y: MethodOutput(*e)


def _restore_with_kernel(operator: blur_operator.Operator, shape: tuple[int, int]) -> Callable:
    return lambda e, y: MethodOutput(e.image, equivalent_kernel(operator, e.image, e.kernel, shape))
