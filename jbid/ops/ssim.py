"""Structural similarity with Gaussian windows, differentiable."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_RADIUS, _SIGMA = 5, 1.5


def gaussian_average(x: Float[Array, "h w *c"], *, same: bool) -> Float[Array, "H W *c"]:
    """Gaussian average over 11x11 pixels (sigma 1.5), one axis after the other.

    Written as eleven shifted sums, which for so few taps and channels are faster than a convolution on every backend.

    Args:
        x: image.
        same: pad with zeros, so that the size stays; otherwise only windows that fit count, 10 fewer along each axis.
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
    C1 = 0.01^2, C2 = 0.03^2 (Wang et al. 2004, Eq. 13). `jbid.metrics` has the SSIM for scores, without padding.
    """
    ma, mb, aa, bb, ab = (gaussian_average(v, same=True) for v in (a, b, a * a, b * b, a * b))
    va, vb, cov = aa - ma * ma, bb - mb * mb, ab - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    return jnp.mean((2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2)))
