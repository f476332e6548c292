"""A network that makes one better kernel of several edge-based estimates of it."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FLOOR = 1e-3  # of the uniform kernel, so that no pixel's logarithm is lost


class KernelCorrector(nn.Module):
    """k = softmax(log sum_i a_i k_i + r): a kernel from m estimates k_i of it, best first; any odd size, any m.

    a_i(p), the estimates' shares at each pixel, and the correction r(p) come from a U-Net that sees each estimate
    beside the mean of all (Zaheer et al. 2017, Deep Sets), so that the order matters by a bias for the first alone.
    Untrained, k is close to the first estimate. `width` channels at full size, doubled at each of `levels` halvings.
    """

    width: int = 24
    levels: int = 3

    @nn.compact
    def __call__(self, estimates: Float[Array, "n m s s"]) -> Float[Array, "n s s"]:
        n, m, size, _ = estimates.shape
        peak = jnp.maximum(estimates.max((2, 3), keepdims=True), 1e-12)
        x = jnp.stack([estimates / peak, jnp.sqrt(estimates / peak)], -1)
        room = -size % 2**self.levels
        x = jnp.pad(x, ((0, 0), (0, 0), (0, room), (0, room), (0, 0)))

        def beside_mean(x):
            mean = jnp.broadcast_to(x.mean(1, keepdims=True), x.shape)
            return jnp.concatenate([x, mean], -1).reshape(n * m, *x.shape[2:4], -1)

        def unit(x, features):
            for _ in range(2):
                x = nn.Conv(features, (3, 3), padding=1)(x)
                x = nn.relu(nn.GroupNorm(4)(x))
            return x.reshape(n, m, *x.shape[1:])

        kept = []
        for level in range(self.levels + 1):
            x = unit(beside_mean(x), self.width << level)
            if level < self.levels:
                kept.append(x)
                x = nn.avg_pool(x.reshape(n * m, *x.shape[2:]), (2, 2), (2, 2)).reshape(
                    n, m, x.shape[2] // 2, x.shape[3] // 2, -1
                )
        for level in reversed(range(self.levels)):
            x = jnp.repeat(jnp.repeat(x, 2, 2), 2, 3)
            x = jnp.concatenate([x, kept[level]], -1)
            x = unit(x.reshape(n * m, *x.shape[2:]), self.width << level)
        told = nn.Dense(2, kernel_init=nn.initializers.zeros)(x)[:, :, :size, :size]
        first = self.param("first", nn.initializers.constant(2.0), ())
        share = nn.softmax(told[..., 0] + first * (jnp.arange(m) == 0)[:, None, None], 1)
        logit = jnp.log(jnp.sum(share * estimates, 1) + FLOOR / size**2) + told[..., 1].mean(1)
        return jax.nn.softmax(logit.reshape(n, -1)).reshape(n, size, size)
