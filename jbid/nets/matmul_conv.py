"""Strided convolutions and their adjoints as matrix products, with a leading batch axis.

XLA's CPU backend computes the gradients of matrix products several times faster than those of strided convolutions.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def _extract_windows(x: Float[Array, "n h w c"], k: int, s: int, p: int) -> Float[Array, "n a b k k c"]:
    """Windows k x k of x, zero-padded by p, at every s-th pixel; columns before rows in the two window axes."""
    x = jnp.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
    for axis in (1, 2):
        n = (x.shape[axis] - k) // s + 1
        x = jnp.stack([jax.lax.slice_in_dim(x, i, i + s * (n - 1) + 1, s, axis) for i in range(k)], 3)
    return x


class _Windowed(nn.Module):
    """Common part of a convolution over square windows and its adjoint.

    Attributes:
        features: channels of the output.
        size, stride, padding: side of the windows, pixels between them, and zeros around the image.
        bias: adds a bias.
        weight_init: initializer of the weights.
    """

    features: int
    size: int
    stride: int
    padding: int
    bias: bool = False
    weight_init: nn.initializers.Initializer = nn.initializers.normal(0.02)

    def _add_bias(self, y: Array) -> Array:
        return y + self.param("bias", nn.initializers.zeros, (self.features,)) if self.bias else y


class Convolution(_Windowed):
    """Correlation over a zero-padded image, as one matrix product; its gradients are matrix products too."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n H W features"]:
        c = x.shape[-1]
        weight = self.param("weight", self.weight_init, (self.size, self.size, c, self.features))
        windows = _extract_windows(x, self.size, self.stride, self.padding)
        shape = windows.shape[:3]
        # windows hold columns before rows
        y = windows.reshape(-1, self.size**2 * c) @ weight.swapaxes(0, 1).reshape(-1, self.features)
        return self._add_bias(y.reshape(*shape, self.features))


class Transposed(_Windowed):
    """Adjoint of `Convolution`: out[p] = sum_q w[p - s q] x[q], with side s (h - 1) + k - 2 p."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n H W features"]:
        n, h, w, c = x.shape
        k, s, p = self.size, self.stride, self.padding
        weight = self.param("weight", self.weight_init, (k, k, c, self.features))
        taps = weight.transpose(2, 1, 0, 3).reshape(c, -1)
        windows = (x.reshape(-1, c) @ taps).reshape(n, h, w, k, k, self.features)
        out = jax.ShapeDtypeStruct((n, s * (h - 1) + k - 2 * p, s * (w - 1) + k - 2 * p, self.features), x.dtype)
        return self._add_bias(jax.linear_transpose(partial(_extract_windows, k=k, s=s, p=p), out)(windows)[0])
