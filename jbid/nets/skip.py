"""The image network of the deep image prior: an hourglass with skip connections and non-local blocks."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbid.nets.layers import Conv, Norm, leaky_relu, max_pool2, upsample2


class NonLocal(nn.Module):
    """x + BN(W y) with y = theta (phi^T g) / N: dot-product attention over all N pooled positions, without softmax.

    Because there is no softmax, phi^T g can be formed first: a (c/2, c/2) matrix in place of the (hw, hw/4) attention
    map of the published code, with the same result up to rounding.
    """

    dtype: nn.dtypes.Dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        half = x.shape[-1] // 2
        theta = Conv(half, 1, dtype=self.dtype, name="theta")(x)
        # a single row or column has no 2x2 blocks
        pool = max_pool2 if min(x.shape[:2]) > 1 else lambda v: v
        phi = pool(Conv(half, 1, dtype=self.dtype, name="phi")(x))
        g = pool(Conv(half, 1, dtype=self.dtype, name="g")(x))
        n = phi.shape[0] * phi.shape[1]
        exact = jnp.promote_types(x.dtype, jnp.float32)
        mix = jnp.matmul(phi.reshape(n, half).T, g.reshape(n, half), preferred_element_type=exact) / n
        y = Conv(x.shape[-1], 1, dtype=self.dtype, name="out")(theta @ mix.astype(theta.dtype))
        # scale and bias start at zero: the block is the identity at first
        return x + Norm(scale_init=nn.initializers.zeros, name="norm")(y)


class Skip(nn.Module):
    """G_x: z (h, w, 8) -> image (h, w, out_channels) in (0, 1); any h, w.

    Scale i: skip = 1x1 to `skip_channels`; deep = 3x3 stride 2, non-local (from scale `non_local_from`), 3x3, the next
    scale, twice upsampled and cut to size; then concatenation, norm, 3x3, 1x1. Each convolution is followed by a norm
    over the image's own pixels and LeakyReLU(0.2), and all are mirror-padded. The defaults are SelfDeblur's, with
    2,365,521 parameters; its paper does not mention the non-local blocks (None leaves them out: 2,265,489).
    With dtype bfloat16 activations and products have 8 bits of mantissa; parameters, statistics of norms, long sums
    and what comes out stay float32.
    """

    channels: int = 128
    skip_channels: int = 16
    scales: int = 5
    out_channels: int = 1
    non_local_from: int | None = 2
    upsample: str = "bilinear"
    padding: str = "reflect"
    output: str = "sigmoid"  # or "softmax", over the pixels
    dtype: nn.dtypes.Dtype | None = None

    @nn.compact
    def __call__(self, z):
        y = self._scale(z, 0)
        # without the dtype: the weights are float32, and so is the image
        y = Conv(self.out_channels, 1, name="head")(y)
        return jax.nn.softmax(y, (0, 1)) if self.output == "softmax" else jax.nn.sigmoid(y)

    def _scale(self, x, i):
        def unit(y, name, size, features=self.channels, stride=1):
            y = Conv(features, size, stride, self.padding, self.dtype, name=name)(y)
            return leaky_relu(Norm(name=f"{name}_norm")(y))

        h, w = x.shape[:2]
        skip = unit(x, f"skip{i}", 1, self.skip_channels)
        y = unit(x, f"down{i}", 3, stride=2)
        if self.non_local_from is not None and i >= self.non_local_from:
            y = NonLocal(self.dtype, name=f"non_local{i}")(y)
        y = unit(y, f"deep{i}", 3)
        if i + 1 < self.scales:
            y = self._scale(y, i + 1)
        y = upsample2(y, self.upsample)[:h, :w]
        y = Norm(name=f"merge{i}_norm")(jnp.concatenate([skip, y], -1))
        return unit(unit(y, f"up{i}", 3), f"mix{i}", 1)


class Squeezed(nn.Module):
    """A one-channel `net` without its channel axis: an image network as kernel network (Double-DIP)."""

    net: nn.Module

    def __call__(self, z: Float[Array, "h w c"]) -> Float[Array, "h w"]:
        return self.net(z)[..., 0]
