"""Groups of images that run together: padded shapes, and batches of one shape."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from jbid.pipeline.config import Config
from jbid.pipeline.prepare import PreparedImage

WASTE = 0.15  # share of a padded shape that an image may leave empty

_T = TypeVar("_T")


def group_by(items: Iterable[_T], key: Callable[[_T], Hashable]) -> list[list[_T]]:
    """Items with equal keys together, in the order of their first appearance."""
    groups: dict[Hashable, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def batches(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """Consecutive batches of at most `size` items."""
    for i in range(0, len(items), size):
        yield items[i : i + size]


def batch_key(prepared: PreparedImage) -> Hashable:
    """Properties that prepared images of one batch have in common: padded shape, channels and kernel shape."""
    return prepared.padded_shape, prepared.observed.shape[2], prepared.kernel_shape


def padded_shapes(shapes: Iterable[Sequence[int]], config: Config) -> dict[tuple[int, int], tuple[int, int]]:
    """Padded shape of the part that the method sees, for each (rows, columns) of images.

    From large to small, a shape joins the first group whose padded shape, grown to hold it, every member fills except
    for a share of `WASTE`. So images of many sizes compile few programs. The padding counts as unknown pixels.
    Methods that look at pixels outside the loss, and runs that may stop early, keep their own shapes.
    """
    waste = WASTE if config.spec.is_maskable and not config.spec.stops_early(config.options) else 0

    def seen(shape):
        if config.region:
            return config.region[3], config.region[2]
        return tuple(min(side, config.patch or side) for side in shape[:2])

    def cover(group):
        return max(h for h, _ in group), max(w for _, w in group)

    shapes = list(shapes)
    groups: list[list[tuple[int, int]]] = []
    for shape in sorted({seen(shape) for shape in shapes}, key=lambda s: -s[0] * s[1]):
        for group in groups:
            h, w = cover([*group, shape])
            if all(part[0] * part[1] >= (1 - waste) * h * w for part in [*group, shape]):
                group.append(shape)
                break
        else:
            groups.append([shape])
    padded = {shape: cover(group) for group in groups for shape in group}
    return {(shape[0], shape[1]): padded[seen(shape)] for shape in shapes}


def pad_unknown(observed: NDArray, shape: tuple[int, int]) -> NDArray:
    """The observed part with NaN pixels, which count as unknown, below and to the right."""
    below, right = (full - side for full, side in zip(shape, observed.shape[:2]))
    return np.pad(observed, ((0, below), (0, right), (0, 0)), constant_values=np.nan)
