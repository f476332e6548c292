"""jbid.kernel_estimation.patch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray


class Region(NamedTuple):
    """A rectangle of a picture, in pixels from its upper left corner."""

    x: int
    y: int
    width: int
    height: int

    def of(self, picture: NDArray) -> NDArray:
        """The part of a picture (h, w, c)."""
        return picture[self.y : self.y + self.height, self.x : self.x + self.width]


def most_informative_region(picture: NDArray[np.float32], side: int) -> Region:
    """The square of `side` pixels (or the whole picture's side, where that is less) that tells most of a blur.

    Blur is read from strong edges in many directions that were not clipped: the largest mean of the smaller eigenvalue
    of the structure tensor of luma (the strength of the weakest direction, Harris and Stephens 1988), at the scale of
    a patch, from which clipped pixels count out.
    """
    gray = picture.mean(-1)
    h, w = gray.shape
    height, width = min(side, h), min(side, w)
    if (height, width) == (h, w):
        return Region(0, 0, w, h)
    step = max(1, min(h, w) // 512)
    small = gray[: h // step * step, : w // step * step].reshape(h // step, step, w // step, step).mean((1, 3))
    dy, dx = np.gradient(small)
    usable = scipy.ndimage.minimum_filter((small > 0.02) & (small < 0.98), 5)
    # few very strong edges, of a lamp or the frame of a scan, must not outweigh many good ones
    length = np.hypot(dx, dy)
    limit = np.quantile(length, 0.98)
    scale = usable * np.minimum(1, limit / np.maximum(length, 1e-9))
    dx, dy = dx * scale, dy * scale
    size = (max(1, height // step), max(1, width // step))
    xx, yy, xy = (scipy.ndimage.uniform_filter(v, size, mode="constant") for v in (dx * dx, dy * dy, dx * dy))
    weakest = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    # centers of windows that lie within the picture
    rows = slice(size[0] // 2, small.shape[0] - (size[0] - 1) // 2)
    columns = slice(size[1] // 2, small.shape[1] - (size[1] - 1) // 2)
    i, j = np.unravel_index(np.argmax(weakest[rows, columns]), weakest[rows, columns].shape)
    return Region(min(int(j) * step, w - width), min(int(i) * step, h - height), width, height)
