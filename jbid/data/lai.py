"""Uniform set of Lai, Huang, Hu, Ahuja and Yang (CVPR 2016): 25 scenes, 4 kernels, 100 blurred color images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jbid.data.levin import Item, find_folder, read_item

CATEGORIES = ("manmade", "natural", "people", "saturated", "text")
NAMES = tuple(f"{c}_{i:02}_kernel_{k:02}" for c in CATEGORIES for i in range(1, 6) for k in range(1, 5))


def root(data: str | Path | None) -> Path:
    """Folder of the set: `data`, or `lai` in it or in $JBID_DATA.

    Raises:
        ValueError: with the expected layout, if there is no such folder.
    """
    layout = "ground_truth/manmade_01.png.., kernels/kernel_01.png.. and uniform/manmade_01_kernel_01.png.."
    return find_folder(data, "lai", ("ground_truth", "kernels", "uniform"), layout)


def groups(name: str) -> dict[str, str]:
    """Groups of an image, by kind: its category and its kernel."""
    return {"category": name.split("_")[0], "kernel": name[name.index("kernel") :]}


def files(folder: Path, name: str) -> tuple[tuple[Path, Path, Path], bool]:
    """Files of an image: (blurred, sharp, kernel), and False because the kernel's file is rotated by 180 degrees.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"unknown Lai image {name!r}. Names go from {NAMES[0]} to {NAMES[-1]}.")
    scene, number = name.split("_kernel_")
    sharp = folder / "ground_truth" / f"{scene}.png"
    return (folder / "uniform" / f"{name}.png", sharp, folder / "kernels" / f"kernel_{number}.png"), False


def load(data: str | Path | None = None, names: Sequence[str] = NAMES) -> list[Item]:
    """Read images in color, with kernels of a true convolution.

    Args:
        data: folder, see `root`.
        names: of the images.

    Raises:
        ValueError: for an unknown name or a missing folder.
    """
    folder = root(data)
    return [read_item(name, *files(folder, name)) for name in names]
