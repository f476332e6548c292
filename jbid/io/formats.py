"""jbid.io.formats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TEXT = {270, 271, 272, 305, 306, 315, 33432}


def open_image(path: Path):
    """The file as Pillow opens it; None for a TIFF of a kind that it does not know, such as floating-point color."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(path)
    except UnidentifiedImageError:
        with path.open("rb") as file:
            if file.read(4) in (b"II*\0", b"MM\0*"):
                return None
        raise


def read_deep(path: Path, kind: str | None) -> NDArray | None:
    """The pixels of a file with more than 8 bits a channel; None for others, which Pillow reads."""
    if kind == "PNG":
        content = path.read_bytes()
        # bit depth and color type in the header chunk
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


def read_pillow(file, info: dict[str, Any]) -> tuple[NDArray, list[str]]:
    """Gray, color, and alpha where there is one; and what was converted. `info` loses a profile that was used up."""
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


def pillow_metadata(metadata: dict[str, Any], suffix: str) -> dict[str, Any]:
    from PIL.PngImagePlugin import PngInfo

    kept = {key: value for key, value in metadata.items() if key != "xmp"}
    if "xmp" in metadata and suffix == ".png":
        kept["pnginfo"] = PngInfo()
        kept["pnginfo"].add_itxt("XML:com.adobe.xmp", metadata["xmp"].decode("utf-8", "replace"))
    elif "xmp" in metadata and suffix in (".jpg", ".jpeg"):
        kept["xmp"] = metadata["xmp"]
    return kept


def write_deep_png(path: Path, pixels: NDArray, metadata: dict[str, Any]) -> None:
    """16-bit PNG, which Pillow cannot write in color: its metadata chunks beside another encoder's pixels."""
    import io

    import imagecodecs
    from PIL import Image

    tiny = io.BytesIO()
    Image.new("L", (1, 1)).save(tiny, "PNG", **pillow_metadata(metadata, ".png"))
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


def write_tiff(path: Path, pixels: NDArray, metadata: dict[str, Any]) -> None:
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
