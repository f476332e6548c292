"""Part of an image that a kernel is estimated from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray


class Region(NamedTuple):
    """Rectangle of an image, in pixels from its upper left corner."""

    x: int
    y: int
    width: int
    height: int

    def of(self, image: NDArray) -> NDArray:
        """The rectangle's part of an image (h, w, c)."""
        return image[self.y : self.y + self.height, self.x : self.x + self.width]


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
