"""Generator of StyleGAN2 (Karras et al., CVPR 2020) with weights in the layout of its PyTorch port.

The weights have the names of the common checkpoints, `g_ema` of rosinality's port. Only the input of the network is
optimized, never the weights. So the weights are a dictionary, and the network consists of two functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Weights = Mapping[str, Any]  # names and shapes of the PyTorch port

# of the interpolation; their sum is four because of the zeros between pixels
_TAPS = np.outer([1.0, 3, 3, 1], [1.0, 3, 3, 1]) / 16


def layers(weights: Weights) -> int:
    """Number of latents of the generator: one per layer and one for the last image, such as 14 for 256 pixels."""
    blocks = sum(name.startswith("convs.") and name.endswith(".conv.weight") for name in weights)
    return blocks + 2


def shape(weights: Weights) -> tuple[int, int, int]:
    """Rows, columns and channels of the generated images."""
    rows, columns = weights["input.input"].shape[2:]
    scale = 1 << (layers(weights) // 2 - 1)
    return rows * scale, columns * scale, weights["to_rgb1.bias"].size


def noise_shapes(weights: Weights) -> list[tuple[int, int]]:
    """Rows and columns of the noise map of each layer: one map at the first size, two at each later size."""
    rows, columns = weights["input.input"].shape[2:]
    return [(rows << ((i + 1) // 2), columns << ((i + 1) // 2)) for i in range(layers(weights) - 1)]


def _linear(weights: Weights, name: str, x: Array, rate: float = 1.0) -> Array:
    weight = weights[f"{name}.weight"]
    return x @ (weight.T * (rate / math.sqrt(weight.shape[1]))) + weights[f"{name}.bias"] * rate


def _activate(x: Array) -> Array:
    """Leaky ReLU of slope 0.2, scaled to keep the variance."""
    return jnp.maximum(x, 0.2 * x) * math.sqrt(2)


def mapping(weights: Weights, z: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """Latents w = f(z): z is scaled to a mean square of one, then follow fully connected layers with leaky ReLU."""
    x = z * jax.lax.rsqrt(jnp.mean(jnp.square(z), -1, keepdims=True) + 1e-8)
    count = sum(name.startswith("style.") and name.endswith(".weight") for name in weights)
    for i in range(1, count + 1):
        x = _activate(_linear(weights, f"style.{i}", x, 0.01))
    return x


def _conv(x: Array, weight: Array, **options: Any) -> Array:
    return jax.lax.conv_general_dilated(x[None], weight, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)[0]


def _smooth(x: Array, before: int, after: int, dilation: int = 1) -> Array:
    """Insert `dilation` - 1 zeros between pixels, pad with zeros, and correlate with `_TAPS`."""
    taps = jnp.broadcast_to(jnp.asarray(_TAPS, x.dtype)[:, :, None, None], (4, 4, 1, x.shape[-1]))
    pad = [(before, after)] * 2
    return _conv(
        x, taps, window_strides=(1, 1), padding=pad, lhs_dilation=(dilation,) * 2, feature_group_count=x.shape[-1]
    )


def _modulated_conv(
    weights: Weights, name: str, x: Array, latent: Array, is_upsampling: bool, is_demodulated: bool
) -> Array:
    """Convolution with filters that depend on the latent."""
    weight = weights[f"{name}.weight"][0]
    _, inner, size, _ = weight.shape
    style = _linear(weights, f"{name}.modulation", latent)
    weight = weight * (style[:, None, None] / math.sqrt(inner * size * size))
    if is_demodulated:
        weight = weight * jax.lax.rsqrt(jnp.sum(jnp.square(weight), (1, 2, 3), keepdims=True) + 1e-8)
    kernel = jnp.transpose(weight, (2, 3, 1, 0))
    if not is_upsampling:
        return _conv(x, kernel, window_strides=(1, 1), padding=[(size // 2, size // 2)] * 2)
    # transposed convolution: zeros between the pixels, and the filter rotated by 180 degrees
    padding = [(size - 1, size - 1)] * 2
    x = _conv(x, kernel[::-1, ::-1], window_strides=(1, 1), padding=padding, lhs_dilation=(2, 2))
    return _smooth(x, 1, 1)


def _styled_layer(weights: Weights, name: str, x: Array, latent: Array, noise: Array, is_upsampling: bool) -> Array:
    """Modulated convolution, noise, bias and activation."""
    x = _modulated_conv(weights, f"{name}.conv", x, latent, is_upsampling, True)
    x = x + weights[f"{name}.noise.weight"] * noise[..., None]
    return _activate(x + weights[f"{name}.activate.bias"])


def _to_rgb(weights: Weights, name: str, x: Array, latent: Array, coarse: Array | None) -> Array:
    """Image of the features, added to the image of the coarser size."""
    image = _modulated_conv(weights, f"{name}.conv", x, latent, False, False) + weights[f"{name}.bias"].reshape(-1)
    return image if coarse is None else image + _smooth(coarse, 2, 2, 2)


def synthesis(weights: Weights, latents: Float[Array, "n d"], noises: Sequence[Array]) -> Float[Array, "h w c"]:
    """Image of latents, in about [-1, 1].

    Args:
        weights: of the generator.
        latents: w of `layers(weights)` layers.
        noises: maps of `noise_shapes(weights)`.
    """
    x = jnp.transpose(jnp.asarray(weights["input.input"])[0], (1, 2, 0))
    x = _styled_layer(weights, "conv1", x, latents[0], noises[0], False)
    image = _to_rgb(weights, "to_rgb1", x, latents[1], None)
    for i in range(0, len(latents) - 2, 2):
        x = _styled_layer(weights, f"convs.{i}", x, latents[i + 1], noises[i + 1], True)
        x = _styled_layer(weights, f"convs.{i + 1}", x, latents[i + 2], noises[i + 2], False)
        image = _to_rgb(weights, f"to_rgbs.{i // 2}", x, latents[i + 3], image)
    return image
