"""Random crops of sharp photos for training, from a folder or a TFDS data set, with grain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jbid.io.images import read_image
from jbid.ops.color import luma

KEPT_APART = 20  # each so manieth photo is not trained on
ROUNDS = 10_000  # over all photos; grain counts items in 64 bits and an endless repetition overflows


def files(folder: Path) -> list[Path]:
    """The images in a folder and its subfolders, by their suffixes, in order."""
    known = set(Image.registered_extensions())
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in known and p.is_file())


class _Folder:
    """The photos under a folder as a random-access source."""

    def __init__(self, folder: Path):
        self._files = files(folder)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, i: int) -> NDArray[np.float32]:
        return read_image(self._files[i])


class _Part:
    """Some items of a random-access source."""

    def __init__(self, source: Any, items: Sequence[int]):
        self._source, self._items = source, items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, i: int) -> Any:
        return self._source[self._items[i]]


def _source(name: str) -> Any:
    if Path(name).is_dir():
        return _Folder(Path(name))
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise ValueError(f"{name}: no such folder; for a TFDS data set install jbid[pretrain]") from None
    data_set, _, split = name.partition(":")
    try:
        return tfds.data_source(data_set, split=split or "train")
    except Exception as error:  # its errors have no common type
        # and one of them lists all its data sets
        said = str(error).strip().partition("\n")[0][:200]
        raise ValueError(f"{name}: neither a folder nor a TFDS data set that is prepared here ({said})") from None


def _picture(record: Any) -> NDArray[np.float32]:
    if isinstance(record, dict):
        if "image" not in record:
            raise ValueError(f"the data set has no 'image', only {', '.join(record)}")
        record = np.asarray(record["image"], np.float32) / 255
    return record


def random_flip(part: NDArray, rng: np.random.Generator) -> NDArray:
    """A square image turned by a multiple of 90 degrees and mirrored, or not, at random."""
    part = np.rot90(part, int(rng.integers(4)))
    return np.ascontiguousarray(part[:, ::-1] if rng.integers(2) else part)


def place(shape: Sequence[int], side: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a random square of `side` pixels in an image of this shape, which must hold it."""
    top, left = (int(rng.integers(n - side + 1)) for n in shape[:2])
    return slice(top, top + side), slice(left, left + side)


def crop(image: NDArray[np.float32], rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """A random square (side, side, c) of an image (h, w, c), `turned`; a smaller image is enlarged first."""
    h, w = image.shape[:2]
    if min(h, w) < side:
        factor = side / min(h, w)
        shape = (max(side, round(w * factor)), max(side, round(h * factor)))
        channels = (Image.fromarray(channel) for channel in np.moveaxis(image, -1, 0))
        larger = [np.asarray(channel.resize(shape, Image.Resampling.BICUBIC)) for channel in channels]
        image = np.stack(larger, -1).clip(0, 1)
    return random_flip(image[place(image.shape, side, rng)], rng)


def rgb(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """An image (h, w, 1 or 3) in three channels."""
    return np.broadcast_to(image, (*image.shape[:2], 3))


def apart(n: int, held_out: bool | None) -> list[int]:
    """Indices of the photos for training, or of every twentieth for measuring; fewer than twenty serve for both.

    With None all of them.
    """
    return [i for i in range(n) if n < KEPT_APART or held_out is None or (i % KEPT_APART == 0) == held_out]


def map_dataset() -> Any:
    """The class `grain.MapDataset`. Raises ValueError where grain is not installed."""
    try:
        import grain
    except ImportError:
        raise ValueError("reading images for training needs grain: install jbid[pretrain]") from None
    return grain.MapDataset


def endless(source: Any, seed: int) -> Any:
    """A random-access source as a `grain.MapDataset`, shuffled anew in each of `ROUNDS` rounds.

    Raises ValueError where grain is not installed.
    """
    return map_dataset().source(source).seed(seed).shuffle().repeat(ROUNDS)


def crops(name: str, side: int, seed: int, *, held_out: bool | None = False, color: bool = False) -> Any:
    """Crops of luma, (side, side) float32 in [0, 1], as a `grain.MapDataset`: item i is the same in every run.

    With `color` they are (side, side, 3). `name` is a folder, searched with its subfolders, or a TFDS data set, with
    its split after a colon ("train" if there is none), read by `tfds.data_source` without TensorFlow; it must have been
    prepared. Photos come in an order that is shuffled anew in each round. Every twentieth photo is kept apart, for
    `held_out` (`apart`); None takes all. Raises ValueError where there is neither.
    """
    source = _source(name)
    if not len(source):
        raise ValueError(f"{name}: no photos there")
    data = endless(_Part(source, apart(len(source), held_out)), seed)
    if color:
        return data.map(lambda record: rgb(_picture(record))).random_map(lambda x, rng: crop(x, rng, side))
    gray = data.map(lambda record: luma(_picture(record)))
    return gray.random_map(lambda x, rng: crop(x, rng, side)[..., 0])
