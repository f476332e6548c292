"""Layers with the values and the initialization of PyTorch's, because the published results depend on both.

Each layer takes one image (h, w, c) without a batch axis; `jax.vmap` makes batches of images or seeds.
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
    """Leaky ReLU max(x, 0.2 x) of the deep-image-prior networks."""
    return jnp.maximum(x, 0.2 * x)


def pad_reflect(x: Float[Array, "h w c"], p: int) -> Float[Array, "h+2*{p} w+2*{p} c"]:
    """Mirror padding without repetition of the edge, as `torch.nn.ReflectionPad2d`; h and w must exceed p."""
    return jnp.pad(x, ((p, p), (p, p), (0, 0)), mode="reflect") if p else x


def _vmap_by_platform(f: Callable) -> Callable:
    """Give `f` a batching rule: one call per element on CPU, ordinary batching elsewhere.

    If each seed has its own weights, `vmap` makes a grouped convolution, which is slow on XLA's CPU backend
    (`benchmarks/design_choices.py`). The result is not differentiable; `_correlation` defines the gradients.
    """
    g = jax.custom_batching.custom_vmap(f)

    @g.def_vmap
    def batch(axis_size, is_batched, *args):
        def call_each(*args):
            return jnp.stack([g(*(a[i] if b else a for a, b in zip(args, is_batched))) for i in range(axis_size)])

        call_all = jax.vmap(f, [0 if b else None for b in is_batched])
        return jax.lax.platform_dependent(*args, cpu=call_each, default=call_all), True

    return g


@functools.cache
def _correlation(stride: int, p: int) -> Callable:
    """Function (x, weight) -> valid correlation of x, zero-padded by p; differentiable in both."""
    layout = ("NHWC", "HWIO", "NHWC")

    def f(x, weight):
        y = jax.lax.conv_general_dilated(x[None], weight, (stride, stride), [(p, p)] * 2, dimension_numbers=layout)
        return y[0]

    forward = _vmap_by_platform(f)
    grad_x = _vmap_by_platform(lambda x, weight, g: jax.vjp(lambda x: f(x, weight), x)[1](g)[0])
    grad_weight = _vmap_by_platform(lambda x, weight, g: jax.vjp(lambda w: f(x, w), weight)[1](g)[0])
    correlate = jax.custom_vjp(forward)
    correlate.defvjp(
        lambda x, weight: (forward(x, weight), (x, weight)),
        lambda residuals, g: (grad_x(*residuals, g), grad_weight(*residuals, g)),
    )
    return correlate


def _correlate(x: Array, weight: Array, stride: int, p: int) -> Array:
    return _correlation(stride, p)(x, weight)


def _correlate_stride2(x: Array, weight: Array) -> Array:
    """Valid 3x3 correlation of stride 2, as a 2x2 correlation of stride 1 with each 2x2 block of pixels as channels.

    XLA's CPU backend is slow in the backward pass of strided convolutions. This form has plain convolutions in both
    passes, at 16/9 of the multiplications (`benchmarks/design_choices.py`).
    """
    h, w, c = x.shape
    x = jnp.pad(x, ((0, h % 2), (0, w % 2), (0, 0)))
    h, w = x.shape[0] // 2, x.shape[1] // 2
    blocks = x.reshape(h, 2, w, 2, c).transpose(0, 2, 1, 3, 4).reshape(h, w, 4 * c)
    taps = jnp.pad(weight, ((0, 1), (0, 1), (0, 0), (0, 0))).reshape(2, 2, 2, 2, c, -1)
    return _correlate(blocks, taps.transpose(0, 2, 1, 3, 4, 5).reshape(2, 2, 4 * c, -1), 1, 0)


def _to_float32(x: Array) -> Array:
    """Raise the precision to float32 at least, because sums over many pixels lose bits in lower precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _add_bias(y: Array, bias: Array) -> Array:
    # in float32, because the gradient of the bias is a sum over the pixels
    return (_to_float32(y) + bias).astype(y.dtype)


class Conv(nn.Module):
    """Correlation y[o] = b[o] + sum_i w[i, o] * x[i] over a padded image, with sides ceil(h / stride) of the output.

    A 1x1 convolution of stride 1 is a matrix product, which has the same values and is faster.

    Attributes:
        features: channels of the output.
        size: side of the filters.
        stride: pixels between two windows.
        padding: "reflect" (mirrored) or "zero".
        dtype: of the computation; None: the common type of input and weights.
    """

    features: int
    size: int = 3
    stride: int = 1
    padding: str = "reflect"
    dtype: nn.dtypes.Dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "H W features"]:
        c = x.shape[-1]
        init = torch_uniform(c * self.size**2)
        weight = self.param("weight", init, (self.size, self.size, c, self.features))
        bias = self.param("bias", init, (self.features,))
        x, weight = nn.dtypes.promote_dtype(x, weight, dtype=self.dtype)
        if self.size == 1 and self.stride == 1:
            return _add_bias(x @ weight[0, 0], bias)
        p = (self.size - 1) // 2
        if self.padding == "reflect":
            x, p = pad_reflect(x, p), 0
        if (self.size, self.stride, p) == (3, 2, 0):
            strided = functools.partial(_correlate, stride=2, p=0)
            y = jax.lax.platform_dependent(x, weight, cpu=_correlate_stride2, default=strided)
        else:
            y = _correlate(x, weight, self.stride, p)
        return _add_bias(y, bias)


@jax.custom_vjp
def standardize(x: Float[Array, "h w c"], eps: float | Float[Array, ""]) -> Float[Array, "h w c"]:
    """Normalize each channel over the pixels: (x - mean) / sqrt(var + eps), with the biased variance.

    The computation is in float32 at least.
    """
    return _standardize_forward(x, eps)[0]


def _standardize_forward(x, eps):
    exact = _to_float32(x)
    mean = exact.mean((0, 1))
    inverse = jax.lax.rsqrt(jnp.square(exact - mean).mean((0, 1)) + eps)
    # the backward pass keeps x in its own type, which may take half the memory
    return (exact - mean) * inverse, (x, mean, inverse)


def _standardize_backward(residuals, g):
    # this closed form needs fewer passes over the pixels than autodiff
    x, mean, inverse = residuals
    y = (_to_float32(x) - mean) * inverse
    return ((g - g.mean((0, 1)) - y * (g * y).mean((0, 1))) * inverse).astype(x.dtype), None


standardize.defvjp(_standardize_forward, _standardize_backward)


class Norm(nn.Module):
    """Batch normalization in training mode for a batch of one image: standardize(x) * scale + bias.

    It has no running statistics, because mean and variance are those of the pixels of this image.

    Attributes:
        eps: summand of the variance.
        scale_init: initializer of the scale.
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
    """Maximum of each 2x2 block, without an odd last row or column, as in PyTorch."""
    h, w, c = x.shape
    return x[: h // 2 * 2, : w // 2 * 2].reshape(h // 2, 2, w // 2, 2, c).max((1, 3))


def upsample2(x: Float[Array, "h w c"], mode: str = "bilinear") -> Float[Array, "2*h 2*w c"]:
    """Double the sides: "bilinear" with half-pixel centers (PyTorch's align_corners=False) or "nearest"."""
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
