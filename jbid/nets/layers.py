"""Layers whose values and initialization match PyTorch's, because the published results depend on both.

All of them take one image `h w c`, without a leading batch axis: batches of images or seeds are made by `jax.vmap`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Activation = Callable[[Array], Array]


def torch_uniform(fan_in: int) -> nn.initializers.Initializer:
    """PyTorch's default for convolution and linear weights and biases: U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = 1.0 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def leaky_relu(x: Array) -> Array:
    """max(x, 0.2 x), the slope of the deep-image-prior networks."""
    return jnp.maximum(x, 0.2 * x)


def pad_reflect(x: Float[Array, "h w c"], p: int) -> Float[Array, "h+2*p w+2*p c"]:
    """Mirror padding without repeating the edge, as `torch.nn.ReflectionPad2d`; needs h, w > p."""
    return jnp.pad(x, ((p, p), (p, p), (0, 0)), mode="reflect") if p else x


def _batched(f: Callable) -> Callable:
    """`f` with a batching rule: one call per element on CPU, ordinary batching elsewhere.

    Where each seed has its own weights, `vmap` makes a grouped convolution, which XLA's CPU backend runs at half the
    speed of separate ones (`benchmarks/design_choices.py`). Not differentiable: used inside `_correlate` alone.
    """
    g = jax.custom_batching.custom_vmap(f)

    @g.def_vmap
    def rule(axis_size, batched, *args):
        def separate(*args):
            return jnp.stack([g(*(a[i] if b else a for a, b in zip(args, batched))) for i in range(axis_size)])

        together = jax.vmap(f, [0 if b else None for b in batched])
        return jax.lax.platform_dependent(*args, cpu=separate, default=together), True

    return g


@functools.cache
def _correlation(stride: int, p: int) -> Callable:
    """(x, weight) -> valid correlation of x zero-padded by p, differentiable in both."""
    layout = ("NHWC", "HWIO", "NHWC")

    def f(x, weight):
        y = jax.lax.conv_general_dilated(x[None], weight, (stride, stride), [(p, p)] * 2, dimension_numbers=layout)
        return y[0]

    forward = _batched(f)
    to_x = _batched(lambda x, weight, g: jax.vjp(lambda x: f(x, weight), x)[1](g)[0])
    to_weight = _batched(lambda x, weight, g: jax.vjp(lambda w: f(x, w), weight)[1](g)[0])
    correlate = jax.custom_vjp(forward)
    correlate.defvjp(
        lambda x, weight: (forward(x, weight), (x, weight)), lambda saved, g: (to_x(*saved, g), to_weight(*saved, g))
    )
    return correlate


def _correlate(x: Array, weight: Array, stride: int, p: int) -> Array:
    return _correlation(stride, p)(x, weight)


def _correlate_stride2(x: Array, weight: Array) -> Array:
    """The valid 3x3 correlation of stride 2 as a 2x2 one of stride 1 over 2x2 pixel blocks turned into channels.

    XLA's CPU backend runs the backward pass of strided convolutions several times slower than the forward pass; this
    form has only plain convolutions in both, at 16/9 of the multiplications (`benchmarks/design_choices.py`).
    """
    h, w, c = x.shape
    x = jnp.pad(x, ((0, h % 2), (0, w % 2), (0, 0)))
    h, w = x.shape[0] // 2, x.shape[1] // 2
    blocks = x.reshape(h, 2, w, 2, c).transpose(0, 2, 1, 3, 4).reshape(h, w, 4 * c)
    taps = jnp.pad(weight, ((0, 1), (0, 1), (0, 0), (0, 0))).reshape(2, 2, 2, 2, c, -1)
    return _correlate(blocks, taps.transpose(0, 2, 1, 3, 4, 5).reshape(2, 2, 4 * c, -1), 1, 0)


def _exact(x: Array) -> Array:
    """x as float32 where it is of fewer bits, in which sums over an image's pixels would be rounded away."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _plus(y: Array, bias: Array) -> Array:
    # exactly, because the bias's gradient is a sum over the pixels
    return (_exact(y) + bias).astype(y.dtype)


class Conv(nn.Module):
    """Correlation y[o] = b[o] + sum_i w[i, o] * x[i] over a mirror- or zero-padded image; output ceil(h / stride).

    A 1x1 convolution of stride 1 is written as a matrix product: the same numbers, and faster on CPU and GPU alike.
    """

    features: int
    size: int = 3
    stride: int = 1
    padding: str = "reflect"  # or "zero"
    dtype: nn.dtypes.Dtype | None = None  # to compute in; None: what holds input and weights

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "H W features"]:
        c = x.shape[-1]
        init = torch_uniform(c * self.size**2)
        weight = self.param("weight", init, (self.size, self.size, c, self.features))
        bias = self.param("bias", init, (self.features,))
        x, weight = nn.dtypes.promote_dtype(x, weight, dtype=self.dtype)
        if self.size == 1 and self.stride == 1:
            return _plus(x @ weight[0, 0], bias)
        p = (self.size - 1) // 2
        if self.padding == "reflect":
            x, p = pad_reflect(x, p), 0
        if (self.size, self.stride, p) == (3, 2, 0):
            strided = functools.partial(_correlate, stride=2, p=0)
            y = jax.lax.platform_dependent(x, weight, cpu=_correlate_stride2, default=strided)
        else:
            y = _correlate(x, weight, self.stride, p)
        return _plus(y, bias)


@jax.custom_vjp
def standardize(x: Float[Array, "h w c"], eps: float) -> Float[Array, "h w c"]:
    """(x - mean) / sqrt(var + eps) per channel over the pixels, with the biased variance; in float32 at least."""
    return _standardize_forward(x, eps)[0]


def _standardize_forward(x, eps):
    wide = _exact(x)
    mean = wide.mean((0, 1))
    inverse = jax.lax.rsqrt(jnp.square(wide - mean).mean((0, 1)) + eps)
    # kept for the backward pass as it came, which may be half the memory
    return (wide - mean) * inverse, (x, mean, inverse)


def _standardize_backward(residuals, g):
    # the closed form needs two reductions and one pass where autodiff makes five
    x, mean, inverse = residuals
    y = (_exact(x) - mean) * inverse
    return ((g - g.mean((0, 1)) - y * (g * y).mean((0, 1))) * inverse).astype(x.dtype), None


standardize.defvjp(_standardize_forward, _standardize_backward)


class Norm(nn.Module):
    """Batch normalization in training mode of a batch that is one image: standardize(x) * scale + bias.

    Mean and variance are over the pixels of this image alone, so it keeps no running statistics.
    """

    eps: float = 1e-5
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        c = x.shape[-1]
        scale = self.param("scale", self.scale_init, (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        return (standardize(x, self.eps) * scale + bias).astype(x.dtype)


def max_pool2(x: Float[Array, "h w c"]) -> Float[Array, "h//2 w//2 c"]:
    """Largest value of each 2x2 block; an odd last row or column is dropped, as in PyTorch."""
    h, w, c = x.shape
    return x[: h // 2 * 2, : w // 2 * 2].reshape(h // 2, 2, w // 2, 2, c).max((1, 3))


def upsample2(x: Float[Array, "h w c"], mode: str = "bilinear") -> Float[Array, "2*h 2*w c"]:
    """Twice the size: "bilinear" with half-pixel centers (PyTorch's align_corners=False) or "nearest"."""
    h, w, c = x.shape
    if mode == "nearest":
        return jnp.broadcast_to(x[:, None, :, None], (h, 2, w, 2, c)).reshape(2 * h, 2 * w, c)

    def double(x, axis):
        n = x.shape[axis]
        before = jnp.concatenate(
            [jax.lax.slice_in_dim(x, 0, 1, axis=axis), jax.lax.slice_in_dim(x, 0, n - 1, axis=axis)], axis
        )
        after = jnp.concatenate(
            [jax.lax.slice_in_dim(x, 1, n, axis=axis), jax.lax.slice_in_dim(x, n - 1, n, axis=axis)], axis
        )
        y = jnp.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis + 1)
        return y.reshape(*x.shape[:axis], 2 * n, *x.shape[axis + 1 :])

    return double(double(x, 0), 1)
