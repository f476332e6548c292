"""Sinusoidal representation network: an image as a function of its coordinates."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Siren(nn.Module):
    """Values k(p) = sigmoid(w^T s_L + b) with s_l = sin(omega_l (W_l s_{l-1} + b_l)) and s_0 = p.

    Coordinates p (..., 2) give values (...) in (0, 1). The initialization is that of Sitzmann et al. 2020 (section
    3.2): W_1 ~ U(-1/n, 1/n) and W_l ~ U(-sqrt(6/n) / omega, sqrt(6/n) / omega) for n inputs, and PyTorch's for the
    biases. Only `mean` is an addition: with the inverse of the number of pixels, an untrained kernel sums to about one.

    Attributes:
        width: units of each layer.
        layers: number of sine layers.
        omega: omega_l of all layers but the first.
        first_omega: omega_1.
        mean: sigmoid of the initial b.
    """

    width: int = 256
    layers: int = 2
    omega: float = 30.0
    first_omega: float = 30.0
    mean: float = 0.5

    @nn.compact
    def __call__(self, coordinates: Float[Array, "*grid 2"]) -> Float[Array, "*grid"]:
        def uniform(bound):
            return lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        s = coordinates
        for i in range(self.layers):
            n = s.shape[-1]
            weight = self.param(f"weight{i}", uniform(1 / n if i == 0 else self._bound(n)), (n, self.width))
            bias = self.param(f"bias{i}", uniform(1 / math.sqrt(n)), (self.width,))
            s = jnp.sin((self.omega if i else self.first_omega) * (s @ weight + bias))
        weight = self.param("weight", uniform(self._bound(self.width)), (self.width,))
        bias = self.param("bias", nn.initializers.constant(math.log(self.mean / (1 - self.mean))), ())
        return jax.nn.sigmoid(s @ weight + bias)

    def _bound(self, n: int) -> float:
        return math.sqrt(6 / n) / self.omega
