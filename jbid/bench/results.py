"""Results in a folder: files by the name of the image, their scores, and panels for reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jbid.bench.report import Strip, kernel_panel
from jbid.bench.scoring import Scorer
from jbid.data.levin import Item
from jbid.io.images import read_image, read_kernel


def image_path(folder: Path, name: str) -> Path:
    """Restored image of this name in a folder: <name>_x.png, as jbid writes it, or <name>.png."""
    path = folder / f"{name}_x.png"
    return path if path.is_file() else folder / f"{name}.png"


def kernel_path(folder: Path, name: str) -> Path:
    """Estimated kernel of this name in a folder: <name>_k.png."""
    return folder / f"{name}_k.png"


def score_files(item: Item, folder: Path, scorer: Scorer) -> dict[str, Any]:
    """Scores of the files of a result: an image of 8 bits and, if there is one, a kernel scaled by its maximum.

    Raises:
        ValueError: if the image has another size than the blurred one.
    """
    path = image_path(folder, item.name)
    image = read_image(path)
    if image.shape[:2] != item.blurred.shape[:2]:
        got, expected = ("{1}x{0}".format(*x.shape) for x in (image, item.blurred))
        raise ValueError(f"{path}: must have {expected} pixels, got {got}")
    kernel_file = kernel_path(folder, item.name)
    kernel = read_kernel(kernel_file) if kernel_file.is_file() else None
    return {**scorer.score(item, image, kernel), "scoring": scorer.to_dict()}


def make_strip(item: Item, row: Mapping[str, Any], folder: Path) -> Strip:
    """Panels of one image: blurred, restored, sharp, and the kernels."""
    panels = [("blurred", item.blurred), ("restored", read_image(image_path(folder, item.name)))]
    if item.sharp is not None:
        panels.append(("sharp", item.sharp))
    kernel_file = kernel_path(folder, item.name)
    if kernel_file.is_file():
        panels.append(("estimated kernel", kernel_panel(read_kernel(kernel_file))))
    if item.kernel is not None:
        panels.append(("true kernel", kernel_panel(item.kernel)))
    captions = [f"{row['psnr']:.2f} dB"] if "psnr" in row else []
    captions += [str(row["chosen"])] if row.get("chosen") else []
    return Strip(item.name, ", ".join(captions), panels)


def make_strips(items: Sequence[Item], rows: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[Strip]:
    """Panels of all images that have a row."""
    by_name = {row["name"]: row for row in rows}
    for item in items:
        if item.name in by_name:
            yield make_strip(item, by_name[item.name], folder)
