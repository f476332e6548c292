"""Reading and writing images, photos with their metadata, and kernels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jbid.io.files import atomic_write
from jbid.io.formats import TEXT_TAGS, open_image, pillow_metadata, read_deep, read_pillow, write_deep_png, write_tiff

if TYPE_CHECKING:
    from PIL.Image import Exif

_ORIENTATION = 274  # EXIF tag
# EXIF tags that describe an image rather than its file: texts, and the EXIF and GPS parts
_DESCRIPTIVE = TEXT_TAGS | {34665, 34853}
# rotations and flips that turn the pixels of a file upright, by EXIF orientation
_UPRIGHT = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],
    8: lambda x: x.swapaxes(0, 1)[::-1],
}


class Photo(NamedTuple):
    """An image with the metadata of its file, which `write_photo` passes on.

    Attributes:
        image: (h, w, c) in [0, 1], c = 1 or 3, upright.
        bits: 8 or 16, of the file to write; 32: floating-point values, in a TIFF.
        alpha: (h, w) in [0, 1], or None.
        metadata: icc_profile, exif and xmp as bytes, dpi as a pair.
        notes: parts of the file that were left out or converted, one line each.
    """

    image: NDArray[np.float32]
    bits: int = 8
    alpha: NDArray[np.float32] | None = None
    metadata: dict[str, Any] = {}
    notes: tuple[str, ...] = ()


def read_image(path: str | Path) -> NDArray[np.float32]:
    """Read an image file as float32 (h, w, c) in [0, 1], c = 1 or 3; see `read_photo`.

    Raises:
        FileNotFoundError, ValueError: as `read_photo`.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_image(f"{folder}/gray.png", np.full((4, 6), 0.6))
        ...     image = read_image(f"{folder}/gray.png")
        >>> image.shape, float(image[0, 0, 0])
        ((4, 6, 1), 0.6000000238418579)
    """
    return read_photo(path).image


def read_photo(path: str | Path) -> Photo:
    """Read an image file with its metadata, upright by its EXIF orientation.

    8- and 16-bit files are divided by 255 and 65535; floating-point ones (TIFF) must be in [0, 1] already. CMYK becomes
    sRGB by the file's own profile. A file with several frames or pages yields the first.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is no image, with NaN or infinite pixels, or with values out of range.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        pixels, info, exif, notes = _decode(path)
    except Exception as error:  # every decoder has exceptions of its own
        raise ValueError(f"{path}: not an image that can be read") from error
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 2, 3, 4) or pixels.size == 0:
        raise ValueError(f"{path}: must be one gray or color image, got an array of shape {pixels.shape}")
    bits = 8 if pixels.dtype in (bool, np.uint8) else 16
    pixels = _to_float(pixels, path)
    channels = 1 if pixels.shape[-1] <= 2 else 3
    alpha = pixels[..., -1].copy() if pixels.shape[-1] in (2, 4) else None
    return Photo(pixels[..., :channels], bits, alpha, _metadata(info, exif), tuple(notes))


def _decode(path: Path) -> tuple[NDArray, dict[str, Any], Exif, list[str]]:
    """Upright pixels of a file with its Pillow metadata, its EXIF tags, and notes for the user."""
    from PIL import Image

    file = open_image(path)
    info: dict[str, Any] = {}
    notes: list[str] = []
    if file is None:
        pixels, exif = read_deep(path, "TIFF"), Image.Exif()
        if pixels is None:
            raise ValueError("unsupported TIFF")
    else:
        with file:
            if (frames := getattr(file, "n_frames", 1)) > 1:
                notes.append(f"the first of {frames} frames")
            info = {str(key): value for key, value in file.info.items()}
            exif = file.getexif()
            pixels = read_deep(path, file.format)
            if pixels is None:
                pixels, converted = read_pillow(file, info)
                notes += converted
    orientation = exif.pop(_ORIENTATION, 1)
    if orientation in _UPRIGHT:
        pixels = np.ascontiguousarray(_UPRIGHT[orientation](pixels))
    return pixels, info, exif, notes


def _to_float(pixels: NDArray, path: Path) -> NDArray[np.float32]:
    """Pixels as float32 in [0, 1]."""
    if np.issubdtype(pixels.dtype, np.integer):
        # in place: an image of 45 megapixels has half a gigabyte
        scale = np.float32(np.iinfo(pixels.dtype).max)
        pixels = pixels.astype(np.float32)
        pixels /= scale
    elif pixels.dtype != bool and not np.isfinite(pixels).all():
        raise ValueError(f"{path}: has NaN or infinite pixels; replace them first")
    elif pixels.min() < 0 or pixels.max() > 1:
        raise ValueError(f"{path}: has floating-point values outside [0, 1]; scale them first")
    return pixels.astype(np.float32, copy=False)


def _metadata(info: dict[str, Any], exif: Exif) -> dict[str, Any]:
    """Metadata to pass on to a new file."""
    metadata = {key: info[key] for key in ("icc_profile", "dpi") if info.get(key)}
    if xmp := info.get("xmp") or info.get("XML:com.adobe.xmp"):
        metadata["xmp"] = xmp if isinstance(xmp, bytes) else xmp.encode()
    for tag in set(exif) - _DESCRIPTIVE:
        # position and packing of the pixels in the old file
        del exif[tag]
    if len(exif):
        metadata["exif"] = exif.tobytes()
    return metadata


def list_images(folder: Path) -> list[Path]:
    """List the files in a folder with the suffix of an image, by name; empty if there is no such folder."""
    from PIL import Image

    suffixes = set(Image.registered_extensions())
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted(p for p in files if p.suffix.lower() in suffixes and p.is_file())


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of an upright image, from the header of its file.

    Raises:
        FileNotFoundError, ValueError: as `read_photo`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        file = open_image(path)
        if file is None:
            return read_photo(path).image.shape[1::-1]
        with file:
            is_turned = file.getexif().get(_ORIENTATION, 1) >= 5
            return (file.height, file.width) if is_turned else (file.width, file.height)
    except Exception as error:
        raise ValueError(f"{path}: not an image that can be read") from error


def write_image(path: str | Path, image: NDArray) -> None:
    """Write an 8-bit image file, clipped and rounded; `read_image` has an example.

    Args:
        path: with the suffix of an image format, such as `.png`.
        image: (h, w), (h, w, 1) or (h, w, 3) in [0, 1].

    Raises:
        ValueError: for an unknown suffix.
    """
    write_photo(path, Photo(image if image.ndim == 3 else image[..., None]))


def write_photo(path: str | Path, photo: Photo) -> None:
    """Write an image file with alpha and metadata, clipped and rounded; floating-point values (32 bits) as they are.

    Args:
        path: with the suffix of PNG, TIFF or JPEG. JPEG has 8 bits and no alpha.
        photo: image and metadata.
    """
    from PIL import Image

    path = Path(path)
    suffix = path.suffix.lower()
    is_jpeg = suffix in (".jpg", ".jpeg")
    is_tiff = suffix in (".tif", ".tiff")
    bits = 8 if is_jpeg else photo.bits if is_tiff else min(photo.bits, 16)
    pixels = _quantize(photo.image, bits)
    if photo.alpha is not None and not is_jpeg:
        pixels = np.concatenate([pixels, _quantize(photo.alpha[..., None], bits)], -1)
    if pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    with atomic_write(path) as temporary:
        if bits > 8 and is_tiff:
            write_tiff(temporary, pixels, photo.metadata)
        elif bits == 16:
            write_deep_png(temporary, pixels, photo.metadata)
        else:
            options: dict[str, Any] = {"quality": 95, "subsampling": 0} if is_jpeg else {}
            Image.fromarray(pixels).save(temporary, **pillow_metadata(photo.metadata, suffix), **options)


def _quantize(x: NDArray, bits: int) -> NDArray:
    """Values in [0, 1] as unsigned integers of 8 or 16 bits, clipped and rounded; 32 bits: as they are."""
    if bits == 32:
        return x.astype(np.float32, copy=False)
    kind = np.uint16 if bits == 16 else np.uint8
    # in blocks of rows: full-size temporaries would be three times the image
    out = np.empty(x.shape, kind)
    for i in range(0, len(x), 256):
        out[i : i + 256] = np.round(np.clip(x[i : i + 256], 0, 1) * np.iinfo(kind).max)
    return out


def image_grid(images: NDArray, columns: int = 8) -> NDArray[np.float32]:
    """Images (n, h, w) in rows with gray lines between them, each scaled by its maximum: (H, W, 1)."""
    n, h, w = images.shape
    rows = -(-n // columns)
    out = np.full((rows, columns, h + 1, w + 1), 0.3, np.float32)
    peak = np.maximum(images.max((1, 2), keepdims=True), 1e-12)
    out.reshape(-1, h + 1, w + 1)[:n, :h, :w] = images / peak
    return out.transpose(0, 2, 1, 3).reshape(rows * (h + 1), columns * (w + 1), 1)


def read_kernel(path: str | Path) -> NDArray[np.float32]:
    """Read a kernel from an image file, gray at any scale, as (kh, kw) with sum one.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a black image, or as `read_photo`.
    """
    kernel = read_image(path).mean(-1)
    if kernel.sum() == 0:
        raise ValueError(f"{path}: the kernel is black")
    return kernel / kernel.sum()


def write_kernel(path: str | Path, kernel: NDArray) -> None:
    """Write a kernel as 16-bit gray, scaled by its maximum."""
    write_photo(path, Photo(np.asarray(kernel / kernel.max())[..., None], 16))
