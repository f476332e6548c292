"""Writing over a blurred image, such as the date that a camera prints: sharp where nothing else is."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from jbid.ops.noise import estimate_noise

# second differences of a letter's edge, over the noise and over all but `_SHARPEST` of the pixels
_OVER_NOISE = 12.0
_OVER_REST = 2.5
_SHARPEST = 0.04
_FEWEST = 4  # letters
_LARGEST = 0.06  # share of the image that the line of writing covers
_TALLEST = 0.12  # height of the line over that of the image
_OUTSIDE = 0.1  # share of the sharp pixels that may lie elsewhere
_EITHER = 0.25  # share of them with such differences down and across, at least
_MARGIN = 2  # pixels around the letters


def find_writing(image: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """Pixels (h, w) of one line of writing in an image (h, w, c), with a margin; None if there is none.

    No blur leaves second differences as large as the edges of printed letters have them. So the image has writing if
    nearly all pixels with very large ones lie in one flat box, in at least `_FEWEST` parts side by side.
    """
    h, w = image.shape[:2]
    second = [np.abs(scipy.ndimage.correlate1d(image, [1, -2, 1], axis)).max(-1) for axis in (0, 1)]
    strength = np.maximum(*second)
    limit = max(_OVER_NOISE * float(estimate_noise(image)), _OVER_REST * float(np.quantile(strength, 1 - _SHARPEST)))
    is_sharp = strength > limit
    if is_sharp.sum() < _FEWEST * 8:
        return None
    # what is in a line is connected over the gaps between words
    gap = max(2, round(h * _TALLEST / 6))
    # the same as a dilation by this rectangle, which would take minutes for a photo of many pixels
    near = scipy.ndimage.maximum_filter(is_sharp, (2 * gap + 1, 6 * gap + 1), mode="constant")
    labels, count = scipy.ndimage.label(near)
    sizes = np.bincount(labels[is_sharp], minlength=count + 1)
    line = int(sizes.argmax())
    letters = is_sharp & (labels == line)
    rows, columns = scipy.ndimage.find_objects(letters.astype(int))[0]
    height, width = rows.stop - rows.start, columns.stop - columns.start
    is_flat = height <= _TALLEST * h and height * width <= _LARGEST * h * w and width > 2 * height
    if not is_flat or sizes[line] < (1 - _OUTSIDE) * is_sharp.sum():
        return None
    # a straight motion blur leaves edges along itself
    across = min(int((letters & (values > limit)).sum()) for values in second)
    if across < _EITHER * letters.sum() or scipy.ndimage.label(letters, np.ones((3, 3)))[1] < _FEWEST:
        return None
    letters = scipy.ndimage.binary_closing(letters, np.ones((5, 5)))
    return scipy.ndimage.binary_dilation(scipy.ndimage.binary_fill_holes(letters), np.ones((3, 3)), _MARGIN)


def fill(image: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Image (h, w, c) whose pixels in a mask continue what is around them, smoothly."""
    nearest = scipy.ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
    filled = image[tuple(nearest)]
    smooth = scipy.ndimage.gaussian_filter(filled, (3, 3, 0))
    return np.where(mask[..., None], smooth, image)
