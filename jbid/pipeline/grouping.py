"""jbid.pipeline.grouping."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from jbid.pipeline.config import Config

# the methods whose loss alone looks at the picture's pixels: the engine knows which of those are unknown
PADDED = ("selfdeblur", "gkpile")


def padded_shapes(
    shapes: Iterable[Sequence[int]], settings: Config, *, waste: float = 0.15
) -> dict[tuple[int, int], tuple[int, int]]:
    """For each (rows, columns) of pictures, those of the part that the method sees, padded to share programs.

    From large to small, a shape joins the first group whose room, grown to hold it, none of the group fills by less
    than 1 - `waste`; so pictures of many sizes compile few programs. What is padded counts as unknown. Methods that
    look at pixels elsewhere than in the loss, and runs that stop themselves, keep their own shapes.
    """
    if settings.method not in PADDED or settings.options.get("stop", False):
        waste = 0

    def seen(shape):
        if settings.region:
            return settings.region[3], settings.region[2]
        return tuple(min(side, settings.patch or side) for side in shape[:2])

    shapes = list(shapes)
    groups: list[list[tuple[int, int]]] = []

    def room(group):
        return max(h for h, _ in group), max(w for _, w in group)

    for shape in sorted({seen(shape) for shape in shapes}, key=lambda s: -s[0] * s[1]):
        for group in groups:
            h, w = room([*group, shape])
            if all(part[0] * part[1] >= (1 - waste) * h * w for part in [*group, shape]):
                group.append(shape)
                break
        else:
            groups.append([shape])
    found = {shape: room(group) for group in groups for shape in group}
    return {(shape[0], shape[1]): found[seen(shape)] for shape in shapes}


def pad_unknown(observed: NDArray, room: tuple[int, int]) -> NDArray:
    """The observed part with pixels that are no numbers, and so unknown, below and to the right."""
    below, right = (full - side for full, side in zip(room, observed.shape[:2]))
    return np.pad(observed, ((0, below), (0, right), (0, 0)), constant_values=np.nan)
