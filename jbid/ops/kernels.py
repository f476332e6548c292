"""jbid.ops.kernels."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import NDArray


def support(kernel: NDArray) -> tuple[slice, slice]:
    """The rows and columns between the first and the last that are not zero."""
    rows, columns = (np.flatnonzero(kernel.any(axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def place_kernel(kernel: NDArray, size: int | tuple[int, int]) -> NDArray[np.float32]:
    """The kernel in a rectangle of `size`, its support in the middle; what does not fit is cut off. Sum one."""
    out = crop_around(kernel, support(kernel), size)
    return out / out.sum()


def crop_around(values: NDArray, around: Sequence[slice], size: int | tuple[int, int]) -> NDArray[np.float32]:
    """A rectangle of `size` of an array, with the rows and columns `around` in its middle; zero beyond the array."""
    sides = (size, size) if isinstance(size, int) else size
    out = np.pad(np.asarray(values, np.float32), [(side, side) for side in sides])
    for axis, (side, part) in enumerate(zip(sides, around)):
        spare = side - (part.stop - part.start)
        first = part.start - (spare // 2 if spare >= 0 else -(-spare // 2))
        out = out.take(range(side + first, 2 * side + first), axis)
    return out


def shift_kernel(kernel: Float[Array, "kh kw"], down: Array, right: Array) -> Float[Array, "kh kw"]:
    """The kernel moved by whole pixels, zeros where it was; what leaves its rectangle is lost."""
    at = [jnp.arange(n) - move for n, move in zip(kernel.shape, (down, right))]
    inside = [(i >= 0) & (i < n) for i, n in zip(at, kernel.shape)]
    rows, columns = (jnp.clip(i, 0, n - 1) for i, n in zip(at, kernel.shape))
    return jnp.where(inside[0][:, None] & inside[1], kernel[rows[:, None], columns], 0)


def normalize_kernel(kernel: Float[Array, "kh kw"], threshold: float = 0.0) -> Float[Array, "kh kw"]:
    """Values below zero or below `threshold` times the maximum removed, sum one."""
    kernel = jnp.where(kernel >= threshold * kernel.max(), jnp.maximum(kernel, 0), 0)
    return kernel / kernel.sum()


def delta_kernel(shape: Sequence[int]) -> Float[Array, "kh kw"]:
    """The kernel that does not blur: one at the center."""
    return jnp.zeros(tuple(shape)).at[(shape[0] - 1) // 2, (shape[1] - 1) // 2].set(1)


def average_kernels(kernels: Sequence[NDArray], onto: NDArray) -> NDArray[np.float32]:
    """The mean of kernels (s, s) after the shift by whole pixels that correlates each best with `onto`; sum one."""
    total = np.zeros(onto.shape)
    for kernel in kernels:
        total += shift_array(kernel, best_shift(kernel, onto), onto.shape) / kernel.sum()
    return (total / total.sum()).astype(np.float32)


def best_shift(kernel: NDArray, onto: NDArray) -> tuple[int, int]:
    """Pixels down and right by which a kernel is to be moved to correlate best with another one."""
    correlation = scipy.signal.correlate(onto, kernel, "full", "fft")
    dy, dx = np.unravel_index(np.argmax(correlation), correlation.shape)
    return int(dy) - kernel.shape[0] + 1, int(dx) - kernel.shape[1] + 1


def shift_array(values: NDArray, shift: tuple[int, int], shape: tuple[int, ...]) -> NDArray:
    """An array moved by whole pixels down and right, in an array of `shape`; zero where nothing came from."""
    out = np.zeros(shape, values.dtype)
    to = tuple(slice(max(0, s), max(0, min(n, m + s))) for s, n, m in zip(shift, shape, values.shape))
    out[to] = values[tuple(slice(part.start - s, part.stop - s) for part, s in zip(to, shift))]
    return out


def connected_components(mask: Bool[Array, "s s"]) -> Int[Array, "s s"]:
    """A number for each 8-connected part of the mask, the same for all its pixels; 0 outside."""
    labels = jnp.where(mask, jnp.arange(1, mask.size + 1).reshape(mask.shape), 0)

    def spread(carry):
        labels, _ = carry
        wider = jax.lax.reduce_window(labels, 0, jax.lax.max, (3, 3), (1, 1), "SAME")
        wider = jnp.where(mask, wider, 0)
        return wider, jnp.any(wider != labels)

    return jax.lax.while_loop(lambda carry: carry[1], spread, (labels, jnp.array(True)))[0]


def prune_kernel(
    kernel: Float[Array, "kh kw"], size: Int[Array, ""] | None = None, *, threshold: float = 0.05, part: float = 0.1
) -> Float[Array, "kh kw"]:
    """The kernel without what is noise, with sum one.

    Removed are values beyond the central square of `size`, below `threshold` times the largest (negative ones too),
    and 8-connected parts with less than the share `part` of the sum. A kernel with nothing left becomes a delta.
    """
    rows, columns = (jnp.abs(jnp.arange(n) - n // 2) for n in kernel.shape)
    inside = True if size is None else (rows[:, None] <= size // 2) & (columns <= size // 2)
    kernel = jnp.where(inside & (kernel > threshold * jnp.max(jnp.where(inside, kernel, 0))), kernel, 0)
    labels = connected_components(kernel > 0)
    mass = jax.ops.segment_sum(kernel.ravel(), labels.ravel(), kernel.size + 1)
    kernel = jnp.where(mass[labels] > part * kernel.sum(), kernel, 0)
    total = kernel.sum()
    delta = delta_kernel(kernel.shape)
    return jnp.where(total > 0, kernel / jnp.where(total > 0, total, 1), delta)


def center_kernel(kernel: Float[Array, "s s"]) -> Float[Array, "s s"]:
    """The kernel moved by whole pixels so that its center of mass is in the middle; what leaves the square is lost."""
    s = kernel.shape[0]
    at = jnp.arange(s)
    row, column = (jnp.round(jnp.sum(kernel.sum(axis) * at) / kernel.sum()).astype(int) for axis in (1, 0))
    return shift_kernel(kernel, s // 2 - row, s // 2 - column)


def trim_zeros(kernel: NDArray) -> NDArray:
    """The kernel without the frame of zeros around it, its center where it was; one with even sides as it is."""
    if kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
        return kernel
    part = []
    for axis in (1, 0):
        middle = kernel.shape[1 - axis] // 2
        reach = int(np.abs(np.flatnonzero(kernel.any(axis)) - middle).max(initial=0))
        part.append(slice(middle - reach, middle + reach + 1))
    return kernel[tuple(part)]
