"""Sinusoidal representation networks: an image as a function of its coordinates."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Siren(nn.Module):
    """k(p) = sigmoid(w^T s_L + b), s_l = sin(omega_l (W_l s_{l-1} + b_l)), s_0 = p: coordinates (.., 2) -> values (..).

    Initialized as Sitzmann et al. 2020 do (section 3.2): W_1 ~ U(-1/n, 1/n), the others U(-sqrt(6/n) / omega, ..), n
    the number of inputs, biases as PyTorch's; omega_1 is `first_omega`, the others are `omega`. Only `mean` is ours:
    the sigmoid of the last bias is `mean` at first. With a mean of one over the number of pixels, an untrained kernel
    sums to about one, and not to half its pixels.
    """

    width: int = 256
    layers: int = 2  # with sine
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
