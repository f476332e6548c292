"""Arrays of the public functions: checks and conversions."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from jbid.ops.kernels import pad_to_odd_square

# beyond [0, 1], as left by a Fourier transform or an interpolation
ROUNDING = 1e-3


def check_image(image: Any, name: str = "image") -> NDArray[np.float32]:
    """Convert an image to float32 (h, w, c) in [0, 1].

    Args:
        image: (h, w) or (h, w, 1 or 3); floats in [0, 1], uint8 or uint16.
        name: of the parameter, for messages.

    Raises:
        TypeError, ValueError: for anything that is no image.
    """
    expected = f"`{name}` must be an array (h, w) or (h, w, 3)"
    if isinstance(image, (str, bytes)) or not hasattr(image, "__array__"):
        raise TypeError(f"{expected}, got {type(image).__name__}. Read a file with jbid.read_image.")
    array = np.asarray(image)
    if array.dtype in (np.uint8, np.uint16):
        array = array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max)
    elif not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"{expected} of floats in [0, 1], uint8 or uint16, got {array.dtype}")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3):
        raise ValueError(f"{expected}, got the shape {np.shape(image)}")
    if not np.isfinite(array).all():
        raise ValueError(f"`{name}` must be finite, got NaN or infinite pixels")
    if array.size and (array.min() < -ROUNDING or array.max() > 1 + ROUNDING):
        raise ValueError(
            f"`{name}` must be in [0, 1], got values from {array.min():g} to {array.max():g}. Scale it first."
        )
    return np.clip(array, 0, 1).astype(np.float32)


def check_kernel(kernel: Any) -> NDArray[np.float32]:
    """Convert a kernel to a square of odd side with sum one.

    Raises:
        ValueError: for anything that is no kernel.
    """
    array = np.asarray(kernel, np.float32)
    if array.ndim != 2 or not np.isfinite(array).all() or array.min() < 0 or not array.sum() > 0:
        raise ValueError("`kernel` must be two-dimensional and not negative, with a positive sum")
    total = array.sum()
    # dividing once more changes the last bit, which a deconvolution magnifies; so a kernel of a result stays as it is
    return pad_to_odd_square(array if abs(total - 1) < 1e-6 else array / total)


def float_image(image: ArrayLike) -> Array:
    """Convert an image to a JAX array of floats; integers are scaled to [0, 1]."""
    array = jnp.asarray(image)
    return array / jnp.iinfo(array.dtype).max if jnp.issubdtype(array.dtype, jnp.integer) else array
