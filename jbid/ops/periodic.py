"""Operators of the periodic image: differences, spectra, surroundings, changes of scale.

All of them take arrays of NumPy or JAX and return the same kind; axes before the last two number images side by side.
On NumPy arrays they run on the host at once, on JAX arrays they can be compiled and batched: a coarse-to-fine search
has many sizes, each of which costs the compiler seconds, so on CPU the host is faster (docs/development-notes.md).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float

from jbid.ops.namespace import AnyArray, fft, is_host, namespace

Image = Float[AnyArray, "*n H W"]
Spectrum = Complex[AnyArray, "*n H W_"]


def rfft2(x: Image) -> Spectrum:
    """Spectrum of a real image."""
    return fft(x).rfft2(x)


def irfft2(spectrum: Spectrum, shape: tuple[int, ...]) -> Image:
    """Real image of `shape` with this spectrum."""
    return fft(spectrum).irfft2(spectrum, shape)


# pairs of arrays, because stacking them doubles the time on CPU
def forward_differences(x: Image) -> tuple[Image, Image]:
    """Differences to the next pixel across and down."""
    if is_host(x):
        across, down = np.empty_like(x), np.empty_like(x)
        np.subtract(x[..., 1:], x[..., :-1], out=across[..., :-1])
        np.subtract(x[..., 0], x[..., -1], out=across[..., -1])
        np.subtract(x[..., 1:, :], x[..., :-1, :], out=down[..., :-1, :])
        np.subtract(x[..., 0, :], x[..., -1, :], out=down[..., -1, :])
        return across, down
    return jnp.roll(x, -1, -1) - x, jnp.roll(x, -1, -2) - x


def adjoint_differences(across: Image, down: Image) -> Image:
    """Adjoint of `forward_differences`."""
    if is_host(across):
        out = -across
        out -= down
        out[..., 1:] += across[..., :-1]
        out[..., 0] += across[..., -1]
        out[..., 1:, :] += down[..., :-1, :]
        out[..., 0, :] += down[..., -1, :]
        return out
    return jnp.roll(across, 1, -1) - across + jnp.roll(down, 1, -2) - down


def laplacian_spectrum(x: Image) -> Float[AnyArray, "H W_"]:
    """|spectrum of the differences|^2, summed over both directions, for images like `x`."""
    xp, (h, w) = namespace(x), x.shape[-2:]
    rows, columns = (2 - 2 * xp.cos(2 * xp.pi * xp.arange(n) / m) for n, m in ((h, h), (w // 2 + 1, w)))
    return (rows[:, None] + columns).astype(x.dtype)


def transfer_function(kernel: Float[AnyArray, "*n s s"], shape: tuple[int, ...]) -> Spectrum:
    """Spectrum of the periodic convolution with a kernel whose center is the origin."""
    xp, s = namespace(kernel), kernel.shape[-1]
    padding = [(0, 0)] * (kernel.ndim - 2) + [(0, shape[0] - s), (0, shape[1] - s)]
    return rfft2(xp.roll(xp.pad(kernel, padding), (-(s // 2), -(s // 2)), (-2, -1)))


def divide(spectrum: Spectrum, divisor: Float[AnyArray, "*n H W_"]) -> Spectrum:
    """A spectrum divided by real numbers."""
    if not is_host(spectrum) or spectrum.dtype != np.complex64:
        return spectrum / divisor
    # NumPy would make the divisor complex
    return (spectrum.view(np.float32) / np.repeat(divisor, 2, -1)).view(np.complex64)


def extend_periodically(image: Float[AnyArray, "h w"], shape: tuple[int, int]) -> Image:
    """Periodic image of `shape` with the image in its upper left corner; the rest connects its borders smoothly."""
    xp = namespace(image)

    def extend(x, length):
        t = xp.arange(1, length + 1, dtype=x.dtype)[:, None] / (length + 1)
        t = t * t * (3 - 2 * t)
        return xp.concatenate([x, x[-1:] * (1 - t) + x[:1] * t])

    rows = extend(image, shape[0] - image.shape[0])
    return extend(rows.T, shape[1] - image.shape[1]).T


def put_inside(inner: Float[AnyArray, "*m h w"], outer: Image) -> Image:
    """`outer` with `inner` in its upper left corner."""
    h, w = inner.shape[-2:]
    if is_host(outer):
        out = outer.copy()
        out[..., :h, :w] = inner
        return out
    return outer.at[..., :h, :w].set(inner)


def _resampling(old: int, new: int, scale: float) -> np.ndarray:
    """Matrix (new, old) of linear interpolation about the middle, as `jax.image` has it; zero beyond the old pixels."""
    positions = ((np.arange(new) - (new - 1) / 2) / scale + (old - 1) / 2)[:, None]
    weights = np.maximum(0, 1 - np.abs(np.arange(old) - positions) * min(1.0, scale))
    total = weights.sum(1, keepdims=True)
    is_inside = (positions >= -0.5) & (positions <= old - 0.5)
    return np.where(is_inside, weights / np.where(total > 0, total, 1), 0).astype(np.float32)


def resize(image: Float[AnyArray, "h w"], shape: tuple[int, int]) -> Float[AnyArray, "H W"]:
    """Image in another size: linear interpolation, with averaging where it becomes smaller."""
    if not is_host(image):
        return jax.image.resize(image, shape, "linear", antialias=True)
    rows, columns = (_resampling(old, new, new / old) for old, new in zip(image.shape, shape))
    return rows @ image @ columns.T


def enlarge(kernel: Float[AnyArray, "*n s s"], side: int, scale: float) -> Float[AnyArray, "*n side side"]:
    """Kernel `scale` times as large, in a square of `side` about the same middle; zero beyond."""
    if not is_host(kernel):
        # the center of the old square stays at the center of the new one
        scales = jnp.full(2, scale)
        shift = side / 2 - scales * kernel.shape[-1] / 2
        shape, axes = (*kernel.shape[:-2], side, side), (kernel.ndim - 2, kernel.ndim - 1)
        return jax.image.scale_and_translate(kernel, shape, axes, scales, shift, "linear", antialias=False)
    factor = _resampling(kernel.shape[-1], side, scale)
    return factor @ kernel @ factor.T
