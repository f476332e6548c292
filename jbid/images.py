"""Reading and writing images and kernels; colour."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# full-range BT.601, as JPEG and OpenCV have it: rows Y, Cb, Cr
_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it takes `path`'s place at the end, and is removed on failure."""
    path = Path(path)
    handle, name = tempfile.mkstemp(suffix=path.suffix, prefix=f".{path.stem}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes the file private; give it the permissions of an ordinary new file
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: str | Path) -> NDArray[np.float32]:
    """The image as float32 (h, w, c) in [0, 1], c = 1 or 3; transparency is dropped.

    8- and 16-bit files are divided by 255 and 65535; floating-point ones (TIFF) must be in [0, 1] already. Raises
    FileNotFoundError, or ValueError for what is no image, has NaN or infinite pixels or values out of range.
    """
    from skimage import io

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        pixels = np.asarray(io.imread(path))
    except Exception as error:  # every reader behind imread has exceptions of its own
        raise ValueError(f"{path}: not an image that can be read") from error
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 2, 3, 4):
        raise ValueError(f"{path}: got an array of shape {pixels.shape}, expected one gray or colour picture")
    pixels = pixels[..., : 1 if pixels.shape[-1] <= 2 else 3]
    if pixels.dtype == bool:
        return pixels.astype(np.float32)
    if np.issubdtype(pixels.dtype, np.integer):
        return (pixels / np.iinfo(pixels.dtype).max).astype(np.float32)
    if not np.isfinite(pixels).all():
        raise ValueError(f"{path}: has NaN or infinite pixels; replace them first")
    if pixels.min() < 0 or pixels.max() > 1:
        raise ValueError(f"{path}: has floating-point values outside [0, 1]; scale them first")
    return pixels.astype(np.float32)


def write(path: str | Path, image: NDArray) -> None:
    """Write (h, w), (h, w, 1) or (h, w, 3) in [0, 1] as an 8-bit file, clipped and rounded."""
    from skimage import io

    image = np.asarray(image)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    with replacing(path) as temporary:
        io.imsave(temporary, np.round(np.clip(image, 0, 1) * 255).astype(np.uint8), check_contrast=False)


def read_kernel(path: str | Path) -> NDArray[np.float32]:
    """A kernel file, gray at any scale, as (kh, kw) with sum one. Raises ValueError for one that is black."""
    kernel = read(path).mean(-1)
    if kernel.sum() == 0:
        raise ValueError(f"{path}: the kernel is black")
    return kernel / kernel.sum()


def write_kernel(path: str | Path, kernel: NDArray) -> None:
    """Write a kernel as 16-bit gray, scaled by its maximum."""
    from skimage import io

    kernel = np.asarray(kernel)
    with replacing(path) as temporary:
        scaled = np.round(np.clip(kernel / kernel.max(), 0, 1) * 65535).astype(np.uint16)
        io.imsave(temporary, scaled, check_contrast=False)


def to_ycbcr(rgb: NDArray) -> NDArray:
    """(h, w, 3) RGB to full-range Y in [0, 1] and Cb, Cr in [-1/2, 1/2] (BT.601)."""
    return rgb @ _YCBCR.T.astype(rgb.dtype)


def to_rgb(ycbcr: NDArray) -> NDArray:
    """The inverse of `to_ycbcr`, clipped to [0, 1]."""
    return np.clip(ycbcr @ np.linalg.inv(_YCBCR).T.astype(ycbcr.dtype), 0, 1)


def luma(image: NDArray) -> NDArray:
    """(h, w, 1): the image itself if it is gray, its full-range luma if it is in colour."""
    return image if image.shape[-1] == 1 else to_ycbcr(image)[..., :1]
