"""Data terms, regularizers and their combinators: a `Loss` maps (estimate, reblurred, blurred, t) to a scalar."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbid.nets.vgg import Layers, vgg_features
from jbid.ops.noise import estimate_noise
from jbid.ops.ssim import ssim
from jbid.types import Estimate, Loss


def mse() -> Loss:
    """Mean squared error, mean (k * x - y)^2: the data term of SelfDeblur, Eq. 5, as a mean."""
    return lambda estimate, reblurred, blurred, t: jnp.mean(jnp.square(reblurred - blurred))


def huber(delta: float = 0.05) -> Loss:
    """Huber loss, mean h(k * x - y), h(u) = u^2 / 2 if |u| <= delta, else delta (|u| - delta / 2) (Zhuang, Eq. 18).

    Differences beyond delta, in the image's units, count linearly, so outliers do not dominate the sum.
    """

    def loss(estimate, reblurred, blurred, t):
        u = jnp.abs(reblurred - blurred)
        return jnp.mean(jnp.where(u <= delta, u * u / 2, delta * (u - delta / 2)))

    return loss


def charbonnier_distance(a: Float[Array, "*shape"], b: Float[Array, "*shape"]) -> Float[Array, ""]:
    """Charbonnier distance, sum sqrt((a - b)^2 + 1e-6), close to the L1 distance (Tran et al. 2021, Eq. 4)."""
    return jnp.sum(jnp.sqrt(jnp.square(a - b) + 1e-6))


def charbonnier() -> Loss:
    """Mean over pixels of `charbonnier_distance`, the data term rho of Tran et al. 2021, Eq. 5."""
    return lambda estimate, reblurred, blurred, t: charbonnier_distance(reblurred, blurred) / blurred.size


def one_minus_ssim() -> Loss:
    """SSIM loss, 1 - SSIM(k * x, y), the data term of the later phase in SelfDeblur's published code."""
    return lambda estimate, reblurred, blurred, t: 1 - ssim(reblurred, blurred)


def total_variation(image: Float[Array, "H W c"], *, squared: bool = False) -> Float[Array, ""]:
    """Total variation, mean |dh x| + mean |dw x|.

    Args:
        image: (H, W, c).
        squared: 2 (mean (dh x)^2 + mean (dw x)^2) instead, as in SelfDeblur's code.
    """
    dh, dw = jnp.diff(image, axis=0), jnp.diff(image, axis=1)
    if squared:
        return 2 * (jnp.mean(dh * dh) + jnp.mean(dw * dw))
    return jnp.mean(jnp.abs(dh)) + jnp.mean(jnp.abs(dw))


def tv(weight: float | None = None, *, squared: bool = False) -> Loss:
    """Total variation loss, weight * TV(x); None: 0.1 times the noise level of y (SelfDeblur, section 3.2)."""

    def loss(estimate, reblurred, blurred, t):
        scale = 0.1 * estimate_noise(blurred) if weight is None else weight
        return scale * total_variation(estimate.image, squared=squared)

    return loss


def l1_over_l2(image: Float[Array, "H W c"]) -> Float[Array, ""]:
    """Ratio ||grad x||_1 / ||grad x||_2 over all forward differences (Zhuang et al., Eq. 19), invariant to scale.

    Between 1 and the square root of the number of differences, so about 10^3 for a photo.
    """
    d = jnp.concatenate([jnp.diff(image, axis=axis).ravel() for axis in (0, 1)])
    return jnp.sum(jnp.abs(d)) / jnp.sqrt(jnp.sum(d * d) + 1e-12)


def sparse_gradient(weight: float = 1e-5) -> Loss:
    """Sparse-gradient loss, weight * ||grad x||_1 / ||grad x||_2 (Zhuang et al., Eq. 21)."""
    return lambda estimate, reblurred, blurred, t: weight * l1_over_l2(estimate.image)


def hyper_laplacian(image: Float[Array, "H W c"], alpha: float = 0.66) -> Float[Array, ""]:
    """Hyper-Laplacian prior, mean (g_u^2 + g_v^2 + 1e-6)^(alpha / 2) (Tran et al., Eq. 5).

    g are the Sobel derivatives of the sum over channels, not divided by 8 and with zero padding, as in the authors'
    code.
    """
    x = jnp.pad(image.sum(-1), 1)
    across, down = x[:, 2:] - x[:, :-2], x[2:] - x[:-2]
    gu = across[:-2] + 2 * across[1:-1] + across[2:]
    gv = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    return jnp.mean((gu**2 + gv**2 + 1e-6) ** (alpha / 2))


def sparse_sobel() -> Loss:
    """Loss `hyper_laplacian` of the image (Tran et al. 2021, Eq. 5)."""
    return lambda estimate, reblurred, blurred, t: hyper_laplacian(estimate.image)


def kernel_norm() -> Loss:
    """Norm ||k||_2 of the kernel generator's output (Tran et al. 2021, Eq. 5)."""
    return lambda estimate, reblurred, blurred, t: jnp.sqrt(jnp.sum(jnp.square(estimate.kernel)) + 1e-12)


def image_to_blurred_mse(estimate: Estimate, reblurred: Array, blurred: Array, t: Array) -> Float[Array, ""]:
    """Mean squared error of the latent image, mean (x - y)^2, for a warm-up; x must have the size of y."""
    return jnp.mean(jnp.square(estimate.image - blurred))


def add(*losses: Loss) -> Loss:
    """Sum of losses."""
    return lambda *args: functools.reduce(jnp.add, [loss(*args) for loss in losses])


def switch_at(boundary: int, before: Loss, after: Loss) -> Loss:
    """Loss `before` in steps t < boundary, `after` from then on. Only one is computed, because t is never batched."""
    return lambda e, r, y, t: jax.lax.cond(t < boundary, before, after, e, r, y, t)


def data_term(name: str, *, ssim_from: int = 0, delta: float = 0.05) -> Loss:
    """Data term by name.

    Args:
        name: "mse", "ssim" (1 - SSIM), "mse_ssim" (MSE in steps t < ssim_from, then 1 - SSIM) or "huber".
        ssim_from: of "mse_ssim".
        delta: of "huber".

    Raises:
        ValueError: for another name.
    """
    terms = {
        "mse_ssim": switch_at(ssim_from, mse(), one_minus_ssim()),
        "mse": mse(),
        "ssim": one_minus_ssim(),
        "huber": huber(delta),
    }
    if name not in terms:
        raise ValueError(f"`loss` must be one of {', '.join(terms)}, got {name!r}")
    return terms[name]


# regularizers by name, each a function of its weight
REGULARIZERS: dict[str, Callable[[float], Loss] | None] = {
    "l1_over_l2": sparse_gradient,
    "l1": tv,
    "none": None,
}


def with_regularizer(data: Loss, name: str, weight: float) -> Loss:
    """Data term plus weight times a regularizer by name.

    Raises:
        ValueError: for a name that is not in `REGULARIZERS`.
    """
    if name not in REGULARIZERS:
        raise ValueError(f"`regularizer` must be one of {', '.join(REGULARIZERS)}, got {name!r}")
    penalty = REGULARIZERS[name]
    return add(data, penalty(weight)) if penalty else data


PERCEPTUAL_WEIGHTS = (0.2, 0.4, 0.8, 1.0, 3.0)


def perceptual(layers: Layers) -> Loss:
    """Perceptual loss, sum_i w_i mean |VGG_i(F(x, k)) - VGG_i(y)| over relu1_1 .. relu5_1, as Tran et al. 2021.

    The w_i are `PERCEPTUAL_WEIGHTS`.
    """

    def loss(estimate, reblurred, blurred, t):
        pairs = zip(PERCEPTUAL_WEIGHTS, vgg_features(layers, reblurred), vgg_features(layers, blurred))
        return sum(weight * jnp.mean(jnp.abs(a - b)) for weight, a, b in pairs)

    return loss
