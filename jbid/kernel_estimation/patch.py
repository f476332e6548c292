"""Part of an image that a kernel is estimated from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

_BAR = 3  # pixels, the thinnest bar
_BAR_SPREAD = 3 / 255  # within a bar
_BAR_STEP = 0.03  # mean difference at its edge; a blur would have smoothed it
_CELLS = 96  # along the longer side, in which a rectangle of known pixels is looked for
SMALLEST_CONTENT = 32  # pixels


class Region(NamedTuple):
    """Rectangle of an image, in pixels from its upper left corner."""

    x: int
    y: int
    width: int
    height: int

    def of(self, image: NDArray) -> NDArray:
        """The rectangle's part of an image (h, w, c)."""
        return image[self.y : self.y + self.height, self.x : self.x + self.width]


def find_content(image: NDArray[np.float32]) -> Region:
    """Part of an image (h, w, c) without the bars or the frame of one color that no camera saw, such as a letterbox.

    A bar is a run of at least `_BAR` rows or columns along a side, of one color within 3 gray levels of 8 bits, that
    ends at a sharp edge. The whole image if nothing else would be left.
    """
    h, w = image.shape[:2]
    top, bottom = (_bar(side) for side in (image, image[::-1]))
    inner = image[top : h - bottom]
    left, right = (_bar(side) for side in (inner.swapaxes(0, 1), inner[:, ::-1].swapaxes(0, 1)))
    content = Region(left, top, w - left - right, h - top - bottom)
    return content if min(content.width, content.height) >= SMALLEST_CONTENT else Region(0, 0, w, h)


def _bar(image: NDArray[np.float32]) -> int:
    """Number of rows of a bar at the upper side."""
    spread = np.ptp(image, axis=1).max(-1)
    ends = np.flatnonzero((spread > _BAR_SPREAD) | (np.abs(image.mean(1) - image[0].mean(0)).max(-1) > _BAR_SPREAD))
    if not len(ends) or ends[0] < _BAR:
        return 0
    step = np.abs(image[ends[0]] - image[ends[0] - 1]).mean()
    return int(ends[0]) if step > _BAR_STEP else 0


def largest_rectangle(is_known: NDArray[np.bool_]) -> Region:
    """Largest rectangle of known pixels, on a grid of at most `_CELLS` x `_CELLS` cells."""
    h, w = is_known.shape
    step = -(-max(h, w) // _CELLS)
    padded = np.pad(is_known, ((0, -h % step), (0, -w % step)))
    cells = np.all(padded.reshape(padded.shape[0] // step, step, -1, step), (1, 3))
    best, area = (0, 0, 0, 0), 0
    above = np.zeros(cells.shape[1], int)  # known cells that end in this row
    for row in range(len(cells)):
        above = np.where(cells[row], above + 1, 0)
        for left in np.flatnonzero(above):
            heights = np.minimum.accumulate(above[left:])
            areas = heights * np.arange(1, len(heights) + 1)
            if areas.max() > area:
                width = int(areas.argmax()) + 1
                best, area = (int(left), row + 1 - int(heights[width - 1]), width, int(heights[width - 1])), areas.max()
    return Region(*(n * step for n in best))


def most_informative_region(image: NDArray[np.float32], side: int) -> Region:
    """Square of an image from which a blur kernel can be estimated best.

    Edges reveal a blur if they are strong, have many directions and are not clipped. The square maximizes the mean of
    the smaller eigenvalue of the structure tensor of luma (the strength of the weakest direction, Harris and Stephens
    1988), at the scale of the square; clipped pixels count as zero.

    Args:
        image: (h, w, c) in [0, 1].
        side: of the square in pixels; along a shorter side of the image, that side.
    """
    gray = image.mean(-1)
    h, w = gray.shape
    height, width = min(side, h), min(side, w)
    if (height, width) == (h, w):
        return Region(0, 0, w, h)
    step = max(1, min(h, w) // 512)
    small = gray[: h // step * step, : w // step * step].reshape(h // step, step, w // step, step).mean((1, 3))
    dy, dx = np.gradient(small)
    is_usable = scipy.ndimage.minimum_filter((small > 0.02) & (small < 0.98), 5)
    # a few very strong edges, of a lamp or the frame of a scan, must not outweigh many good ones
    length = np.hypot(dx, dy)
    limit = np.quantile(length, 0.98)
    scale = is_usable * np.minimum(1, limit / np.maximum(length, 1e-9))
    dx, dy = dx * scale, dy * scale
    size = (max(1, height // step), max(1, width // step))
    xx, yy, xy = (scipy.ndimage.uniform_filter(v, size, mode="constant") for v in (dx * dx, dy * dy, dx * dy))
    weakest = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    # centers of windows that lie within the image
    rows = slice(size[0] // 2, small.shape[0] - (size[0] - 1) // 2)
    columns = slice(size[1] // 2, small.shape[1] - (size[1] - 1) // 2)
    i, j = np.unravel_index(np.argmax(weakest[rows, columns]), weakest[rows, columns].shape)
    return Region(min(int(j) * step, w - width), min(int(i) * step, h - height), width, height)
