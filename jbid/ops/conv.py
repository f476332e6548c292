"""The blur of the model y = k * x + n: truncated convolution, its adjoint, and crops.

One convention holds throughout jbid: true convolution, restricted to the pixels that see the whole kernel. The
published codes correlate instead; their kernel files are rotated by 180 degrees when they are read, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Float

from jbid.ops.namespace import AnyArray, fft, is_host, namespace


def _check(image: AnyArray, kernel: AnyArray) -> None:
    if image.ndim != 3 or kernel.ndim != 2:
        raise ValueError(
            f"`image` must be (H, W, c) and `kernel` (kh, kw), got the shapes {image.shape} and {kernel.shape}"
        )
    if kernel.shape[0] > image.shape[0] or kernel.shape[1] > image.shape[1]:
        raise ValueError(f"`kernel` must not exceed the image of {image.shape[:2]} pixels, got {kernel.shape}")


def fast_shape(h: int, w: int) -> tuple[int, int]:
    """Smallest shape of at least h x w whose Fourier transform is fast."""
    return scipy.fft.next_fast_len(h, real=True), scipy.fft.next_fast_len(w, real=True)


def _transform(x: AnyArray, shape: tuple[int, int]) -> AnyArray:
    return fft(x).rfft2(x, shape, axes=(0, 1))


def _inverse(spectrum: AnyArray, shape: tuple[int, int]) -> AnyArray:
    return fft(spectrum).irfft2(spectrum, shape, axes=(0, 1))


def _pad_before(x: Float[AnyArray, "h w c"], rows: int, columns: int) -> Float[AnyArray, "H W c"]:
    if not is_host(x):
        return jnp.pad(x, ((rows, 0), (columns, 0), (0, 0)))
    out = np.zeros((x.shape[0] + rows, x.shape[1] + columns, x.shape[2]), x.dtype)  # NumPy's pad is slow
    out[rows:, columns:] = x
    return out


def blur_operators(
    kernel: Float[AnyArray, "kh kw"], shape: Sequence[int]
) -> tuple[Callable[[AnyArray], AnyArray], Callable[[AnyArray], AnyArray]]:
    """`blur` and `blur_adjoint` with one kernel, for latent images of `shape` (H, W), c channels each.

    The kernel is transformed once, which pays where both are applied many times.
    """
    kh, kw = kernel.shape
    h, w = shape[0] - kh + 1, shape[1] - kw + 1
    # wrap-around reaches only the pixels that are cut off, so no padding beyond a fast shape is needed
    padded = fast_shape(shape[0], shape[1])
    transfer = _transform(kernel, padded)[..., None]
    conjugate = transfer.conj()

    def forward(image):
        spectrum = _transform(image, padded)
        spectrum *= transfer
        return _inverse(spectrum, padded)[kh - 1 : kh - 1 + h, kw - 1 : kw - 1 + w]

    def adjoint(blurred):
        spectrum = _transform(_pad_before(blurred, kh - 1, kw - 1), padded)
        spectrum *= conjugate
        return _inverse(spectrum, padded)[: h + kh - 1, : w + kw - 1]

    return forward, adjoint


def fit_operators(
    image: Float[AnyArray, "H W c"], kernel_shape: tuple[int, int]
) -> tuple[Callable[[AnyArray], AnyArray], Callable[[AnyArray], AnyArray]]:
    """`blur` of one image as a function of the kernel (kh, kw), and its adjoint in the kernel."""
    kh, kw = kernel_shape
    h, w = image.shape[0] - kh + 1, image.shape[1] - kw + 1
    padded = fast_shape(image.shape[0], image.shape[1])
    spectrum = _transform(image, padded)
    conjugate = spectrum.conj()

    def forward(kernel):
        transfer = _transform(kernel, padded)[..., None]
        return _inverse(spectrum * transfer, padded)[kh - 1 : kh - 1 + h, kw - 1 : kw - 1 + w]

    def adjoint(blurred):
        residual = _transform(_pad_before(blurred, kh - 1, kw - 1), padded)
        return _inverse((residual * conjugate).sum(-1), padded)[:kh, :kw]

    return forward, adjoint


def blur(
    image: Float[AnyArray, "H W c"], kernel: Float[AnyArray, "kh kw"], *, method: str = "fft"
) -> Float[AnyArray, "h w c"]:
    """Truncated convolution y[p] = sum_q k[q] x[p + K - 1 - q], K the kernel's size; h = H - kh + 1.

    Linear in both arguments.

    Args:
        image: latent image.
        kernel: blur kernel.
        method: "fft", the faster one from 3x3 kernels on (benchmarks/design_choices.py), or "direct", for JAX arrays.

    Raises:
        ValueError: for a kernel larger than the image, or arrays of other dimensions.

    Example:
        >>> import jax.numpy as jnp
        >>> blur(jnp.ones((32, 32, 3)), jnp.full((5, 5), 1 / 25)).shape
        (28, 28, 3)
    """
    _check(image, kernel)
    if method == "direct":
        channels_first = jnp.moveaxis(image, -1, 0)[:, None]
        y = jax.lax.conv_general_dilated(channels_first, kernel[None, None, ::-1, ::-1], (1, 1), "VALID")
        return jnp.moveaxis(y[:, 0], 0, -1)
    return blur_operators(kernel, image.shape)[0](image)


def blur_adjoint(blurred: Float[AnyArray, "h w c"], kernel: Float[AnyArray, "kh kw"]) -> Float[AnyArray, "H W c"]:
    """Adjoint of `blur` in the image: x[p] = sum_q k[q] y[p - K + 1 + q], full correlation; H = h + kh - 1."""
    shape = [n + side - 1 for n, side in zip(blurred.shape, kernel.shape)]
    return blur_operators(kernel, shape)[1](blurred)


def crop_center(image: Float[AnyArray, "H W c"], kernel_shape: Sequence[int]) -> Float[AnyArray, "h w c"]:
    """Observed window of a latent image: the pixels under the center of the kernel."""
    kh, kw = kernel_shape
    top, left = (kh - 1) // 2, (kw - 1) // 2
    return image[top : image.shape[0] - (kh - 1 - top), left : image.shape[1] - (kw - 1 - left)]


def pad_edge(image: Float[AnyArray, "h w c"], kernel_shape: Sequence[int]) -> Float[AnyArray, "H W c"]:
    """Image of latent size from an observed one, with repeated edge pixels; `crop_center` undoes it."""
    kh, kw = kernel_shape
    top, left = (kh - 1) // 2, (kw - 1) // 2
    padding = ((top, kh - 1 - top), (left, kw - 1 - left), (0, 0))
    return namespace(image).pad(image, padding, mode="edge")
