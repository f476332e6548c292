"""Image file formats: 16-bit PNG, TIFF, the modes of Pillow, and their metadata.

Pillow, tifffile and imagecodecs are imported on first use, so that help texts of the command line appear at once.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

# EXIF tags with text that describes an image: description, maker, model, software, date, artist, copyright
TEXT_TAGS = {270, 271, 272, 305, 306, 315, 33432}
_XMP_TAG = 700


def open_image(path: Path) -> PillowImage | None:
    """Open a file by Pillow; None for a TIFF that Pillow does not support, such as floating-point color."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(path)
    except UnidentifiedImageError:
        with path.open("rb") as file:
            if file.read(4) in (b"II*\0", b"MM\0*"):
                return None
        raise


def read_deep(path: Path, kind: str | None) -> NDArray | None:
    """Read the pixels of a file with more than 8 bits a channel; None for other files, which Pillow reads.

    Args:
        path: of the file.
        kind: "PNG", "TIFF" or another format of Pillow.
    """
    if kind == "PNG":
        return _read_deep_png(path)
    if kind == "TIFF":
        return _read_deep_tiff(path)
    return None


def _read_deep_png(path: Path) -> NDArray | None:
    """Pixels of a 16-bit PNG; None for another bit depth."""
    content = path.read_bytes()
    # bit depth in the header chunk
    if content[24] != 16:
        return None
    import imagecodecs

    return imagecodecs.png_decode(content)


def _read_deep_tiff(path: Path) -> NDArray | None:
    """Pixels of the first page of a TIFF, channels last and zero for black; None for 8 bits."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        if page.dtype is None or page.dtype.itemsize == 1:
            return None
        pixels = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            pixels = np.moveaxis(pixels, 0, -1)
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            pixels = np.iinfo(pixels.dtype).max - pixels
        return pixels


def read_pillow(file: PillowImage, info: dict[str, Any]) -> tuple[NDArray, list[str]]:
    """Read the pixels of an open file: gray or color, with alpha if the file has it.

    Args:
        file: as opened by Pillow.
        info: metadata of the file. A color profile is removed from it once the pixels are converted by it.

    Returns:
        Pixels, and notes on what was converted.
    """
    mode = file.mode
    if mode in ("1", "L", "LA", "RGB", "RGBA", "I;16", "I;16L", "I;16B", "I;16N", "F"):
        return np.asarray(file), []
    if mode == "I":
        return np.asarray(file).astype(np.uint16), []
    if mode in ("P", "PA"):
        return np.asarray(file.convert("RGBA" if mode == "PA" or "transparency" in info else "RGB")), []
    notes = [f"{mode} converted to sRGB"]
    profile = info.pop("icc_profile", None)
    if profile and mode in ("CMYK", "LAB"):
        from PIL import ImageCms

        srgb = ImageCms.createProfile("sRGB")
        return np.asarray(ImageCms.profileToProfile(file, io.BytesIO(profile), srgb, outputMode="RGB")), notes
    return np.asarray(file.convert("RGB")), notes


def pillow_metadata(metadata: dict[str, Any], suffix: str) -> dict[str, Any]:
    """Keywords of Pillow's `save` that write this metadata to a file with this suffix."""
    from PIL.PngImagePlugin import PngInfo

    keywords = {key: value for key, value in metadata.items() if key != "xmp"}
    if "xmp" in metadata and suffix == ".png":
        keywords["pnginfo"] = PngInfo()
        keywords["pnginfo"].add_itxt("XML:com.adobe.xmp", metadata["xmp"].decode("utf-8", "replace"))
    elif "xmp" in metadata and suffix in (".jpg", ".jpeg"):
        keywords["xmp"] = metadata["xmp"]
    return keywords


def write_deep_png(path: Path, pixels: NDArray, metadata: dict[str, Any]) -> None:
    """Write a 16-bit PNG, whose color Pillow cannot encode: Pillow's metadata chunks beside imagecodecs' pixels."""
    import imagecodecs
    from PIL import Image

    tiny = io.BytesIO()
    Image.new("L", (1, 1)).save(tiny, "PNG", **pillow_metadata(metadata, ".png"))
    content = imagecodecs.png_encode(pixels)
    header = 8 + 25  # signature and IHDR
    path.write_bytes(content[:header] + b"".join(_metadata_chunks(tiny.getvalue())) + content[header:])


def _metadata_chunks(png: bytes) -> Iterator[bytes]:
    """Chunks of a PNG file with color profile, EXIF, resolution and texts."""
    begin = 8
    while begin < len(png):
        end = begin + 12 + int.from_bytes(png[begin : begin + 4], "big")
        if png[begin + 4 : begin + 8] in (b"iCCP", b"eXIf", b"pHYs", b"iTXt"):
            yield png[begin:end]
        begin = end


def write_tiff(path: Path, pixels: NDArray, metadata: dict[str, Any]) -> None:
    """Write a TIFF with color profile, resolution, XMP and the descriptive EXIF texts."""
    import tifffile
    from PIL import Image

    exif = Image.Exif()
    exif.load(metadata.get("exif", b""))
    tags = [(tag, "s", 0, str(value), True) for tag, value in exif.items() if tag in TEXT_TAGS]
    if "xmp" in metadata:
        tags.append((_XMP_TAG, "B", len(metadata["xmp"]), metadata["xmp"], True))
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
