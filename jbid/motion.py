"""Simulated motion-blur kernels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def gaussian_process_kernel(
    key: Array, size: int, *, extent: float = 0.6, length: float = 0.3, samples: int = 512
) -> Float[Array, "size size"]:
    """A camera-shake kernel: the path of a smooth random motion, centred, with sum one.

    Both coordinates over the exposure time t in [0, 1] are independent Gaussian processes with covariance
    exp(-|t - s|^2 / (2 length^2)) (Schuler et al. 2016, section 4.1, with a squared-exponential covariance); the path
    is scaled so that its longer side spans `extent` of `size` pixels, and each of its `samples` equally long instants
    is shared among the four nearest pixels.
    """
    t = jnp.linspace(0, 1, samples)
    # random Fourier features of the covariance: smooth by construction, and no ill-conditioned Cholesky factor
    for_frequency, for_phase, for_weight = jax.random.split(key, 3)
    frequency = jax.random.normal(for_frequency, (64, 2)) / length
    phase = jax.random.uniform(for_phase, (64, 2), maxval=2 * jnp.pi)
    weight = jax.random.normal(for_weight, (64, 2))
    path = jnp.einsum("fc,sfc->sc", weight, jnp.cos(t[:, None, None] * frequency + phase))
    low, high = path.min(0), path.max(0)
    path = (path - (low + high) / 2) / jnp.maximum(jnp.max(high - low), 1e-6) * extent * (size - 1) + (size - 1) / 2
    corner = jnp.floor(path).astype(int)
    part = path - corner
    kernel = jnp.zeros((size, size))
    for dy in (0, 1):
        for dx in (0, 1):
            share = jnp.abs(1 - dy - part[:, 0]) * jnp.abs(1 - dx - part[:, 1])
            kernel = kernel.at[corner[:, 0] + dy, corner[:, 1] + dx].add(share, mode="drop")
    return kernel / kernel.sum()
