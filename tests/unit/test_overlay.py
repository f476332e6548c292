"""Writing over an image: found, filled, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from jbid.kernel_estimation.overlay import fill, find_writing
from jbid.ops.conv import blur
from jbid.ops.motion import kernel_of_extent


@pytest.fixture(scope="module")
def blurred():
    sharp = (data.astronaut()[:340, 60:460] / 255).astype(np.float32)
    out = np.asarray(blur(sharp, kernel_of_extent(15, 1)))
    out = out + 0.003 * np.random.default_rng(0).standard_normal(out.shape)
    return np.round(np.clip(out, 0, 1) * 255).astype(np.uint8)


def stamped(image, text, color, size=22):
    """The image with writing over it, and the pixels that it covers."""
    stamp, letters = Image.fromarray(image), Image.new("L", image.shape[1::-1])
    font = ImageFont.load_default(size)
    for canvas, ink in ((stamp, color), (letters, 255)):
        ImageDraw.Draw(canvas).text((10, 20), text, fill=ink, font=font)
    return (np.asarray(stamp) / 255).astype(np.float32), np.asarray(letters) > 40


@pytest.mark.parametrize("color", [(255, 150, 20), (255, 255, 255)])
def test_date_is_found_and_filled(blurred, color):
    image, letters = stamped(blurred, "12.05.2003  17:44", color)
    found = find_writing(image)
    assert found is not None and found[letters].mean() > 0.99 and found.mean() < 6 * letters.mean()
    filled = fill(image, found)
    np.testing.assert_array_equal(filled[~found], image[~found])
    before, after = (np.abs(x - blurred / 255)[found].mean() for x in (image, filled))
    assert after < before / 2


def test_nothing_is_found_where_nothing_is_written(blurred):
    assert find_writing((blurred / 255).astype(np.float32)) is None
    for sharp in (data.astronaut()[:300, :300], data.page()[..., None]):
        assert find_writing((sharp / 255).astype(np.float32)) is None
    point = np.full((64, 64, 1), 0.1, np.float32)
    point[30, 30] = 1
    assert find_writing(point) is None
    # a straight motion blur leaves edges along itself
    stripes = (data.page()[:180, :300, None] / 255).astype(np.float32)
    assert find_writing(np.asarray(blur(stripes, np.full((1, 41), 1 / 41, np.float32)))) is None
