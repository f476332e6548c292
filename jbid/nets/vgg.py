"""Features of VGG19 (Simonyan and Zisserman 2015) for a perceptual distance of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbid.nets.layers import max_pool2

BLOCKS = (2, 2, 4, 4, 1)  # convolutions of each block up to relu5_1

Layers = Sequence[tuple[Any, Any]]  # kernel (3, 3, in, out) and bias of each convolution


def vgg_features(layers: Layers, image: Float[Array, "h w c"]) -> list[Array]:
    """Feature maps relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1, the first of each block.

    Like the code of Tran et al. (CVPR 2021), this does not normalize by the mean and deviation of ImageNet.

    Args:
        layers: weights of the convolutions.
        image: values in [0, 1]; a gray image serves as all three channels.
    """
    x = jnp.broadcast_to(image, (*image.shape[:2], 3))
    remaining = iter(layers)
    features = []
    for block, count in enumerate(BLOCKS):
        x = max_pool2(x) if block else x
        for i in range(count):
            kernel, bias = next(remaining)
            y = jax.lax.conv_general_dilated(
                x[None], jnp.asarray(kernel), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = nn.relu(y[0] + bias)
            if i == 0:
                features.append(x)
    return features
