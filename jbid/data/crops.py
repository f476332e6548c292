"""Random crops of sharp photos for training, read by grain from a folder or a TFDS data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jbid.io.images import read_image
from jbid.ops.color import luma

HELD_OUT_PERIOD = 20  # one of so many photos is held out
ROUNDS = 10_000  # through all photos; endless repetition overflows grain's 64-bit count of items


def find_images(folder: Path) -> list[Path]:
    """List the files in a folder and its subfolders with the suffix of an image, by path."""
    suffixes = set(Image.registered_extensions())
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.is_file())


class _Folder:
    """Random-access source of the photos in a folder and its subfolders."""

    def __init__(self, folder: Path):
        self._files = find_images(folder)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, i: int) -> NDArray[np.float32]:
        return read_image(self._files[i])


class _Subset:
    """Random-access source of some items of another one."""

    def __init__(self, source: Any, indices: Sequence[int]):
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, i: int) -> Any:
        return self._source[self._indices[i]]


def _open_source(name: str) -> Any:
    """Random-access source of the photos of a folder or a TFDS data set."""
    if Path(name).is_dir():
        return _Folder(Path(name))
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise ValueError(f"{name}: no such folder. Install jbid[pretrain] for TFDS data sets.") from None
    data_set, _, split = name.partition(":")
    try:
        return tfds.data_source(data_set, split=split or "train")
    except Exception as error:  # its errors have no common type
        # one of its errors lists all data sets
        reason = str(error).strip().partition("\n")[0][:200]
        raise ValueError(f"{name}: neither a folder nor a prepared TFDS data set ({reason})") from None


def _to_image(record: Any) -> NDArray[np.float32]:
    """Image in [0, 1] of an item of a folder or a TFDS data set."""
    if isinstance(record, dict):
        if "image" not in record:
            raise ValueError(f"the data set must have the feature 'image', got {', '.join(record)}")
        record = np.asarray(record["image"], np.float32) / 255
    return record


def rotate_and_flip(image: NDArray, rng: np.random.Generator) -> NDArray:
    """Rotate a square image by a random multiple of 90 degrees, and mirror it with probability 1/2."""
    image = np.rot90(image, int(rng.integers(4)))
    return np.ascontiguousarray(image[:, ::-1] if rng.integers(2) else image)


def draw_window(shape: Sequence[int], side: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a random square of `side` pixels in an image of this shape, which must not be smaller."""
    top, left = (int(rng.integers(n - side + 1)) for n in shape[:2])
    return slice(top, top + side), slice(left, left + side)


def draw_crop(image: NDArray[np.float32], rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """Random square (side, side, c) of an image (h, w, c) after `rotate_and_flip`; enlarges smaller images first."""
    h, w = image.shape[:2]
    if min(h, w) < side:
        factor = side / min(h, w)
        size = (max(side, round(w * factor)), max(side, round(h * factor)))
        channels = (Image.fromarray(channel) for channel in np.moveaxis(image, -1, 0))
        larger = [np.asarray(channel.resize(size, Image.Resampling.BICUBIC)) for channel in channels]
        image = np.stack(larger, -1).clip(0, 1)
    return rotate_and_flip(image[draw_window(image.shape, side, rng)], rng)


def to_rgb(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Repeat the channel of a gray image (h, w, 1) three times; a color image stays the same."""
    return np.broadcast_to(image, (*image.shape[:2], 3))


def split_indices(n: int, held_out: bool | None) -> list[int]:
    """Indices of the training photos or of the held-out ones, among `n` photos.

    One in twenty photos is held out; if there are fewer than twenty, all belong to both parts.

    Args:
        n: number of photos.
        held_out: True: held-out photos, False: training photos, None: all photos.
    """
    return [i for i in range(n) if n < HELD_OUT_PERIOD or held_out is None or (i % HELD_OUT_PERIOD == 0) == held_out]


def import_map_dataset() -> Any:
    """Import the class `grain.MapDataset`.

    Raises:
        ValueError: if grain is not installed.
    """
    try:
        import grain
    except ImportError:
        raise ValueError("training data needs the package grain. Install jbid[pretrain].") from None
    return grain.MapDataset


def shuffle_repeatedly(source: Any, seed: int) -> Any:
    """Make a `grain.MapDataset` of a random-access source, with a new order in each of `ROUNDS` rounds.

    Raises:
        ValueError: if grain is not installed.
    """
    return import_map_dataset().source(source).seed(seed).shuffle().repeat(ROUNDS)


def crops(name: str, side: int, seed: int, *, held_out: bool | None = False, color: bool = False) -> Any:
    """Random crops of photos as a `grain.MapDataset` of float32 arrays in [0, 1].

    Item i is the same in every run. The order of the photos changes in each round.

    Args:
        name: folder, with its subfolders, or prepared TFDS data set. A split follows after a colon; the default is
            "train". `tfds.data_source` reads the data set without TensorFlow.
        side: of the crops.
        seed: random seed.
        held_out: photos of `split_indices`.
        color: crops are RGB (side, side, 3) instead of luma (side, side).

    Raises:
        ValueError: if there is no such folder or data set, or it has no images.
    """
    source = _open_source(name)
    if not len(source):
        raise ValueError(f"{name}: no photos found")
    data = shuffle_repeatedly(_Subset(source, split_indices(len(source), held_out)), seed)
    if color:
        return data.map(lambda record: to_rgb(_to_image(record))).random_map(lambda x, rng: draw_crop(x, rng, side))
    gray = data.map(lambda record: luma(_to_image(record)))
    return gray.random_map(lambda x, rng: draw_crop(x, rng, side)[..., 0])
