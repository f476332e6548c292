"""Data terms, regularizers and their combinators. A `Loss` maps (estimate, reblurred, blurred, t) to a scalar."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbid.nets.vgg import Layers, vgg_features
from jbid.ops.noise import estimate_noise
from jbid.ops.ssim import ssim
from jbid.types import Loss


def mse() -> Loss:
    """mean (k * x - y)^2, the data term of SelfDeblur Eq. 5 as a mean."""
    return lambda estimate, reblurred, blurred, t: jnp.mean(jnp.square(reblurred - blurred))


def huber(delta: float = 0.05) -> Loss:
    """mean h(k * x - y) with h(u) = u^2 / 2 where |u| <= delta, else delta (|u| - delta / 2) (Zhuang et al., Eq. 18).

    Differences beyond delta, in the picture's units, count linearly: outliers do not rule the sum.
    """

    def loss(estimate, reblurred, blurred, t):
        u = jnp.abs(reblurred - blurred)
        return jnp.mean(jnp.where(u <= delta, u * u / 2, delta * (u - delta / 2)))

    return loss


def charbonnier_distance(a: Float[Array, "*shape"], b: Float[Array, "*shape"]) -> Float[Array, ""]:
    """sum sqrt((a - b)^2 + 1e-6), close to the sum of absolute differences (Tran et al. 2021, Eq. 4)."""
    return jnp.sum(jnp.sqrt(jnp.square(a - b) + 1e-6))


def charbonnier() -> Loss:
    """The mean over pixels of `charbonnier_distance`, the data term rho of Tran et al. 2021, Eq. 5."""
    return lambda estimate, reblurred, blurred, t: charbonnier_distance(reblurred, blurred) / blurred.size


def one_minus_ssim() -> Loss:
    """1 - SSIM(k * x, y), the data term of the later phase in SelfDeblur's published code."""
    return lambda estimate, reblurred, blurred, t: 1 - ssim(reblurred, blurred)


def total_variation(image: Float[Array, "H W c"], *, squared: bool = False) -> Float[Array, ""]:
    """mean |dh x| + mean |dw x|; `squared`: 2 (mean (dh x)^2 + mean (dw x)^2), as the authors' code has it."""
    dh, dw = jnp.diff(image, axis=0), jnp.diff(image, axis=1)
    if squared:
        return 2 * (jnp.mean(dh * dh) + jnp.mean(dw * dw))
    return jnp.mean(jnp.abs(dh)) + jnp.mean(jnp.abs(dw))


def tv(weight: float | None = None, *, squared: bool = False) -> Loss:
    """weight * TV(x). None: 0.1 times the noise level estimated from y, SelfDeblur section 3.2."""

    def loss(estimate, reblurred, blurred, t):
        scale = 0.1 * estimate_noise(blurred) if weight is None else weight
        return scale * total_variation(estimate.image, squared=squared)

    return loss


def l1_over_l2(image: Float[Array, "H W c"]) -> Float[Array, ""]:
    """||grad x||_1 / ||grad x||_2 over all forward differences (Zhuang et al., Eq. 19); the same for any multiple of x.

    Between 1 and the square root of the number of differences, so about 10^3 for a photo.
    """
    d = jnp.concatenate([jnp.diff(image, axis=axis).ravel() for axis in (0, 1)])
    return jnp.sum(jnp.abs(d)) / jnp.sqrt(jnp.sum(d * d) + 1e-12)


def sparse_gradient(weight: float = 1e-5) -> Loss:
    """weight * ||grad x||_1 / ||grad x||_2, the regularizer of Zhuang et al., Eq. 21."""
    return lambda estimate, reblurred, blurred, t: weight * l1_over_l2(estimate.image)


def hyper_laplacian(image: Float[Array, "H W c"], alpha: float = 0.66) -> Float[Array, ""]:
    """mean (g_u^2 + g_v^2 + 1e-6)^(alpha / 2) of the Sobel derivatives g of the channels' sum (Tran et al., Eq. 5).

    The derivatives are not divided by 8, and zeros lie outside the image, as in the authors' code.
    """
    x = jnp.pad(image.sum(-1), 1)
    across, down = x[:, 2:] - x[:, :-2], x[2:] - x[:-2]
    gu = across[:-2] + 2 * across[1:-1] + across[2:]
    gv = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    return jnp.mean((gu**2 + gv**2 + 1e-6) ** (alpha / 2))


def sparse_sobel(alpha: float = 0.66) -> Loss:
    """`hyper_laplacian` of the image, (g_u^2 + g_v^2)^(alpha / 2) of Tran et al. 2021, Eq. 5."""
    return lambda estimate, reblurred, blurred, t: hyper_laplacian(estimate.image, alpha)


def kernel_norm() -> Loss:
    """||k||_2 of whatever the kernel generator gives (Tran et al. 2021, Eq. 5)."""
    return lambda estimate, reblurred, blurred, t: jnp.sqrt(jnp.sum(jnp.square(estimate.kernel)) + 1e-12)


def image_to_blurred_mse(estimate, reblurred, blurred, t) -> Float[Array, ""]:
    """mean (x - y)^2 of the image itself, which must have the size of the picture: a `Loss` to warm up with."""
    return jnp.mean(jnp.square(estimate.image - blurred))


def add(*losses: Loss) -> Loss:
    """The sum of several losses."""
    return lambda *args: functools.reduce(jnp.add, [loss(*args) for loss in losses])


def switch_at(boundary: int, before: Loss, after: Loss) -> Loss:
    """`before` in steps t < boundary, `after` from then on. Only one is computed: t is never batched."""
    return lambda e, r, y, t: jax.lax.cond(t < boundary, before, after, e, r, y, t)


def data_term(name: str, *, ssim_from: int = 0, delta: float = 0.05) -> Loss:
    """The data term "mse", "ssim" (1 - SSIM), "mse_ssim" (MSE in steps t < ssim_from, then 1 - SSIM) or "huber".

    Raises ValueError for another name.
    """
    known = {
        "mse_ssim": switch_at(ssim_from, mse(), one_minus_ssim()),
        "mse": mse(),
        "ssim": one_minus_ssim(),
        "huber": huber(delta),
    }
    if name not in known:
        raise ValueError(f"got loss {name!r}, expected one of {', '.join(known)}")
    return known[name]


# a regularizer's factory (of its weight) by name
REGULARIZERS: dict[str, Callable[[float], Loss] | None] = {
    "l1_over_l2": sparse_gradient,
    "l1": tv,
    "none": None,
}


def with_regularizer(data: Loss, name: str, weight: float) -> Loss:
    """data + weight times the regularizer of this name. Raises ValueError for a name that is not in `REGULARIZERS`."""
    if name not in REGULARIZERS:
        raise ValueError(f"got regularizer {name!r}, expected one of {', '.join(REGULARIZERS)}")
    penalty = REGULARIZERS[name]
    return add(data, penalty(weight)) if penalty else data


PERCEPTUAL_WEIGHTS = (0.2, 0.4, 0.8, 1.0, 3.0)


def perceptual(layers: Layers) -> Loss:
    """sum_i w_i mean |VGG_i(F(x, k)) - VGG_i(y)| over relu1_1 .. relu5_1, w_i of `WEIGHTS`, as Tran et al. 2021."""

    def loss(estimate, reblurred, blurred, t):
        pairs = zip(PERCEPTUAL_WEIGHTS, vgg_features(layers, reblurred), vgg_features(layers, blurred))
        return sum(weight * jnp.mean(jnp.abs(a - b)) for weight, a, b in pairs)

    return loss
