"""The generator of StyleGAN2 (Karras et al., CVPR 2020) with weights in the layout of its PyTorch port.

The names are those of the checkpoints that are commonly passed around (`g_ema` of rosinality's port). Nothing here is
trained or optimized but the input, so the weights are a plain dictionary and the network two functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Weights = Mapping[str, Any]  # by the port's names, in PyTorch's shapes

_TAPS = np.outer([1.0, 3, 3, 1], [1.0, 3, 3, 1]) / 16  # of the interpolation; sum four, as it follows a doubling


def layers(weights: Weights) -> int:
    """The number of latents that the generator takes: two for each size but one at the first, 14 for 256 pixels."""
    blocks = sum(name.startswith("convs.") and name.endswith(".conv.weight") for name in weights)
    return blocks + 2


def shape(weights: Weights) -> tuple[int, int, int]:
    """Rows, columns and channels of its images."""
    rows, columns = weights["input.input"].shape[2:]
    scale = 1 << (layers(weights) // 2 - 1)
    return rows * scale, columns * scale, weights["to_rgb1.bias"].size


def noise_shapes(weights: Weights) -> list[tuple[int, int]]:
    """Rows and columns of the noise that each layer adds: one map at the first size, two at each later one."""
    rows, columns = weights["input.input"].shape[2:]
    return [(rows << ((i + 1) // 2), columns << ((i + 1) // 2)) for i in range(layers(weights) - 1)]


def _linear(weights: Weights, name: str, x: Array, rate: float = 1.0) -> Array:
    weight = weights[f"{name}.weight"]
    return x @ (weight.T * (rate / math.sqrt(weight.shape[1]))) + weights[f"{name}.bias"] * rate


def _activated(x: Array) -> Array:
    return jnp.maximum(x, 0.2 * x) * math.sqrt(2)


def mapping(weights: Weights, z: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """w = f(z): z scaled to a mean square of one, then fully connected layers with leaky ReLU."""
    x = z * jax.lax.rsqrt(jnp.mean(jnp.square(z), -1, keepdims=True) + 1e-8)
    count = sum(name.startswith("style.") and name.endswith(".weight") for name in weights)
    for i in range(1, count + 1):
        x = _activated(_linear(weights, f"style.{i}", x, 0.01))
    return x


def _conv(x: Array, weight: Array, **options: Any) -> Array:
    return jax.lax.conv_general_dilated(x[None], weight, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)[0]


def _interpolated(x: Array, before: int, after: int, doubled: int = 1) -> Array:
    """x with `doubled` - 1 zeros between pixels, padded, and smoothed with `_TAPS`."""
    taps = jnp.broadcast_to(jnp.asarray(_TAPS, x.dtype)[:, :, None, None], (4, 4, 1, x.shape[-1]))
    pad = [(before, after)] * 2
    return _conv(
        x, taps, window_strides=(1, 1), padding=pad, lhs_dilation=(doubled,) * 2, feature_group_count=x.shape[-1]
    )


def _modulated(weights: Weights, name: str, x: Array, latent: Array, doubled: bool, demodulated: bool) -> Array:
    weight = weights[f"{name}.weight"][0]
    _, inner, size, _ = weight.shape
    style = _linear(weights, f"{name}.modulation", latent)
    weight = weight * (style[:, None, None] / math.sqrt(inner * size * size))
    if demodulated:
        weight = weight * jax.lax.rsqrt(jnp.sum(jnp.square(weight), (1, 2, 3), keepdims=True) + 1e-8)
    kernel = jnp.transpose(weight, (2, 3, 1, 0))
    if not doubled:
        return _conv(x, kernel, window_strides=(1, 1), padding=[(size // 2, size // 2)] * 2)
    # a transposed convolution: zeros between the pixels, and the kernel turned
    whole = [(size - 1, size - 1)] * 2
    x = _conv(x, kernel[::-1, ::-1], window_strides=(1, 1), padding=whole, lhs_dilation=(2, 2))
    return _interpolated(x, 1, 1)


def _styled(weights: Weights, name: str, x: Array, latent: Array, noise: Array, doubled: bool) -> Array:
    x = _modulated(weights, f"{name}.conv", x, latent, doubled, True)
    x = x + weights[f"{name}.noise.weight"] * noise[..., None]
    return _activated(x + weights[f"{name}.activate.bias"])


def _seen(weights: Weights, name: str, x: Array, latent: Array, before: Array | None) -> Array:
    image = _modulated(weights, f"{name}.conv", x, latent, False, False) + weights[f"{name}.bias"].reshape(-1)
    return image if before is None else image + _interpolated(before, 2, 2, 2)


def synthesis(weights: Weights, latents: Float[Array, "n d"], noises: Sequence[Array]) -> Float[Array, "h w c"]:
    """The image of one latent w for each layer and one noise map for each but the last, in [-1, 1] or nearly so."""
    x = jnp.transpose(jnp.asarray(weights["input.input"])[0], (1, 2, 0))
    x = _styled(weights, "conv1", x, latents[0], noises[0], False)
    image = _seen(weights, "to_rgb1", x, latents[1], None)
    for i in range(0, len(latents) - 2, 2):
        x = _styled(weights, f"convs.{i}", x, latents[i + 1], noises[i + 1], True)
        x = _styled(weights, f"convs.{i + 1}", x, latents[i + 2], noises[i + 2], False)
        image = _seen(weights, f"to_rgbs.{i // 2}", x, latents[i + 3], image)
    return image
