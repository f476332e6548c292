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
# sizes of kernels 1 to 8 in SelfDeblur's script
KERNEL_SIZES = (17, 15, 13, 27, 11, 19, 21, 21)
# files of these two hold the kernel of a true convolution, the others are rotated by 180 degrees
_CONVOLVED_KERNELS = (4, 8)


class Item(NamedTuple):
    """Image of a set, with y = k * x as a true convolution; real photos have no ground truth.

    Attributes:
        name: of the image.
        blurred: y (h, w, c) in [0, 1].
        sharp: x (h, w, c) in [0, 1].
        kernel: k.
        kernel_size: in the published runs.
    """

    name: str
    blurred: NDArray[np.float32]
    sharp: NDArray[np.float32] | None
    kernel: NDArray[np.float32] | None
    kernel_size: int


def groups(name: str) -> dict[str, str]:
    """Groups of an image, by kind: its scene and its kernel."""
    image, kernel, _ = name.split("_")
    return {"image": image, "kernel": kernel}


def resize_item(item: Item, scale: float, shape: tuple[int, int] | None = None) -> Item:
    """Shrink the images and the kernel of an item; the kernel sums to one again.

    y = k * x holds approximately, and averaging reduces the noise.

    Args:
        item: with ground truth.
        scale: below one.
        shape: of the images; None: `scale` times theirs, rounded.
    """
    assert item.sharp is not None and item.kernel is not None
    h, w = shape or (max(1, round(n * scale)) for n in item.blurred.shape[:2])
    blurred, sharp = (
        resize(x, (h, w, x.shape[2]), anti_aliasing=True).astype(np.float32) for x in (item.blurred, item.sharp)
    )
    # odd sides keep the center and the exact scale; the Gaussian is `resize`'s against aliasing
    sides = [max(3, math.ceil(n * scale) | 1) for n in item.kernel.shape]
    smooth = gaussian_filter(item.kernel, max(0, (1 / scale - 1) / 2), mode="constant")
    offset = [(n - 1) / 2 - (side - 1) / 2 / scale for n, side in zip(item.kernel.shape, sides)]
    kernel = affine_transform(smooth, [1 / scale] * 2, offset, tuple(sides), order=1).astype(np.float32)
    return Item(item.name, blurred, sharp, kernel / kernel.sum(), max(kernel.shape))


def find_folder(data: str | Path | None, name: str, subfolders: Sequence[str], layout: str) -> Path:
    """Folder of a set: `data` itself, or `name` in it; without `data`, the same for $JBID_DATA.

    Args:
        data: folder, or None.
        name: of the set's folder.
        subfolders: that it must have.
        layout: description for the error.

    Raises:
        ValueError: with the layout, if there is no such folder.
    """
    path = data or os.environ.get("JBID_DATA")
    for folder in (Path(path), Path(path) / name) if path else ():
        if all((folder / subfolder).is_dir() for subfolder in subfolders):
            return folder
    if path:
        raise ValueError(f"{path}: expected a folder with {layout}")
    raise ValueError(f"`data` or the environment variable JBID_DATA must be a folder with {layout}")


def root(data: str | Path | None) -> Path:
    """Folder of the set: `data`, or `levin` in it or in $JBID_DATA.

    Raises:
        ValueError: with the expected layout, if there is no such folder.
    """
    layout = "gt/im1.png.., kernels/kernel1.png.. and blurry/im1_kernel1_img.png.. of SelfDeblur's release"
    return find_folder(data, "levin", ("gt", "kernels", "blurry"), layout)


def files(folder: Path, name: str) -> tuple[tuple[Path, Path, Path], bool]:
    """Files of an image: (blurred, sharp, kernel), and True if the kernel is that of a true convolution.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"unknown Levin image {name!r}. Names go from {NAMES[0]} to {NAMES[-1]}.")
    i, k = int(name[2]), int(name[10])
    paths = folder / "blurry" / f"{name}.png", folder / "gt" / f"im{i}.png", folder / "kernels" / f"kernel{k}.png"
    return paths, k in _CONVOLVED_KERNELS


def read_item(name: str, paths: Sequence[Path], is_convolved: bool, kernel_size: int | None = None) -> Item:
    """Read an image of a set.

    Args:
        name: of the image.
        paths, is_convolved: see `files`.
        kernel_size: of the published runs; None: that of the kernel's file.
    """
    blurred, sharp, kernel = read_image(paths[0]), read_image(paths[1]), read_kernel(paths[2])
    kernel = kernel if is_convolved else kernel[::-1, ::-1]
    return Item(name, blurred, sharp, kernel, kernel_size or max(kernel.shape) | 1)


def load(data: str | Path | None = None, names: Sequence[str] = NAMES) -> list[Item]:
    """Read images of the set.

    Args:
        data: folder, see `root`.
        names: of the images.

    Raises:
        ValueError: for an unknown name or a missing folder.
    """
    folder = root(data)
    return [read_item(name, *files(folder, name), KERNEL_SIZES[int(name[10]) - 1]) for name in names]
