"""Pixels that no camera saw: found, left out of the restoration, and put back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jbid.kernel_estimation.overlay import fill, find_writing
from jbid.kernel_estimation.patch import Region


class Kept(NamedTuple):
    """Pixels that no camera saw, which stay as they are.

    Attributes:
        image: the whole image, with them.
        content: the part within the bars around it.
        writing: (h, w) of that part, True for pixels of writing over it; None: no writing.
    """

    image: NDArray[np.float32]
    content: Region
    writing: NDArray[np.bool_] | None

    def put_back(self, restored: NDArray[np.float32]) -> NDArray[np.float32]:
        """The whole image with the restored part in its place."""
        out = self.image.copy()
        part = self.content.of(out)
        part[:] = restored if self.writing is None else np.where(self.writing[..., None], part, restored)
        return out

    def warnings(self) -> list[str]:
        """One line for each kind that was left out."""
        lines = []
        if self.content[2:] != self.image.shape[1::-1]:
            lines.append("bars of one color at the border were left out and stay as they are")
        if self.writing is not None:
            lines.append("writing over the image, such as a date, was left out and stays as it is")
        return lines


def leave_out(image: NDArray[np.float32], content: Region) -> tuple[Kept | None, NDArray[np.float32]]:
    """Image within its bars, writing replaced by what is around it, and what is to be put back; None: nothing."""
    inner = content.of(image)
    writing = find_writing(inner)
    if writing is None and content[2:] == image.shape[1::-1]:
        return None, image
    return Kept(image, content, writing), inner if writing is None else fill(inner, writing)
