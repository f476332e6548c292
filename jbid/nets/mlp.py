"""Fully connected kernel network with PyTorch's default initialization."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbid.nets.layers import torch_uniform


class Linear(nn.Module):
    """Linear layer x W + b with W, b ~ U(-1/sqrt(n), 1/sqrt(n)) for inputs of length n."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " features"]:
        init = torch_uniform(x.shape[-1])
        weight = self.param("weight", init, (x.shape[-1], self.features))
        return x @ weight + self.param("bias", init, (self.features,))


class KernelMLP(nn.Module):
    """Kernel on the simplex: softmax of a fully connected network with ReLU6 between its layers.

    SelfDeblur's G_k has one hidden layer of 1000 units. Its ablations have none, or a second one of unpublished width.

    Attributes:
        shape: rows and columns of the kernel.
        hidden: units of each hidden layer.
    """

    shape: tuple[int, int]
    hidden: Sequence[int] = (1000,)

    @nn.compact
    def __call__(self, z: Float[Array, " n"]) -> Float[Array, "kh kw"]:
        for i, width in enumerate(self.hidden):
            z = jnp.clip(Linear(width, name=f"hidden{i}")(z), 0, 6)
        z = Linear(self.shape[0] * self.shape[1], name="out")(z)
        return jax.nn.softmax(z).reshape(self.shape)
