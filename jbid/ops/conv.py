"""The blur of the model y = k * x + n: truncated convolution, its adjoint, and crops.

One convention holds throughout jbid: true convolution, restricted to the pixels that see the whole kernel. The
published codes correlate instead; their kernel files are rotated by 180 degrees when they are read, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import scipy.fft
from jaxtyping import Array, Float


def _check(image: Array, kernel: Array) -> None:
    if image.ndim != 3 or kernel.ndim != 2:
        raise ValueError(
            f"`image` must be (H, W, c) and `kernel` (kh, kw), got the shapes {image.shape} and {kernel.shape}"
        )
    if kernel.shape[0] > image.shape[0] or kernel.shape[1] > image.shape[1]:
        raise ValueError(f"`kernel` must not exceed the image of {image.shape[:2]} pixels, got {kernel.shape}")


def _transform(x: Array, shape: tuple[int, int]) -> Array:
    return jnp.fft.rfft2(x, shape, axes=(0, 1))


def fast_shape(h: int, w: int) -> tuple[int, int]:
    """Smallest shape of at least h x w whose Fourier transform is fast."""
    return scipy.fft.next_fast_len(h, real=True), scipy.fft.next_fast_len(w, real=True)


def blur(image: Float[Array, "H W c"], kernel: Float[Array, "kh kw"], *, method: str = "fft") -> Float[Array, "h w c"]:
    """Truncated convolution y[p] = sum_q k[q] x[p + K - 1 - q], K the kernel's size; h = H - kh + 1.

    Linear in both arguments.

    Args:
        image: latent image.
        kernel: blur kernel.
        method: "fft", the faster one from 3x3 kernels on (benchmarks/design_choices.py), or "direct".

    Raises:
        ValueError: for a kernel larger than the image, or arrays of other dimensions.

    Example:
        >>> import jax.numpy as jnp
        >>> blur(jnp.ones((32, 32, 3)), jnp.full((5, 5), 1 / 25)).shape
        (28, 28, 3)
    """
    _check(image, kernel)
    kh, kw = kernel.shape
    h, w = image.shape[0] - kh + 1, image.shape[1] - kw + 1
    if method == "direct":
        channels_first = jnp.moveaxis(image, -1, 0)[:, None]
        y = jax.lax.conv_general_dilated(channels_first, kernel[None, None, ::-1, ::-1], (1, 1), "VALID")
        return jnp.moveaxis(y[:, 0], 0, -1)
    # wrap-around reaches only the pixels that are cut off, so no padding beyond a fast shape is needed
    shape = fast_shape(*image.shape[:2])
    y = jnp.fft.irfft2(_transform(image, shape) * _transform(kernel, shape)[..., None], shape, axes=(0, 1))
    return y[kh - 1 : kh - 1 + h, kw - 1 : kw - 1 + w]


def blur_adjoint(blurred: Float[Array, "h w c"], kernel: Float[Array, "kh kw"]) -> Float[Array, "H W c"]:
    """Adjoint of `blur` in the image: x[p] = sum_q k[q] y[p - K + 1 + q], full correlation; H = h + kh - 1."""
    kh, kw = kernel.shape
    h, w = blurred.shape[0] + kh - 1, blurred.shape[1] + kw - 1
    shape = fast_shape(h, w)
    padded = jnp.pad(blurred, ((kh - 1, 0), (kw - 1, 0), (0, 0)))
    x = jnp.fft.irfft2(_transform(padded, shape) * jnp.conj(_transform(kernel, shape))[..., None], shape, axes=(0, 1))
    return x[:h, :w]


def crop_center(image: Float[Array, "H W c"], kernel_shape: Sequence[int]) -> Float[Array, "h w c"]:
    """Observed window of a latent image: the pixels under the center of the kernel."""
    kh, kw = kernel_shape
    top, left = (kh - 1) // 2, (kw - 1) // 2
    return image[top : image.shape[0] - (kh - 1 - top), left : image.shape[1] - (kw - 1 - left)]


def pad_edge(image: Float[Array, "h w c"], kernel_shape: Sequence[int]) -> Float[Array, "H W c"]:
    """Image of latent size from an observed one, with repeated edge pixels; `crop_center` undoes it."""
    kh, kw = kernel_shape
    top, left = (kh - 1) // 2, (kw - 1) // 2
    return jnp.pad(image, ((top, kh - 1 - top), (left, kw - 1 - left), (0, 0)), mode="edge")
