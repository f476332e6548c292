"""Features of VGG19 (Simonyan and Zisserman 2015) and the distance of images in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbid.nets.layers import max_pool2

BLOCKS = (2, 2, 4, 4, 1)  # convolutions up to relu5_1; the first one of each block gives a feature map

Layers = Sequence[tuple[Any, Any]]  # kernel (3, 3, in, out) and bias of each convolution


def vgg_features(layers: Layers, image: Float[Array, "h w c"]) -> list[Array]:
    """relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1 of an image in [0, 1], without ImageNet's mean and deviation.

    A gray image goes through all three channels, as the authors of `jbid.methods.explore` leave the range alone.
    """
    x = jnp.broadcast_to(image, (*image.shape[:2], 3))
    told, at = [], 0
    for block, count in enumerate(BLOCKS):
        x = max_pool2(x) if block else x
        for i in range(count):
            kernel, bias = layers[at]
            y = jax.lax.conv_general_dilated(
                x[None], jnp.asarray(kernel), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = nn.relu(y[0] + bias)
            at += 1
            if i == 0:
                told.append(x)
    return told
