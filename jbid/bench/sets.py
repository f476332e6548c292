"""Image sets, the selection of images from them, and the cases of a benchmark."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Sequence, Sized
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from numpy.typing import NDArray

from jbid.bench.options import SyntheticConfig
from jbid.data import lai, levin
from jbid.data.levin import Item, resize_item
from jbid.data.synthetic import Synthetic
from jbid.pipeline.config import Config
from jbid.pipeline.resume import run_identity

SMALLEST_CROP = 64  # pixels


@runtime_checkable
class ImageSet(Protocol):
    """Set of images with ground truth."""

    @property
    def NAMES(self) -> Sequence[str]:
        """Names of all images."""
        ...

    def groups(self, name: str) -> dict[str, str]:
        """Groups that an image belongs to, by kind."""
        ...

    def load(self, data: str | Path | None, names: Sequence[str]) -> list[Item]:
        """The named images."""
        ...


SETS: dict[str, Any] = {"levin": levin, "lai": lai}


def make_synthetic_set(config: SyntheticConfig) -> Synthetic:
    """Set of photos blurred by simulated kernels.

    Raises:
        ValueError: for options out of range and without a folder of photos.
    """
    check_not_empty(sizes=config.sizes)
    if any(size < 3 or size % 2 == 0 for size in config.sizes):
        raise ValueError(f"`sizes` must be odd sizes from 3, got {', '.join(map(str, config.sizes))}")
    if config.kernels < 1 or config.crop < SMALLEST_CROP:
        raise ValueError(
            f"`kernels` must be at least 1 and `crop` at least {SMALLEST_CROP}, got {config.kernels} and {config.crop}"
        )
    data = config.data or os.environ.get("JBID_DATA")
    if not data:
        raise ValueError("`data` must be a folder of sharp photos, or set the environment variable JBID_DATA")
    folders = (Path(data) / "sharp" / "kodak24", Path(data))
    folder = next((path for path in folders if path.is_dir()), Path(data))
    return Synthetic(
        folder, tuple(config.sizes), config.kernels, config.model, config.noise, config.crop, config.data_seed
    )


def select_names(
    image_set: ImageSet, *, only: Sequence[str] = (), limit: int | None = None, subset: Sequence[str] = ()
) -> Sequence[str]:
    """Names of the images that a benchmark runs on.

    Args:
        image_set: the images.
        only: these images alone.
        limit: the first images alone.
        subset: groups; an image must belong to one group of each kind that occurs among them.

    Raises:
        ValueError: for an unknown group, and if no image is left.
    """
    check_selection(only, limit)
    names: Sequence[str] = only or image_set.NAMES
    if subset:
        kinds = {group: kind for name in image_set.NAMES for kind, group in image_set.groups(name).items()}
        unknown = sorted(set(subset) - set(kinds))
        if unknown:
            raise ValueError(f"`subset` must be among {', '.join(sorted(kinds))}, got {unknown[0]}")
        wanted_kinds = {kinds[group] for group in subset}
        names = [name for name in names if all(image_set.groups(name)[kind] in subset for kind in wanted_kinds)]
    if not names:
        raise ValueError("no image belongs to both `only` and `subset`")
    return names[:limit]


def check_names(**values: tuple[Sequence[str], Sequence[str]]) -> None:
    """Raise ValueError for an option, pairs of names and known names, with an unknown name or none at all."""
    for option, (names, known) in values.items():
        check_not_empty(**{option: names})
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(f"`{option}` must be among {', '.join(known)}, got {unknown[0]!r}")


def check_not_empty(**values: Sized) -> None:
    """Raise ValueError for an option that names nothing to run."""
    for name, value in values.items():
        if not len(value):
            raise ValueError(f"`{name}` must name at least one")


def check_selection(only: Sequence[str], limit: int | None) -> None:
    """Raise ValueError for a selection by name and by number at once, or a number below 1."""
    if only and limit is not None:
        raise ValueError("`limit` does not go together with `only`. Set one of them.")
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` must be at least 1, got {limit}")


def load_items(image_set: ImageSet, data: Path | None, names: Sequence[str], scale: float = 1.0) -> list[Item]:
    """The named images with their ground truth, shrunk by `scale` in (0, 1].

    Raises:
        ValueError: for a scale out of range, unknown names and missing folders.
    """
    if not 0 < scale <= 1:
        raise ValueError(f"`scale` must be above 0 and at most 1, got {scale}")
    items = image_set.load(data, names)
    return items if scale == 1 else [resize_item(item, scale) for item in items]


class Case(NamedTuple):
    """Image and the run on it.

    Attributes:
        item: the image.
        config: the run.
        kernel: a known kernel; None: estimated.
        padded_shape: rows and columns of `jbid.pipeline.grouping.padded_shapes`.
    """

    item: Item
    config: Config
    kernel: NDArray | None = None
    padded_shape: tuple[int, int] | None = None

    def identity(self) -> str:
        """Fingerprint of everything that decides the result."""
        return run_identity(self.config, self.item.blurred, self.kernel)

    def batch_key(self) -> Hashable:
        """Properties that cases of one batch have in common."""
        config = json.dumps(self.config._asdict(), default=list)
        return config, self.padded_shape, self.item.blurred.shape[2], self.kernel is None
