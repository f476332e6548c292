"""The 32 images of Levin, Weiss, Durand and Freeman (CVPR 2009), in the folder layout of SelfDeblur's release."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter
from skimage.transform import resize

from jbid.io.images import read_image, read_kernel

NAMES = tuple(f"im{i}_kernel{k}_img" for i in range(1, 5) for k in range(1, 9))
# what SelfDeblur's script for these images is given as the size of kernels 1 to 8
KERNEL_SIZES = (17, 15, 13, 27, 11, 19, 21, 21)
# The files of these two are stored as the convolution kernel, the others turned by 180 degrees
_AS_CONVOLVED = (4, 8)


class Item(NamedTuple):
    """One image of a set; the kernel is that of y = k * x, a true convolution. Of real photos there is no truth."""

    name: str
    blurred: NDArray[np.float32]  # h w c
    sharp: NDArray[np.float32] | None  # h w c
    kernel: NDArray[np.float32] | None
    kernel_size: int  # as published runs were given it


def groups(name: str) -> dict[str, str]:
    """Groups of an image, by kind: its scene and its kernel."""
    image, kernel, _ = name.split("_")
    return {"image": image, "kernel": kernel}


def resize_item(item: Item, scale: float) -> Item:
    """The item with all its parts at another scale, below one: pixels are averaged, the kernel again sums to one.

    An image and its sharp one shrink alike, so y = k * x holds but for what the averages mix; noise becomes less.
    """
    assert item.sharp is not None and item.kernel is not None
    h, w = (max(1, round(n * scale)) for n in item.blurred.shape[:2])
    blurred, sharp = (
        resize(x, (h, w, x.shape[2]), anti_aliasing=True).astype(np.float32) for x in (item.blurred, item.sharp)
    )
    # about its center and by the very scale, in a frame of odd sides; smoothed as `resize` does against aliasing
    sides = [max(3, math.ceil(n * scale) | 1) for n in item.kernel.shape]
    smooth = gaussian_filter(item.kernel, max(0, (1 / scale - 1) / 2), mode="constant")
    offset = [(n - 1) / 2 - (side - 1) / 2 / scale for n, side in zip(item.kernel.shape, sides)]
    kernel = affine_transform(smooth, [1 / scale] * 2, offset, tuple(sides), order=1).astype(np.float32)
    return Item(item.name, blurred, sharp, kernel / kernel.sum(), max(kernel.shape))


def find(data: str | Path | None, name: str, parts: Sequence[str], layout: str) -> Path:
    """Folder of a set, with the subfolders `parts`: `data` itself, or `name` in it or in $JBID_DATA.

    Raises ValueError with the `layout` where there is none.
    """
    given = data or os.environ.get("JBID_DATA")
    for folder in (Path(given), Path(given) / name) if given else ():
        if all((folder / part).is_dir() for part in parts):
            return folder
    raise ValueError(f"{given or 'no --data and no JBID_DATA'}: expected a folder with {layout}")


def root(data: str | Path | None) -> Path:
    """The set's folder: `data`, or `levin` in it or in $JBID_DATA. Raises ValueError that says how it must look."""
    layout = "gt/im1.png.., kernels/kernel1.png.. and blurry/im1_kernel1_img.png.. of SelfDeblur's release"
    return find(data, "levin", ("gt", "kernels", "blurry"), layout)


def files(folder: Path, name: str) -> tuple[tuple[Path, Path, Path], bool]:
    """The files of an image's blurred and sharp version and kernel; and whether the kernel is as it was convolved.

    Raises ValueError for an unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"no Levin image is called {name!r}; names go from {NAMES[0]} to {NAMES[-1]}")
    i, k = int(name[2]), int(name[10])
    paths = folder / "blurry" / f"{name}.png", folder / "gt" / f"im{i}.png", folder / "kernels" / f"kernel{k}.png"
    return paths, k in _AS_CONVOLVED


def read_item(name: str, paths: Sequence[Path], convolved: bool, kernel_size: int | None = None) -> Item:
    """The item of three files as `files` has them; its size is the kernel file's if there is no other."""
    blurred, sharp, kernel = read_image(paths[0]), read_image(paths[1]), read_kernel(paths[2])
    kernel = kernel if convolved else kernel[::-1, ::-1]
    return Item(name, blurred, sharp, kernel, kernel_size or max(kernel.shape) | 1)


def load(data: str | Path | None = None, names: Sequence[str] = NAMES) -> list[Item]:
    """The named images. Raises ValueError for an unknown name or a missing folder."""
    folder = root(data)
    return [read_item(name, *files(folder, name), KERNEL_SIZES[int(name[10]) - 1]) for name in names]
