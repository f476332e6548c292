from __future__ import annotations

import numpy as np
import pytest
import tifffile
from skimage import io
from skimage.color import rgb2yuv

from jbid import images as im


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 1), (7, 9, 3)])
def test_write_and_read(tmp_path, shape):
    image = rng().random(shape)
    im.write(tmp_path / "a.png", image)
    back = im.read(tmp_path / "a.png")
    assert back.dtype == np.float32 and back.shape == (7, 9, 3 if shape[2:] == (3,) else 1)
    np.testing.assert_allclose(back.squeeze(), image.squeeze(), atol=0.501 / 255)


def test_depths_and_channels(tmp_path):
    deep = rng().integers(0, 65536, (6, 5, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", deep)
    np.testing.assert_allclose(im.read(tmp_path / "deep.tif"), deep / 65535, atol=1e-6)
    gray = rng().integers(0, 65536, (6, 5), dtype=np.uint16)
    io.imsave(tmp_path / "gray16.png", gray, check_contrast=False)
    np.testing.assert_allclose(im.read(tmp_path / "gray16.png")[..., 0], gray / 65535, atol=1e-6)
    see_through = rng().integers(0, 256, (6, 5, 4), dtype=np.uint8)
    io.imsave(tmp_path / "alpha.png", see_through, check_contrast=False)
    np.testing.assert_allclose(im.read(tmp_path / "alpha.png"), see_through[..., :3] / 255, atol=1e-6)


def test_kernel_files_are_scaled_by_their_maximum(tmp_path):
    kernel = rng().random((5, 7))
    kernel /= kernel.sum()
    im.write_kernel(tmp_path / "k.png", kernel)
    assert io.imread(tmp_path / "k.png").max() == 65535
    np.testing.assert_allclose(im.read_kernel(tmp_path / "k.png"), kernel, atol=1e-5)
    im.write(tmp_path / "black.png", np.zeros((3, 3)))
    with pytest.raises(ValueError, match="black"):
        im.read_kernel(tmp_path / "black.png")


def test_colour_goes_there_and_back():
    rgb = rng().random((4, 5, 3))
    np.testing.assert_allclose(im.to_rgb(im.to_ycbcr(rgb)), rgb, atol=1e-4)
    np.testing.assert_allclose(im.luma(rgb)[..., 0], rgb2yuv(rgb)[..., 0], atol=1e-6)
    gray = np.full((2, 2, 3), 0.3)
    np.testing.assert_allclose(im.to_ycbcr(gray)[..., 1:], 0, atol=1e-6)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), im.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
