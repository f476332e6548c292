"""Network that combines several edge-based kernel estimates into one better kernel."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FLOOR = 1e-3  # share of the uniform kernel that keeps every logarithm finite


def _to_channels(estimates: Float[Array, "n m two s s"], kernels: Float[Array, "n m s s"]) -> Float[Array, "n s s 3*m"]:
    """Kernels, their square roots and their fits, all divided by the largest kernel value."""
    peak = jnp.maximum(kernels.max((1, 2, 3), keepdims=True), 1e-12)
    channels = [kernels / peak, jnp.sqrt(kernels / peak), estimates[:, :, 1] / peak]
    return jnp.moveaxis(jnp.concatenate(channels, 1), 1, -1)


class KernelCorrector(nn.Module):
    """Kernel k = softmax(log sum_i a_i k_i + r) from m edge-based estimates k_i, best first; any odd size.

    A U-Net predicts the share a_i(p) of each estimate at each pixel and the correction r(p). Without training, k is
    close to the first estimate.

    Attributes:
        width: channels at full size; each level doubles them.
        levels: number of times that the U-Net halves the size.
    """

    width: int = 24
    levels: int = 3

    @nn.compact
    def __call__(self, estimates: Float[Array, "n m two s s"]) -> Float[Array, "n s s"]:
        """Return one kernel for each set of estimates.

        Args:
            estimates: pairs of a kernel and the fit that it was pruned from (Xu et al. 2013, Eq. 11). The fit still
                shows faint parts of the kernel, among noise.
        """
        n, m, _, size, _ = estimates.shape
        # interpolation by fractions of a pixel makes negative values
        kernels = jnp.maximum(estimates[:, :, 0], 0)
        x = self._unet(_to_channels(estimates, kernels))
        output = nn.Dense(m + 1, kernel_init=nn.initializers.zeros)(x)[:, :size, :size]
        first = self.param("first", nn.initializers.constant(2.0), ())
        share = nn.softmax(output[..., :m] + first * (jnp.arange(m) == 0))
        logit = jnp.log(jnp.einsum("nijm,nmij->nij", share, kernels) + FLOOR / size**2) + output[..., m]
        return jax.nn.softmax(logit.reshape(n, -1)).reshape(n, size, size)

    def _unet(self, x: Float[Array, "n s s c"]) -> Float[Array, "n S S width"]:
        """Features at the size of the input, padded to a multiple of 2^levels."""
        padding = -x.shape[1] % 2**self.levels
        x = jnp.pad(x, ((0, 0), (0, padding), (0, padding), (0, 0)))
        skips = []
        for level in range(self.levels + 1):
            x = self._convolve_twice(x, self.width << level)
            if level < self.levels:
                skips.append(x)
                x = nn.avg_pool(x, (2, 2), (2, 2))
        for level in reversed(range(self.levels)):
            x = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
            x = self._convolve_twice(jnp.concatenate([x, skips[level]], -1), self.width << level)
        return x

    def _convolve_twice(self, x: Array, features: int) -> Array:
        for _ in range(2):
            x = nn.Conv(features, (3, 3), padding=1)(x)
            x = nn.relu(nn.GroupNorm(4)(x))
        return x
