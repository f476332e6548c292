"""Photos blurred with simulated kernels, as different as those of cameras."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
import scipy.signal
from numpy.typing import NDArray

from jbid.data.text_lines import line
from jbid.io.images import image_size, read_image
from jbid.nets.text_lines import HEIGHT
from jbid.ops.camera import Degradation, degrade
from jbid.ops.color import luma
from jbid.ops.kernels import pad_to_odd_square, trim_zeros
from jbid.ops.motion import kernel_of_extent

LARGEST_PHOTO = 288  # pixels; longest side of a photo
NOISES = (0.0005, 0.03)  # standard deviations, log-uniform
JPEG = (0.2, 50)  # share of photos that are compressed, and the least quality
SMOOTH = 0.5  # share of photos that are made as smooth as those of a camera at full resolution, by a Gaussian of
SMOOTHED = (0.3, 2.0)  # pixels
WIDE = 0.5  # share of kernels that are made wider by a Gaussian, as a lens does, of
WIDTHS = (0.3, 1.5)  # pixels
# share of photos whose blur differs from one side to the other, as that of a camera which rolls: up to
VARIED = 0.4
TURNS, STRETCHES = (-0.03, 0.03), (0.98, 1.02)  # radians and factors
BRIGHT = 0.15  # share of photos brightened by up to
BRIGHTEST = 1.8
TEXT = 0.1  # share of photos in whose place text is rendered, in letters larger by a factor of
LETTERS = (0.6, 2.0)
INVERTED = 0.3  # share of texts that are bright on dark


class Blurred(NamedTuple):
    """A blurred photo.

    Attributes:
        sharp, blurred: (h, w) in [0, 1].
        noise: standard deviation of its noise.
    """

    sharp: NDArray[np.float32]
    blurred: NDArray[np.float32]
    noise: float


def perturb_kernel(kernel: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Kernel with errors like those of an estimate: noise around its support, some blur, small values lost.

    After Nan and Ji 2020, Deep Learning for Handling Kernel/Model Uncertainty in Image Deconvolution, section 4.
    """
    k = np.pad(kernel, 2)
    k = k + rng.uniform(0, 0.1) * k.max() * rng.standard_normal(k.shape) * scipy.ndimage.binary_dilation(k > 0)
    k = scipy.ndimage.gaussian_filter(np.maximum(k, 0), rng.uniform(0.2, 0.8))
    k[k < rng.uniform(0.005, 0.06) * k.max()] = 0
    return trim_zeros((k / k.sum()).astype(np.float32))


def draw_kernel(least: float, largest: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Simulated kernel of a random extent in pixels, log-uniform."""
    size = np.exp(rng.uniform(np.log(least), np.log(largest)))
    kernel = kernel_of_extent(size, int(rng.integers(2**31)))
    if rng.random() < WIDE:
        kernel = scipy.ndimage.gaussian_filter(np.pad(kernel, 5), rng.uniform(*WIDTHS))
        kernel = pad_to_odd_square(trim_zeros(np.where(kernel < 1e-3 * kernel.max(), 0, kernel)))
    return kernel / kernel.sum()


@functools.cache
def _least_side(path: Path) -> int:
    return min(image_size(path))


def _turned(kernel: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Kernel turned and stretched a little about its center, with sum one."""
    turn, stretch, middle = rng.uniform(*TURNS), rng.uniform(*STRETCHES), (kernel.shape[0] - 1) / 2
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) / stretch
    turned = scipy.ndimage.affine_transform(kernel, matrix, middle - matrix @ [middle, middle], order=1)
    return turned / turned.sum()


def _blur(photo: NDArray[np.float32], kernel: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Blurred photo; for a share `VARIED` of them a blend of two kernels across or down the image."""
    if rng.random() >= VARIED:
        return scipy.signal.fftconvolve(photo, kernel, "valid").astype(np.float32)
    first, second = (scipy.signal.fftconvolve(photo, _turned(kernel, rng), "valid") for _ in range(2))
    axis = int(rng.integers(2))
    ramp = np.expand_dims(np.linspace(0, 1, first.shape[axis]), 1 - axis)
    return (first + ramp * (second - first)).astype(np.float32)


def _page(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Square image of lines of text, of letters of one size."""
    factor = rng.uniform(*LETTERS)
    length = math.ceil(size / factor) + 1
    lines = [line(rng, length)[..., 0] for _ in range(math.ceil(length / HEIGHT))]
    page = scipy.ndimage.zoom(np.concatenate(lines), factor, order=1, mode="nearest")[:size, :size]
    return 1 - page if rng.random() < INVERTED else page


def blur_photo(files: Sequence[Path], kernel: NDArray[np.float32], rng: np.random.Generator, least: int) -> Blurred:
    """Random part of a random photo, blurred, of at least `least` pixels a side.

    Raises:
        ValueError: if no photo is large enough.
    """
    needed = least + kernel.shape[0] - 1
    fits = [path for path in files if _least_side(path) >= needed]
    if not fits:
        raise ValueError(f"no photo has {needed}x{needed} pixels; choose smaller kernels or a smaller `crop`")
    if rng.random() < TEXT:
        photo = _page(max(LARGEST_PHOTO, needed), rng)
    else:
        photo = luma(read_image(fits[int(rng.integers(len(fits)))]))[..., 0]
    photo = photo[:, ::-1] if rng.random() < 0.5 else photo
    if rng.random() < SMOOTH:
        photo = scipy.ndimage.gaussian_filter(photo, rng.uniform(*SMOOTHED))
    side = max(LARGEST_PHOTO, needed)
    top, left = (int(rng.integers(max(0, n - side) + 1)) for n in photo.shape)
    photo = photo[top : top + side, left : left + side]
    if rng.random() < BRIGHT:
        photo = photo * np.float32(rng.uniform(1, BRIGHTEST))
    noise = float(np.exp(rng.uniform(*np.log(NOISES))))
    blurred = _blur(photo, kernel, rng)
    noisy = jnp.asarray(blurred + noise * rng.standard_normal(blurred.shape), jnp.float32)
    bounds = Degradation(jpeg=JPEG[1] if rng.random() < JPEG[0] else 100, rounded=True)
    blurred = np.asarray(degrade(jax.random.key(int(rng.integers(2**31))), noisy, bounds))
    (h, w), half = blurred.shape, kernel.shape[0] // 2
    return Blurred(np.clip(photo[half : half + h, half : half + w], 0, 1).astype(np.float32), blurred, noise)
