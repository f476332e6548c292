"""Data terms, regularisers and their combinators. A `Loss` maps (estimate, reblurred, blurred, t) to a scalar."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbid.noise import noise_level
from jbid.types import Loss

_RADIUS, _SIGMA = 5, 1.5


def gaussian_average(x: Float[Array, "h w *c"], *, same: bool) -> Float[Array, "H W *c"]:
    """Gaussian average over 11x11 pixels (sigma 1.5), one axis after the other.

    With `same`, zeros lie outside the image and the size stays; else only windows that fit are taken, 10 fewer along
    each axis. Written as eleven shifted sums: for so few taps and channels that is faster than a convolution on every
    backend.
    """
    taps = [math.exp(-(i**2) / (2 * _SIGMA**2)) for i in range(-_RADIUS, _RADIUS + 1)]
    total = sum(taps)
    for axis in (0, 1):
        padded = jnp.pad(x, [(_RADIUS, _RADIUS) if a == axis else (0, 0) for a in range(x.ndim)]) if same else x
        n = padded.shape[axis] - 2 * _RADIUS
        shifted = [tap / total * jax.lax.slice_in_dim(padded, i, i + n, axis=axis) for i, tap in enumerate(taps)]
        x = functools.reduce(jnp.add, shifted)
    return x


def ssim(a: Float[Array, "h w c"], b: Float[Array, "h w c"]) -> Float[Array, ""]:
    """Mean structural similarity of two images in [0, 1], as in SelfDeblur's loss: Gaussian 11x11, zero padding.

    Mean over all pixels and channels of (2 ma mb + C1)(2 cov + C2) / ((ma^2 + mb^2 + C1)(va + vb + C2)) with
    C1 = 0.01^2, C2 = 0.03^2 (Wang et al. 2004, Eq. 13). For scores use `jbid.metrics`: this one pads with zeros.
    """
    ma, mb, aa, bb, ab = (gaussian_average(v, same=True) for v in (a, b, a * a, b * b, a * b))
    va, vb, cov = aa - ma * ma, bb - mb * mb, ab - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    return jnp.mean((2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2)))


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
        scale = 0.1 * noise_level(blurred) if weight is None else weight
        return scale * total_variation(estimate.image, squared=squared)

    return loss


def l1_over_l2(image: Float[Array, "H W c"]) -> Float[Array, ""]:
    """||grad x||_1 / ||grad x||_2 over all forward differences (Zhuang et al., Eq. 19); the same for any multiple of x.

    Between 1 and the square root of the number of differences, so about 10^3 for a photo.
    """
    d = jnp.concatenate([jnp.diff(image, axis=axis).ravel() for axis in (0, 1)])
    return jnp.sum(jnp.abs(d)) / jnp.sqrt(jnp.sum(d * d) + 1e-12)


def sparse_gradient(weight: float = 1e-5) -> Loss:
    """weight * ||grad x||_1 / ||grad x||_2, the regulariser of Zhuang et al., Eq. 21."""
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


def towards_blurred(estimate, reblurred, blurred, t) -> Float[Array, ""]:
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


# a regulariser's factory (of its weight) by name
REGULARISERS: dict[str, Callable[[float], Loss] | None] = {
    "l1_over_l2": sparse_gradient,
    "l1": tv,
    "none": None,
}


def with_regulariser(data: Loss, name: str, weight: float) -> Loss:
    """data + weight times the regulariser of this name. Raises ValueError for a name that is not in `REGULARISERS`."""
    if name not in REGULARISERS:
        raise ValueError(f"got regulariser {name!r}, expected one of {', '.join(REGULARISERS)}")
    penalty = REGULARISERS[name]
    return add(data, penalty(weight)) if penalty else data
