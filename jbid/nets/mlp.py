"""Fully connected kernel networks with PyTorch's default initialization."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbid.nets.layers import torch_uniform


class Linear(nn.Module):
    """x W + b with W, b ~ U(-1/sqrt(n), 1/sqrt(n)), n the input's length."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " features"]:
        init = torch_uniform(x.shape[-1])
        weight = self.param("weight", init, (x.shape[-1], self.features))
        return x @ weight + self.param("bias", init, (self.features,))


class KernelMLP(nn.Module):
    """A kernel on the simplex: softmax of a fully connected network with ReLU6 between its layers.

    SelfDeblur's G_k has hidden (1000,); () is its ablation without a hidden layer, (1000, 1000) the one with an extra
    hidden layer (its width is not published).
    """

    shape: tuple[int, int]
    hidden: Sequence[int] = (1000,)

    @nn.compact
    def __call__(self, z: Float[Array, " n"]) -> Float[Array, "kh kw"]:
        for i, width in enumerate(self.hidden):
            z = jnp.clip(Linear(width, name=f"hidden{i}")(z), 0, 6)
        z = Linear(self.shape[0] * self.shape[1], name="out")(z)
        return jax.nn.softmax(z).reshape(self.shape)
