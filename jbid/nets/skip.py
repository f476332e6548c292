"""Image network of the deep image prior: an hourglass with skip connections and non-local blocks."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbid.nets.layers import Conv, Norm, leaky_relu, max_pool2, upsample2


class NonLocal(nn.Module):
    """Dot-product attention without softmax: x + BN(W y), y = theta (phi^T g) / N over all N pooled positions.

    Without a softmax, phi^T g can be computed first: a (c/2, c/2) matrix instead of the (hw, hw/4) attention map of the
    published code. The results are equal up to rounding.

    Attributes:
        dtype: of the computation, see `Conv`.
    """

    dtype: nn.dtypes.Dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        half = x.shape[-1] // 2
        theta = Conv(half, 1, dtype=self.dtype, name="theta")(x)
        # an image of one row or column has no 2x2 blocks
        pool = max_pool2 if min(x.shape[:2]) > 1 else lambda v: v
        phi = pool(Conv(half, 1, dtype=self.dtype, name="phi")(x))
        g = pool(Conv(half, 1, dtype=self.dtype, name="g")(x))
        n = phi.shape[0] * phi.shape[1]
        exact = jnp.promote_types(x.dtype, jnp.float32)
        mix = jnp.matmul(phi.reshape(n, half).T, g.reshape(n, half), preferred_element_type=exact) / n
        y = Conv(x.shape[-1], 1, dtype=self.dtype, name="out")(theta @ mix.astype(theta.dtype))
        # zero scale makes the untrained block the identity
        return x + Norm(scale_init=nn.initializers.zeros, name="norm")(y)


class Skip(nn.Module):
    """Image G_x(z), (h, w, out_channels) in (0, 1), from z (h, w, 8); any h and w.

    Each scale has two branches. The skip branch is a 1x1 convolution to `skip_channels`. The deep branch is a 3x3
    convolution of stride 2, a non-local block, a 3x3 convolution, the next scale, and upsampling by two. Both are
    concatenated and go through a norm, a 3x3 and a 1x1 convolution. After each convolution follow a norm over the
    pixels of the image and a leaky ReLU of slope 0.2. The defaults are SelfDeblur's, with 2,365,521 parameters. Its
    paper does not mention the non-local blocks, without which there are 2,265,489.

    Attributes:
        channels: of all layers but the skip branches.
        skip_channels: of the skip branches.
        scales: number of scales.
        out_channels: of the image.
        non_local_from: first scale with a non-local block; None: no such blocks.
        upsample: "bilinear" or "nearest".
        padding: "reflect" or "zero".
        output: "sigmoid", or "softmax" over the pixels.
        dtype: of activations and products, such as bfloat16. Parameters, statistics of norms, long sums and the image
            stay float32.
    """

    channels: int = 128
    skip_channels: int = 16
    scales: int = 5
    out_channels: int = 1
    non_local_from: int | None = 2
    upsample: str = "bilinear"
    padding: str = "reflect"
    output: str = "sigmoid"
    dtype: nn.dtypes.Dtype | None = None

    @nn.compact
    def __call__(self, z):
        y = self._scale(z, 0)
        # no dtype, so that the image is float32 like the weights
        y = Conv(self.out_channels, 1, name="head")(y)
        return jax.nn.softmax(y, (0, 1)) if self.output == "softmax" else jax.nn.sigmoid(y)

    def _scale(self, x, i):
        """Scale i and all coarser ones."""

        def convolve(y, name, size, features=self.channels, stride=1):
            y = Conv(features, size, stride, self.padding, self.dtype, name=name)(y)
            return leaky_relu(Norm(name=f"{name}_norm")(y))

        h, w = x.shape[:2]
        skip = convolve(x, f"skip{i}", 1, self.skip_channels)
        y = convolve(x, f"down{i}", 3, stride=2)
        if self.non_local_from is not None and i >= self.non_local_from:
            y = NonLocal(self.dtype, name=f"non_local{i}")(y)
        y = convolve(y, f"deep{i}", 3)
        if i + 1 < self.scales:
            y = self._scale(y, i + 1)
        y = upsample2(y, self.upsample)[:h, :w]
        y = Norm(name=f"merge{i}_norm")(jnp.concatenate([skip, y], -1))
        return convolve(convolve(y, f"up{i}", 3), f"mix{i}", 1)


class Squeezed(nn.Module):
    """One-channel image network without the channel axis, as a kernel network (Double-DIP).

    Attributes:
        net: the image network.
    """

    net: nn.Module

    def __call__(self, z: Float[Array, "h w c"]) -> Float[Array, "h w"]:
        return self.net(z)[..., 0]
