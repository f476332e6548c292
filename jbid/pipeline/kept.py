"""Pixels that no camera saw: found, left out of the restoration, and put back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jbid.kernel_estimation.overlay import fill, find_writing
from jbid.kernel_estimation.patch import SMALLEST_CONTENT, Region, largest_rectangle


class Kept(NamedTuple):
    """Pixels that no camera saw, which stay as they are.

    Attributes:
        image: the whole image, with them.
        content: the part within the bars, or the transparent surroundings, around it.
        unknown: (h, w) of that part, True for pixels of writing over it and for transparent ones; None: none.
        visible: rectangle of that part, if possible without transparent pixels, from which the kernel is estimated.
        warnings: one line for each kind that was left out.
    """

    image: NDArray[np.float32]
    content: Region
    unknown: NDArray[np.bool_] | None
    visible: Region
    warnings: tuple[str, ...]

    def put_back(self, restored: NDArray[np.float32]) -> NDArray[np.float32]:
        """The whole image with the restored part in its place."""
        out = self.image.copy()
        part = self.content.of(out)
        part[:] = restored if self.unknown is None else np.where(self.unknown[..., None], part, restored)
        return out


def leave_out(
    image: NDArray[np.float32], content: Region, transparent: NDArray[np.bool_] | None = None
) -> tuple[Kept | None, NDArray[np.float32]]:
    """Image within its bars, other pixels replaced by what is around them, and what is to be put back; None: nothing.

    Args:
        image: (h, w, c) in [0, 1].
        content: of `find_content`.
        transparent: (h, w), True for pixels without an image; None: none.
    """
    warnings = []
    if transparent is not None and transparent.any() and not transparent.all():
        content = _visible(content, transparent)
        transparent = content.of(transparent)
        warnings.append("transparent pixels were left out and stay as they are")
    else:
        transparent = None
        if content[2:] != image.shape[1::-1]:
            warnings.append("bars of one color at the border were left out and stay as they are")
    inner = content.of(image)
    visible = Region(0, 0, content.width, content.height)
    unknown = None if transparent is None or not transparent.any() else transparent
    if unknown is not None:
        inner, rectangle = fill(inner, unknown), largest_rectangle(~unknown)
        visible = rectangle if min(rectangle.width, rectangle.height) >= SMALLEST_CONTENT else visible
    writing = find_writing(inner)
    if writing is not None:
        warnings.append("writing over the image, such as a date, was left out and stays as it is")
        inner, unknown = fill(inner, writing), writing if unknown is None else writing | unknown
    return (Kept(image, content, unknown, visible, tuple(warnings)) if warnings else None), inner


def _visible(content: Region, transparent: NDArray[np.bool_]) -> Region:
    """Least rectangle with all pixels that are not transparent, within a part of the image if it is not empty there."""
    shown = ~content.of(transparent)
    if not shown.any():
        content, shown = Region(0, 0, *transparent.shape[::-1]), ~transparent
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    width, height = int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1
    return Region(content.x + int(columns[0]), content.y + int(rows[0]), width, height)
