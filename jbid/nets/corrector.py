"""A network that makes one better kernel of edge-based estimates of it."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FLOOR = 1e-3  # of the uniform kernel, so that no pixel's logarithm is lost


class KernelCorrector(nn.Module):
    """k = softmax(log sum_i a_i k_i + r): a kernel from m estimates k_i of it, best first; any odd size.

    Each estimate comes as the kernel and as the fit that it was pruned from (Xu et al. 2013, Eq. 11), which still has
    what is faint, among noise. The shares a_i(p) at each pixel and the correction r(p) are a U-Net's. Untrained, k is
    close to the first estimate. `width` channels at full size, doubled at each of `levels` halvings.
    """

    width: int = 24
    levels: int = 3

    @nn.compact
    def __call__(self, estimates: Float[Array, "n m two s s"]) -> Float[Array, "n s s"]:
        n, m, _, size, _ = estimates.shape
        # those that were moved by fractions of a pixel swing below zero
        kernels = jnp.maximum(estimates[:, :, 0], 0)
        peak = jnp.maximum(kernels.max((1, 2, 3), keepdims=True), 1e-12)
        seen = [kernels / peak, jnp.sqrt(kernels / peak), estimates[:, :, 1] / peak]
        x = jnp.moveaxis(jnp.concatenate(seen, 1), 1, -1)
        room = -size % 2**self.levels
        x = jnp.pad(x, ((0, 0), (0, room), (0, room), (0, 0)))

        def unit(x, features):
            for _ in range(2):
                x = nn.Conv(features, (3, 3), padding=1)(x)
                x = nn.relu(nn.GroupNorm(4)(x))
            return x

        kept = []
        for level in range(self.levels + 1):
            x = unit(x, self.width << level)
            if level < self.levels:
                kept.append(x)
                x = nn.avg_pool(x, (2, 2), (2, 2))
        for level in reversed(range(self.levels)):
            x = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
            x = unit(jnp.concatenate([x, kept[level]], -1), self.width << level)
        told = nn.Dense(m + 1, kernel_init=nn.initializers.zeros)(x)[:, :size, :size]
        first = self.param("first", nn.initializers.constant(2.0), ())
        share = nn.softmax(told[..., :m] + first * (jnp.arange(m) == 0))
        logit = jnp.log(jnp.einsum("nijm,nmij->nij", share, kernels) + FLOOR / size**2) + told[..., m]
        return jax.nn.softmax(logit.reshape(n, -1)).reshape(n, size, size)
