"""Reading and writing images and kernels; colour."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# full-range BT.601, as JPEG and OpenCV have it: rows Y, Cb, Cr
_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])

# EXIF tags: orientation; what describes a picture rather than its file; and those of them that are text
_ORIENTATION = 274
_TEXT = {270, 271, 272, 305, 306, 315, 33432}
_DESCRIPTIVE = _TEXT | {34665, 34853}  # with the EXIF and GPS parts
# how the rows and columns of a file are turned to stand upright, by EXIF orientation
_UPRIGHT = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],
    8: lambda x: x.swapaxes(0, 1)[::-1],
}


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


class Photo(NamedTuple):
    """A picture and what its file says about it, which is carried over to what is written."""

    image: NDArray[np.float32]  # h w c in [0, 1], c = 1 or 3, upright
    bits: int = 8  # 8 or 16, of the file to be written
    alpha: NDArray[np.float32] | None = None  # h w in [0, 1]
    metadata: dict[str, Any] = {}  # icc_profile, exif, xmp: bytes; dpi: a pair
    notes: tuple[str, ...] = ()  # what was left out or converted, for the user


def read(path: str | Path) -> NDArray[np.float32]:
    """The image alone of `read_photo`: float32 (h, w, c) in [0, 1], c = 1 or 3."""
    return read_photo(path).image


def read_photo(path: str | Path) -> Photo:
    """A picture file, upright by its EXIF orientation.

    8- and 16-bit files are divided by 255 and 65535; floating-point ones (TIFF) must be in [0, 1] already. CMYK becomes
    sRGB by the file's own profile. Of several frames or pages the first is taken. Raises FileNotFoundError, or
    ValueError for what is no picture, has NaN or infinite pixels or values out of range.
    """
    from PIL import Image

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        file = _opened(path)
        if file is None:
            pixels, notes, info, exif = _deep_pixels(path, "TIFF"), [], {}, Image.Exif()
            if pixels is None:
                raise ValueError("a TIFF of an unknown kind")
        else:
            with file:
                notes = [f"the first of {frames} frames"] if (frames := getattr(file, "n_frames", 1)) > 1 else []
                info = {str(key): value for key, value in file.info.items()}
                exif = file.getexif()
                pixels = _deep_pixels(path, file.format)
                if pixels is None:
                    pixels, converted = _pillow_pixels(file, info)
                    notes += converted
        orientation = exif.pop(_ORIENTATION, 1)
        if orientation != 1:
            pixels = np.ascontiguousarray(_UPRIGHT.get(orientation, lambda x: x)(pixels))
    except Exception as error:  # every decoder has exceptions of its own
        raise ValueError(f"{path}: not an image that can be read") from error
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 2, 3, 4) or pixels.size == 0:
        raise ValueError(f"{path}: got an array of shape {pixels.shape}, expected one gray or colour picture")
    bits = 8 if pixels.dtype in (bool, np.uint8) else 16
    if np.issubdtype(pixels.dtype, np.integer):
        # in place: a picture of 45 megapixels has half a gigabyte
        scale = np.float32(np.iinfo(pixels.dtype).max)
        pixels = pixels.astype(np.float32)
        pixels /= scale
    elif pixels.dtype != bool and not np.isfinite(pixels).all():
        raise ValueError(f"{path}: has NaN or infinite pixels; replace them first")
    elif pixels.min() < 0 or pixels.max() > 1:
        raise ValueError(f"{path}: has floating-point values outside [0, 1]; scale them first")
    pixels = pixels.astype(np.float32, copy=False)
    channels = 1 if pixels.shape[-1] <= 2 else 3
    alpha = pixels[..., -1].copy() if pixels.shape[-1] in (2, 4) else None
    metadata = {key: info[key] for key in ("icc_profile", "dpi") if info.get(key)}
    if xmp := info.get("xmp") or info.get("XML:com.adobe.xmp"):
        metadata["xmp"] = xmp if isinstance(xmp, bytes) else xmp.encode()
    for tag in set(exif) - _DESCRIPTIVE:
        # where the old file's pixels lie and how they are packed
        del exif[tag]
    if len(exif):
        metadata["exif"] = exif.tobytes()
    return Photo(pixels[..., :channels], bits, alpha, metadata, tuple(notes))


def pictures_in(folder: Path) -> list[Path]:
    """The files in a folder, by name, whose suffix is that of a picture; none where there is no such folder."""
    from PIL import Image

    known = set(Image.registered_extensions())
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(p for p in found if p.suffix.lower() in known and p.is_file())


def size(path: str | Path) -> tuple[int, int]:
    """Width and height of an upright picture, from its file's header. Raises as `read_photo`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        file = _opened(path)
        if file is None:
            return read_photo(path).image.shape[1::-1]
        with file:
            turned = file.getexif().get(_ORIENTATION, 1) >= 5
            return (file.height, file.width) if turned else (file.width, file.height)
    except Exception as error:
        raise ValueError(f"{path}: not an image that can be read") from error


def _opened(path: Path):
    """The file as Pillow opens it; None for a TIFF of a kind that it does not know, such as floating-point colour."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(path)
    except UnidentifiedImageError:
        with path.open("rb") as file:
            if file.read(4) in (b"II*\0", b"MM\0*"):
                return None
        raise


def _deep_pixels(path: Path, kind: str | None) -> NDArray | None:
    """The pixels of a file with more than 8 bits a channel; None for others, which Pillow reads."""
    if kind == "PNG":
        content = path.read_bytes()
        # bit depth and colour type in the header chunk
        if content[24] == 16:
            import imagecodecs

            return imagecodecs.png_decode(content)
    if kind == "TIFF":
        import tifffile

        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            assert isinstance(page, tifffile.TiffPage)
            if page.dtype is not None and page.dtype.itemsize > 1:
                pixels = page.asarray()
                if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
                    pixels = np.moveaxis(pixels, 0, -1)
                if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
                    pixels = np.iinfo(pixels.dtype).max - pixels
                return pixels
    return None


def _pillow_pixels(file, info: dict[str, Any]) -> tuple[NDArray, list[str]]:
    """Gray, colour, and alpha where there is one; and what was converted. `info` loses a profile that was used up."""
    mode = file.mode
    if mode in ("1", "L", "LA", "RGB", "RGBA", "I;16", "I;16L", "I;16B", "I;16N", "F"):
        return np.asarray(file), []
    if mode == "I":
        return np.asarray(file).astype(np.uint16), []
    if mode in ("P", "PA"):
        return np.asarray(file.convert("RGBA" if mode == "PA" or "transparency" in info else "RGB")), []
    profile = info.pop("icc_profile", None)
    if profile and mode in ("CMYK", "LAB"):
        import io

        from PIL import ImageCms

        srgb = ImageCms.createProfile("sRGB")
        return np.asarray(ImageCms.profileToProfile(file, io.BytesIO(profile), srgb, outputMode="RGB")), [
            f"{mode} converted to sRGB"
        ]
    return np.asarray(file.convert("RGB")), [f"{mode} converted to sRGB"]


def write(path: str | Path, image: NDArray) -> None:
    """Write (h, w), (h, w, 1) or (h, w, 3) in [0, 1] as an 8-bit file, clipped and rounded."""
    write_photo(path, Photo(image if image.ndim == 3 else image[..., None]))


def write_photo(path: str | Path, photo: Photo) -> None:
    """Write a PNG, TIFF or JPEG file (by its suffix; JPEG is 8-bit) with alpha and metadata, clipped and rounded."""
    from PIL import Image

    path = Path(path)
    suffix = path.suffix.lower()
    deep = photo.bits == 16 and suffix not in (".jpg", ".jpeg")
    pixels = _rounded(photo.image, 16 if deep else 8)
    if photo.alpha is not None and suffix not in (".jpg", ".jpeg"):
        pixels = np.concatenate([pixels, _rounded(photo.alpha[..., None], 16 if deep else 8)], -1)
    if pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    with replacing(path) as temporary:
        if suffix in (".tif", ".tiff") and deep:
            _write_tiff(temporary, pixels, photo.metadata)
        elif deep:
            _write_deep_png(temporary, pixels, photo.metadata)
        else:
            options: dict[str, Any] = {"quality": 95, "subsampling": 0} if suffix in (".jpg", ".jpeg") else {}
            Image.fromarray(pixels).save(temporary, **_pillow_metadata(photo.metadata, suffix), **options)


def _rounded(x: NDArray, bits: int) -> NDArray:
    kind = np.uint16 if bits == 16 else np.uint8
    # row by row: full-size temporaries would be three times the picture
    out = np.empty(x.shape, kind)
    for i in range(0, len(x), 256):
        out[i : i + 256] = np.round(np.clip(x[i : i + 256], 0, 1) * np.iinfo(kind).max)
    return out


def _pillow_metadata(metadata: dict[str, Any], suffix: str) -> dict[str, Any]:
    from PIL.PngImagePlugin import PngInfo

    kept = {key: value for key, value in metadata.items() if key != "xmp"}
    if "xmp" in metadata and suffix == ".png":
        kept["pnginfo"] = PngInfo()
        kept["pnginfo"].add_itxt("XML:com.adobe.xmp", metadata["xmp"].decode("utf-8", "replace"))
    elif "xmp" in metadata and suffix in (".jpg", ".jpeg"):
        kept["xmp"] = metadata["xmp"]
    return kept


def _write_deep_png(path: Path, pixels: NDArray, metadata: dict[str, Any]) -> None:
    """16-bit PNG, which Pillow cannot write in colour: its metadata chunks beside another encoder's pixels."""
    import io

    import imagecodecs
    from PIL import Image

    tiny = io.BytesIO()
    Image.new("L", (1, 1)).save(tiny, "PNG", **_pillow_metadata(metadata, ".png"))
    content = imagecodecs.png_encode(pixels)
    header = 8 + 25  # signature and IHDR
    path.write_bytes(content[:header] + b"".join(_metadata_chunks(tiny.getvalue())) + content[header:])


def _metadata_chunks(png: bytes) -> Iterator[bytes]:
    at = 8
    while at < len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] in (b"iCCP", b"eXIf", b"pHYs", b"iTXt"):
            yield png[at:end]
        at = end


def _write_tiff(path: Path, pixels: NDArray, metadata: dict[str, Any]) -> None:
    import tifffile
    from PIL import Image

    exif = Image.Exif()
    exif.load(metadata.get("exif", b""))
    tags = [(tag, "s", 0, str(value), True) for tag, value in exif.items() if tag in _TEXT]
    if "xmp" in metadata:
        tags.append((700, "B", len(metadata["xmp"]), metadata["xmp"], True))
    tifffile.imwrite(
        path,
        pixels,
        photometric="rgb" if pixels.ndim == 3 and pixels.shape[-1] >= 3 else "minisblack",
        iccprofile=metadata.get("icc_profile"),
        resolution=metadata.get("dpi"),
        extratags=tags,
        metadata=None,
        software=False,
    )


def read_kernel(path: str | Path) -> NDArray[np.float32]:
    """A kernel file, gray at any scale, as (kh, kw) with sum one. Raises ValueError for one that is black."""
    kernel = read(path).mean(-1)
    if kernel.sum() == 0:
        raise ValueError(f"{path}: the kernel is black")
    return kernel / kernel.sum()


def write_kernel(path: str | Path, kernel: NDArray) -> None:
    """Write a kernel as 16-bit gray, scaled by its maximum."""
    write_photo(path, Photo(np.asarray(kernel / kernel.max())[..., None], 16))


def to_ycbcr(rgb: NDArray) -> NDArray:
    """(h, w, 3) RGB to full-range Y in [0, 1] and Cb, Cr in [-1/2, 1/2] (BT.601)."""
    return rgb @ _YCBCR.T.astype(rgb.dtype)


def to_rgb(ycbcr: NDArray) -> NDArray:
    """The inverse of `to_ycbcr`, clipped to [0, 1]."""
    return np.clip(ycbcr @ np.linalg.inv(_YCBCR).T.astype(ycbcr.dtype), 0, 1)


def luma(image: NDArray) -> NDArray:
    """(h, w, 1): the image itself if it is gray, its full-range luma if it is in colour."""
    return image if image.shape[-1] == 1 else to_ycbcr(image)[..., :1]


def studio_luma(image: NDArray) -> NDArray:
    """(h, w, 1): as `luma`, of a picture in colour in Matlab's range of `rgb2ycbcr`, 16 / 255 to 235 / 255."""
    return image if image.shape[-1] == 1 else (16 + 219 * luma(image)) / 255


def to_linear(image: NDArray) -> NDArray:
    """sRGB values to light, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4).astype(image.dtype)


def from_linear(light: NDArray) -> NDArray:
    """The inverse of `to_linear`."""
    light = np.maximum(light, 0)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055).astype(light.dtype)
