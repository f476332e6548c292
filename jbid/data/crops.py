"""Random crops of sharp photos for training, from a folder or a TFDS data set, with grain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jbid import images

KEPT_APART = 20  # each so manieth photo is not trained on
ROUNDS = 10_000  # over all photos; grain counts items in 64 bits and an endless repetition overflows


class _Folder:
    """The photos under a folder as a random-access source."""

    def __init__(self, folder: Path):
        known = set(Image.registered_extensions())
        self._files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in known and p.is_file())

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, i: int) -> NDArray[np.float32]:
        return images.read(self._files[i])


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
        raise ValueError(f"{name}: neither a folder nor a TFDS data set that is prepared here ({error})") from None


def _luma(record: Any) -> NDArray[np.float32]:
    if isinstance(record, dict):
        if "image" not in record:
            raise ValueError(f"the data set has no 'image', only {', '.join(record)}")
        record = np.asarray(record["image"], np.float32) / 255
    return images.luma(record)[..., 0]


def _crop(picture: NDArray[np.float32], rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """A random square of `side` pixels, turned and mirrored at random; a smaller picture is enlarged first."""
    h, w = picture.shape
    if min(h, w) < side:
        factor = side / min(h, w)
        shape = (max(side, round(w * factor)), max(side, round(h * factor)))
        picture = np.asarray(Image.fromarray(picture).resize(shape, Image.Resampling.BICUBIC)).clip(0, 1)
        h, w = picture.shape
    top, left = rng.integers(h - side + 1), rng.integers(w - side + 1)
    part = picture[top : top + side, left : left + side]
    part = np.rot90(part, int(rng.integers(4)))
    return np.ascontiguousarray(part[:, ::-1] if rng.integers(2) else part)


def crops(name: str, side: int, seed: int, *, held_out: bool = False) -> Any:
    """Crops of luma, (side, side) float32 in [0, 1], as a `grain.MapDataset`: item i is the same in every run.

    `name` is a folder, searched with its subfolders, or a TFDS data set, with its split after a colon ("train" if
    there is none), read by `tfds.data_source` without TensorFlow; it must have been prepared. Photos come in an order
    that is shuffled anew in each round. Every twentieth photo is kept apart, for `held_out`; of fewer than twenty, all
    serve both. Raises ValueError where there is neither.
    """
    try:
        import grain
    except ImportError:
        raise ValueError("pretraining needs grain: install jbid[pretrain]") from None
    source = _source(name)
    if not len(source):
        raise ValueError(f"{name}: no photos there")
    if len(source) >= KEPT_APART:
        source = _Part(source, [i for i in range(len(source)) if (i % KEPT_APART == 0) == held_out])
    data = grain.MapDataset.source(source).seed(seed).shuffle().repeat(ROUNDS)
    return data.map(_luma).random_map(lambda picture, rng: _crop(picture, rng, side))
