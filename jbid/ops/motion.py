"""Simulated motion-blur kernels: random trajectories, a shaken camera, a Gaussian process.

Each model is a pure function of a key and a size, for one kernel; many are made by `jax.vmap` over keys. All of them
give square kernels (size, size), size odd, not negative, with sum one, and the path's bounding box in the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from jbid.ops.kernels import extent, place_kernel


def _draw(path: Float[Array, "n 2"], weight: Float[Array, " n"], size: int, width: Array | None = None) -> Array:
    """Draw a path (pixels, from the center) on a grid; the `weight` of each instant is shared among pixels, sum one.

    Among the four nearest ones in bilinear shares, or by a Gaussian of standard deviation `width`. The sum over
    instants of products of a row's and a column's share is a matrix product, which is faster than scattering.
    """
    offset = jnp.arange(size) - (size - 1) / 2 - path[..., None]
    if width is None:
        share = jnp.maximum(0, 1 - jnp.abs(offset))
    else:
        share = jnp.exp(-jnp.square(offset / width) / 2)
    kernel = (share[:, 0] * weight[:, None]).T @ share[:, 1]
    return kernel / kernel.sum()


def _center(path: Float[Array, "n 2"], extent: Array | float | None = None) -> Array:
    """Path with its bounding box around zero; with `extent`, scaled so that the longer side has this length."""
    low, high = path.min(0), path.max(0)
    path = path - (low + high) / 2
    return path if extent is None else path * extent / jnp.maximum(jnp.max(high - low), 1e-6)


def _smooth_path(
    key: Array, times: Float[Array, " n"], frequency: Float[Array, "f d"], weight: Float[Array, "f d"]
) -> Array:
    """Sums of waves with random phases: (n, d) positions at `times`.

    Random Fourier features are smooth by construction, while the Cholesky factor of a covariance is ill-conditioned.
    """
    phase = jax.random.uniform(key, frequency.shape, maxval=2 * jnp.pi)
    return jnp.einsum("fd,nfd->nd", weight, jnp.cos(times[:, None, None] * frequency + phase))


def gaussian_process_kernel(
    key: Array, size: int, *, extent: float = 0.6, length: float = 0.3, samples: int = 512
) -> Float[Array, "size size"]:
    """Camera-shake kernel: the path of a smooth random motion.

    Both coordinates over the exposure time t in [0, 1] are independent Gaussian processes with covariance
    exp(-|t - s|^2 / (2 length^2)) (Schuler et al. 2016, section 4.1, with a squared-exponential covariance); the path
    is scaled so that its longer side spans `extent` of `size` pixels, and each of its `samples` equally long instants
    is shared among the four nearest pixels.
    """
    frequency_key, phase_key, weight_key = jax.random.split(key, 3)
    frequency = jax.random.normal(frequency_key, (64, 2)) / length
    weight = jax.random.normal(weight_key, (64, 2))
    path = _smooth_path(phase_key, jnp.linspace(0, 1, samples), frequency, weight)
    return _draw(_center(path, extent * (size - 1)), jnp.ones(samples), size)


CANVAS, PATH_LENGTH = 64, 60.0  # DeblurGAN's, pixels


def trajectory_kernel(
    key: Array, size: int, *, anxiety: float = 0.005, exposure: float = 1.0, samples: int = 2000
) -> Float[Array, "size size"]:
    """Random trajectory of Boracchi and Foi (2012, section II.B), with the settings of DeblurGAN.

    A particle moves `samples` steps of equal length, 60 pixels of a canvas of 64 in all. To its velocity v is added
    in each step a (s n - c x) times the step's length, with a the `anxiety`, n ~ N(0, I_2), s ~ U(0, 10) and c ~
    U(0, 0.7) for each kernel, and, with probability a U(0, 0.2), a sudden turn back of twice the velocity. The kernel
    is the first `exposure` of the path, scaled from the canvas to `size`.

    Differs from DeblurGAN's code: the path's bounding box is put in the middle (theirs is not centered), and every
    kernel has the whole path unless asked otherwise, where theirs gives four exposures. The anxiety is that of its
    point-spread functions; U(0, 0.1), which its trajectories have alone, winds most of them into a few pixels.
    """
    strength_key, angle_key, shake_key, turn_key = jax.random.split(key, 4)
    centripetal, shaky, shake = jax.random.uniform(strength_key, (3,)) * jnp.array([0.7, 0.2, 10.0])
    angle = jax.random.uniform(angle_key, maxval=2 * jnp.pi)
    length = PATH_LENGTH / (samples - 1)
    velocity = length * anxiety * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    shakes = jax.random.normal(shake_key, (samples - 1, 2))
    turns = jax.random.uniform(turn_key, (samples - 1, 2))

    def step(carry, draws):
        x, v = carry
        n, (chance, turn) = draws
        about = jnp.pi + turn - 0.5
        turned = jnp.stack(
            [jnp.cos(about) * v[0] - jnp.sin(about) * v[1], jnp.sin(about) * v[0] + jnp.cos(about) * v[1]]
        )
        jump = jnp.where(chance < shaky * anxiety, 2 * turned, 0.0)
        v = v + jump + anxiety * (shake * n - centripetal * x) * length
        v = v / jnp.maximum(jnp.linalg.norm(v), 1e-12) * length
        return (x + v, v), x + v

    _, path = jax.lax.scan(step, (jnp.zeros(2), velocity), (shakes, turns))
    path = path[: max(2, round(exposure * len(path)))]
    # the path fits the frame: it is at most 60 pixels long, and the canvas 64 wide
    return _draw(_center(path) * (size / CANVAS), jnp.ones(len(path)), size)


# ranges of camera_kernel; each kernel draws its own values
EXTENT = (0.2, 0.95)  # of the kernel's side
EXPOSURE = (0.3, 2.0)  # seconds
TREMOR = (0.4, 9.0)  # hertz, of the slowest and the fastest movement
SLOPE = (0.8, 1.6)  # how fast the amplitude falls with the frequency, as its power
WIDTH = (0.3, 0.8)  # pixels, standard deviation of the lens
DRIFT = 0.5  # standard deviation of the steady speed, beside movements of amplitude one at one hertz
GRAIN = 0.45  # standard deviation of the logarithm of the kernel's measured values


def camera_kernel(key: Array, size: int, *, samples: int = 400) -> Float[Array, "size size"]:
    """Kernel like those recorded from hand-held cameras (Levin et al. 2009; Lai et al. 2016, section 3).

    A smooth path in three dimensions, a steady drift and waves of 0.4 to 9 Hz whose amplitude falls with the
    frequency, is seen for 0.3 to 2 s and projected onto the image along a random direction; the directions in
    space move unequally, so that some paths are nearly straight. Equal times have equal weight, so the path is bright
    where the camera rested. It spans 0.2 to 0.95 of the side, is as wide as the lens is sharp (0.3 to 0.8 pixels),
    and its values scatter by 0.45 of themselves, as those that were measured do; what is under 0.03 of the largest is
    zero. The ranges were chosen for the statistics of Levin's and Lai's kernels (benchmarks/kernel_models.py).
    """
    keys = iter(jax.random.split(key, 12))

    def draw(low, high):
        return jax.random.uniform(next(keys), (), minval=low, maxval=high)

    times = jnp.linspace(0, 1, samples) * draw(*EXPOSURE)
    frequency = jnp.exp(jax.random.uniform(next(keys), (24, 3), minval=jnp.log(TREMOR[0]), maxval=jnp.log(TREMOR[1])))
    amplitude = jax.random.normal(next(keys), (24, 3)) * frequency ** -draw(*SLOPE)
    drift = jax.random.normal(next(keys), (3,)) * DRIFT
    path = times[:, None] * drift + _smooth_path(next(keys), times, 2 * jnp.pi * frequency, amplitude)
    path = path * jnp.array([1.0, 0.7, 0.4])
    view, _ = jnp.linalg.qr(jax.random.normal(next(keys), (3, 2)))
    path = _center(path @ view, draw(*EXTENT) * (size - 1) - 2)
    kernel = _draw(path, jnp.ones(samples), size, draw(*WIDTH))
    kernel = kernel * jnp.exp(GRAIN * jax.random.normal(next(keys), (size, size)))
    kernel = jnp.where(kernel < 0.03 * kernel.max(), 0, kernel)
    return kernel / kernel.sum()


KERNEL_MODELS: dict[str, Callable[..., Array]] = {
    "camera": camera_kernel,
    "trajectory": trajectory_kernel,
    "gaussian_process": gaussian_process_kernel,
}


def motion_kernels(key: Array, size: int, count: int, model: str = "camera") -> Float[Array, "count size size"]:
    """Simulate motion-blur kernels.

    Args:
        key: random key.
        size: odd side in pixels, at least 5.
        count: number of kernels.
        model: name in `KERNEL_MODELS`.

    Raises:
        ValueError: for an even or too small size, or another model.

    Example:
        >>> import jax
        >>> motion_kernels(jax.random.key(0), 21, 2).shape
        (2, 21, 21)
    """
    if size < 5 or size % 2 == 0:
        raise ValueError(f"`size` must be an odd number of at least 5, got {size}")
    if model not in KERNEL_MODELS:
        raise ValueError(f"`model` must be one of {', '.join(KERNEL_MODELS)}, got {model!r}")
    return jax.vmap(partial(KERNEL_MODELS[model], size=size))(jax.random.split(key, count))


def kernel_of_extent(size: float, seed: int) -> NDArray[np.float32]:
    """Camera-shake kernel of about an extent in pixels, at most 108: the nearest of sixteen, in a square of its own."""
    frame = next(n for n in (9, 15, 21, 31, 45, 61, 81, 121, 181) if n >= size / 0.6)
    kernels = np.asarray(motion_kernels(jax.random.key(seed), frame, 16))
    extents = [extent(kernel) for kernel in kernels]
    nearest = int(np.argmin(np.abs(np.array(extents) - size)))
    return place_kernel(kernels[nearest], extents[nearest] | 1)


def normalize_shares(shares: Mapping[str, float]) -> NDArray[np.float64]:
    """Divide shares of kernel models by their sum.

    Raises:
        ValueError: for shares that are negative or all zero, and for unknown models.
    """
    if unknown := set(shares) - set(KERNEL_MODELS):
        raise ValueError(f"`shares` must be of {', '.join(KERNEL_MODELS)}, got {', '.join(sorted(unknown))}")
    values = np.array(list(shares.values()), float)
    if not values.sum() > 0 or values.min() < 0:
        raise ValueError(f"`shares` must not be negative, and one of them positive, got {dict(shares)}")
    return values / values.sum()


def mixed_kernels(key: Array, size: int, count: int, shares: Mapping[str, float]) -> Float[Array, "count size size"]:
    """Simulate kernels of several models, in the proportion of `shares` and in random order.

    Raises:
        ValueError: as `normalize_shares` and `motion_kernels`.
    """
    order_key, *keys = jax.random.split(key, len(shares) + 1)
    bounds, so_far = [0], 0.0
    for share in normalize_shares(shares):
        so_far += share
        bounds.append(round(count * so_far))
    parts = [
        motion_kernels(k, size, stop - start, name)
        for k, name, start, stop in zip(keys, shares, bounds[:-1], bounds[1:])
        if stop > start
    ]
    return jax.random.permutation(order_key, jnp.concatenate(parts))
