from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps
from skimage import io
from skimage.color import rgb2yuv

from jbid.io.files import atomic_write
from jbid.io.images import (
    Photo,
    image_size,
    read_image,
    read_kernel,
    read_photo,
    write_image,
    write_kernel,
    write_photo,
)
from jbid.ops.color import compress_highlights, linear_to_srgb, luma, rgb_to_ycbcr, srgb_to_linear, ycbcr_to_rgb


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 1), (7, 9, 3)])
def test_write_and_read(tmp_path, shape):
    image = rng().random(shape)
    write_image(tmp_path / "a.png", image)
    back = read_image(tmp_path / "a.png")
    assert back.dtype == np.float32 and back.shape == (7, 9, 3 if shape[2:] == (3,) else 1)
    np.testing.assert_allclose(back.squeeze(), image.squeeze(), atol=0.501 / 255)


def test_depths_and_channels(tmp_path):
    deep = rng().integers(0, 65536, (6, 5, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", deep)
    np.testing.assert_allclose(read_image(tmp_path / "deep.tif"), deep / 65535, atol=1e-6)
    gray = rng().integers(0, 65536, (6, 5), dtype=np.uint16)
    io.imsave(tmp_path / "gray16.png", gray, check_contrast=False)
    np.testing.assert_allclose(read_image(tmp_path / "gray16.png")[..., 0], gray / 65535, atol=1e-6)
    see_through = rng().integers(0, 256, (6, 5, 4), dtype=np.uint8)
    io.imsave(tmp_path / "alpha.png", see_through, check_contrast=False)
    np.testing.assert_allclose(read_image(tmp_path / "alpha.png"), see_through[..., :3] / 255, atol=1e-6)


def test_kernel_files_are_scaled_by_their_maximum(tmp_path):
    kernel = rng().random((5, 7))
    kernel /= kernel.sum()
    write_kernel(tmp_path / "k.png", kernel)
    assert io.imread(tmp_path / "k.png").max() == 65535
    np.testing.assert_allclose(read_kernel(tmp_path / "k.png"), kernel, atol=1e-5)
    write_image(tmp_path / "black.png", np.zeros((3, 3)))
    with pytest.raises(ValueError, match="black"):
        read_kernel(tmp_path / "black.png")


def test_color_round_trip():
    rgb = rng().random((4, 5, 3))
    np.testing.assert_allclose(ycbcr_to_rgb(rgb_to_ycbcr(rgb)), rgb, atol=1e-4)
    np.testing.assert_allclose(luma(rgb)[..., 0], rgb2yuv(rgb)[..., 0], atol=1e-6)
    gray = np.full((2, 2, 3), 0.3)
    np.testing.assert_allclose(rgb_to_ycbcr(gray)[..., 1:], 0, atol=1e-6)


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


# once, as it holds the time of its making
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_jpeg_is_read_upright_and_keeps_its_metadata(tmp_path, orientation):
    pixels = rng().integers(0, 256, (16, 24, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274], exif[271], exif[33432] = orientation, "Maker", "Somebody"
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, icc_profile=SRGB, dpi=(300, 300), quality=100)
    photo = read_photo(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as file:
        upright = np.asarray(ImageOps.exif_transpose(file))
    np.testing.assert_array_equal(np.round(photo.image * 255), upright)
    assert image_size(tmp_path / "a.jpg") == upright.shape[1::-1]
    write_photo(tmp_path / "b.png", photo)
    with Image.open(tmp_path / "b.png") as file:
        np.testing.assert_array_equal(np.asarray(file), upright)
        kept = file.getexif()
        assert file.info["icc_profile"] == SRGB and round(file.info["dpi"][0]) == 300
        assert kept[271] == "Maker" and kept[33432] == "Somebody" and 274 not in kept


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bit_round_trip(tmp_path, suffix, channels):
    image = rng().integers(0, 65536, (9, 7, min(channels, 3))).astype(np.float32) / 65535
    alpha = rng().random((9, 7)).astype(np.float32) if channels == 4 else None
    photo = Photo(image, 16, alpha, {"icc_profile": SRGB, "dpi": (200, 200)})
    write_photo(tmp_path / f"a.{suffix}", photo)
    back = read_photo(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(back.image, image, atol=0.51 / 65535)
    assert back.bits == 16 and back.metadata["icc_profile"] == SRGB
    assert round(float(back.metadata["dpi"][0])) == 200
    assert (back.alpha is None) == (alpha is None)
    if alpha is not None:
        np.testing.assert_allclose(back.alpha, alpha, atol=0.51 / 65535)
    # other programs read the same
    other = io.imread(tmp_path / f"a.{suffix}") if suffix == "tif" or channels == 1 else None
    if other is not None:
        np.testing.assert_allclose(other.reshape(9, 7, -1)[..., : min(channels, 3)] / 65535, image, atol=0.51 / 65535)


def test_modes_that_are_converted(tmp_path):
    pixels = rng().integers(0, 256, (8, 6, 4), dtype=np.uint8)
    Image.fromarray(pixels, "CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    photo = read_photo(tmp_path / "cmyk.jpg")
    assert photo.image.shape == (8, 6, 3) and "CMYK" in photo.notes[0] and "icc_profile" not in photo.metadata
    frames = [Image.new("RGB", (6, 8), color) for color in ("red", "green", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    photo = read_photo(tmp_path / "moving.gif")
    assert photo.image.shape[:2] == (8, 6) and "first of 3" in photo.notes[0]
    Image.fromarray(pixels[..., 0]).save(tmp_path / "gray.jpg")
    assert read_photo(tmp_path / "gray.jpg").image.shape == (8, 6, 1)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "alpha.png")
    photo = read_photo(tmp_path / "alpha.png")
    write_photo(tmp_path / "again.png", photo)
    with Image.open(tmp_path / "again.png") as file:
        np.testing.assert_array_equal(np.asarray(file), pixels)


def test_linear_light_round_trip():
    values = np.linspace(0, 1, 257).astype(np.float32)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(values)), values, atol=1e-6)
    # the middle gray of sRGB
    assert srgb_to_linear(np.float32([0.5]))[0] == pytest.approx(0.21404, abs=1e-4)


def test_highlights_are_compressed_smoothly():
    values = np.linspace(0, 3, 301).astype(np.float32)[:, None, None]
    out = compress_highlights(values, knee=0.8)
    np.testing.assert_array_equal(out[values <= 0.8], values[values <= 0.8])
    assert out.max() == pytest.approx(1, abs=1e-6) and (np.diff(out, axis=0) > 0).all()
    # slope 1 at the knee
    assert np.diff(out, axis=0).max() < 0.0101
    np.testing.assert_array_equal(compress_highlights(values[:101]), values[:101])


def test_values_above_white_are_kept_in_a_floating_point_tiff(tmp_path):
    image = 2 * rng().random((5, 6, 3)).astype(np.float32)
    for name in ("a.tif", "a.png", "a.jpg"):
        write_photo(tmp_path / name, Photo(image, 32))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), image)
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), np.minimum(image, 1), atol=1 / 65535)


def test_floating_point_color_is_read(tmp_path):
    pixels = rng().random((9, 7, 3)).astype(np.float32)
    tifffile.imwrite(tmp_path / "float.tif", pixels, photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "float.tif"), pixels)
    assert image_size(tmp_path / "float.tif") == (7, 9)
