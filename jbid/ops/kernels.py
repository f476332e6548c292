"""Blur kernels as arrays: normalize, place in a frame, shift, align, prune.

Functions on JAX arrays are pure and can be compiled; those on NumPy arrays run on the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
import scipy.signal
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from jbid.ops.namespace import AnyArray, is_host, namespace


def support(kernel: NDArray) -> tuple[slice, slice]:
    """Rows and columns between the first and the last nonzero value."""
    rows, columns = (np.flatnonzero(kernel.any(axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def extent(kernel: NDArray) -> int:
    """Longer side of the support of a kernel."""
    return max(part.stop - part.start for part in support(kernel))


def place_kernel(kernel: NDArray, size: int | tuple[int, int]) -> NDArray[np.float32]:
    """Kernel in a frame of `size`, with its support in the center and sum one; values beyond the frame are cut off."""
    out = crop_around(kernel, support(kernel), size)
    return out / out.sum()


def crop_around(values: NDArray, center: Sequence[slice], size: int | tuple[int, int]) -> NDArray[np.float32]:
    """Frame of `size` of an array, with the rows and columns `center` in its middle; zero beyond the array."""
    sides = (size, size) if isinstance(size, int) else size
    out = np.pad(np.asarray(values, np.float32), [(side, side) for side in sides])
    for axis, (side, part) in enumerate(zip(sides, center)):
        spare = side - (part.stop - part.start)
        first = part.start - (spare // 2 if spare >= 0 else -(-spare // 2))
        out = out.take(range(side + first, 2 * side + first), axis)
    return out


def pad_to_odd_square(kernel: NDArray) -> NDArray[np.float32]:
    """Kernel in the smallest square of odd side that holds it, with zeros around it."""
    side = max(kernel.shape) | 1
    rows, columns = side - kernel.shape[0], side - kernel.shape[1]
    return np.pad(kernel, ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)))


def trim_zeros(kernel: NDArray) -> NDArray:
    """Kernel without the border of zeros, around the same center; a kernel with an even side is returned as it is."""
    if kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
        return kernel
    parts = []
    for axis in (1, 0):
        middle = kernel.shape[1 - axis] // 2
        reach = int(np.abs(np.flatnonzero(kernel.any(axis)) - middle).max(initial=0))
        parts.append(slice(middle - reach, middle + reach + 1))
    return kernel[tuple(parts)]


def normalize_kernel(kernel: Float[AnyArray, "kh kw"], threshold: float = 0.0) -> Float[AnyArray, "kh kw"]:
    """Kernel with sum one, without negative values and those below `threshold` times the maximum."""
    xp = namespace(kernel)
    kernel = xp.where(kernel >= threshold * kernel.max(), xp.maximum(kernel, 0), 0)
    return kernel / kernel.sum()


def delta_kernel(shape: Sequence[int], xp: Any = jnp) -> Float[AnyArray, "kh kw"]:
    """Kernel that does not blur: one at the center; an array of `xp`, `jax.numpy` or `numpy`."""
    rows, columns = (xp.arange(n) == (n - 1) // 2 for n in shape)
    return (rows[:, None] & columns).astype(float)


def gaussian_kernel(sigma: float) -> NDArray[np.float32]:
    """Gaussian of standard deviation `sigma` pixels in a square that holds three of them on each side; sum one."""
    reach = math.ceil(3 * sigma)
    profile = np.exp(-((np.arange(-reach, reach + 1) / sigma) ** 2) / 2)
    kernel = np.outer(profile, profile)
    return (kernel / kernel.sum()).astype(np.float32)


def disc_kernel(radius: float) -> NDArray[np.float32]:
    """Uniform disc of a radius in pixels, the blur of a lens out of focus, in the square that holds it; sum one."""
    side, parts = 2 * math.ceil(radius) + 1, 8
    position = (np.arange(side * parts) + 0.5) / parts - side / 2
    is_inside = position[:, None] ** 2 + position**2 <= radius**2
    kernel = is_inside.reshape(side, parts, side, parts).mean((1, 3))
    return (kernel / kernel.sum()).astype(np.float32)


def shift_kernel(
    kernel: Float[AnyArray, "kh kw"], down: int | np.integer | AnyArray, right: int | np.integer | AnyArray
) -> Float[AnyArray, "kh kw"]:
    """Kernel shifted by whole pixels; zeros come in, and values that leave the frame are lost."""
    xp = namespace(kernel)
    sources = [xp.arange(n) - move for n, move in zip(kernel.shape, (down, right))]
    is_inside = [(i >= 0) & (i < n) for i, n in zip(sources, kernel.shape)]
    rows, columns = (xp.clip(i, 0, n - 1) for i, n in zip(sources, kernel.shape))
    return xp.where(is_inside[0][:, None] & is_inside[1], kernel[rows[:, None], columns], 0)


def shift_array(values: NDArray, shift: tuple[int, int], shape: tuple[int, ...]) -> NDArray:
    """Array shifted down and right by whole pixels, in an array of `shape`; zero elsewhere."""
    out = np.zeros(shape, values.dtype)
    target = tuple(slice(max(0, s), max(0, min(n, m + s))) for s, n, m in zip(shift, shape, values.shape))
    out[target] = values[tuple(slice(part.start - s, part.stop - s) for part, s in zip(target, shift))]
    return out


def best_shift(kernel: NDArray, reference: NDArray) -> tuple[int, int]:
    """Shift down and right, in whole pixels, that maximizes the correlation of a kernel with a reference."""
    correlation = scipy.signal.correlate(reference, kernel, "full", "fft")
    dy, dx = np.unravel_index(np.argmax(correlation), correlation.shape)
    return int(dy) - kernel.shape[0] + 1, int(dx) - kernel.shape[1] + 1


def average_kernels(kernels: Sequence[NDArray], reference: NDArray) -> NDArray[np.float32]:
    """Average of kernels (s, s), each shifted to correlate best with the reference; sum one."""
    total = np.zeros(reference.shape)
    for kernel in kernels:
        total += shift_array(kernel, best_shift(kernel, reference), reference.shape) / kernel.sum()
    return (total / total.sum()).astype(np.float32)


def center_kernel(kernel: Float[AnyArray, "s s"]) -> Float[AnyArray, "s s"]:
    """Kernel shifted by whole pixels, so that its center of mass is in the middle."""
    xp, s = namespace(kernel), kernel.shape[0]
    index = xp.arange(s)
    row, column = (xp.round((kernel.sum(axis) * index).sum() / kernel.sum()).astype(int) for axis in (1, 0))
    return shift_kernel(kernel, s // 2 - row, s // 2 - column)


def connected_components(mask: Bool[AnyArray, "h w"]) -> Int[AnyArray, "h w"]:
    """Label of the 8-connected component of each pixel of the mask; 0 outside."""
    if is_host(mask):
        return scipy.ndimage.label(mask, np.ones((3, 3)))[0]
    labels = jnp.where(mask, jnp.arange(1, mask.size + 1).reshape(mask.shape), 0)

    def spread(carry):
        labels, _ = carry
        wider = jax.lax.reduce_window(labels, 0, jax.lax.max, (3, 3), (1, 1), "SAME")
        wider = jnp.where(mask, wider, 0)
        return wider, jnp.any(wider != labels)

    return jax.lax.while_loop(lambda carry: carry[1], spread, (labels, jnp.array(True)))[0]


def prune_kernel(
    kernel: Float[AnyArray, "kh kw"],
    size: int | np.integer | Int[AnyArray, ""] | None = None,
    *,
    threshold: float = 0.05,
    part: float = 0.1,
) -> Float[AnyArray, "kh kw"]:
    """Remove noise from a kernel; the result has sum one, and is a delta if nothing remains.

    Args:
        kernel: may have negative values, which are removed.
        size: side of the central square outside of which values are removed; None: everywhere kept.
        threshold: values below this share of the maximum are removed.
        part: 8-connected components with less than this share of the sum are removed.
    """
    xp = namespace(kernel)
    rows, columns = (xp.abs(xp.arange(n) - n // 2) for n in kernel.shape)
    is_inside = True if size is None else (rows[:, None] <= size // 2) & (columns <= size // 2)
    kernel = xp.where(is_inside & (kernel > threshold * xp.max(xp.where(is_inside, kernel, 0))), kernel, 0)
    labels = connected_components(kernel > 0)
    mass: AnyArray
    if is_host(kernel):
        mass = np.bincount(labels.ravel(), kernel.ravel())
    else:
        mass = jax.ops.segment_sum(kernel.ravel(), labels.ravel(), kernel.size + 1)
    kernel = xp.where(mass[labels] > part * kernel.sum(), kernel, 0)
    total = kernel.sum()
    delta = delta_kernel(kernel.shape, xp).astype(kernel.dtype)
    return xp.where(total > 0, kernel / xp.where(total > 0, total, 1), delta)
