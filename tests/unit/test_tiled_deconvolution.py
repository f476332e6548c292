from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest
from skimage import data

from jbid.deconvolution import tiled
from jbid.deconvolution.tiled import TILE_OPTIONS, Axis, deconvolve_tiled
from jbid.kernel_estimation.patch import Region, largest_rectangle, most_informative_region
from jbid.metrics import align
from jbid.ops.color import luma
from jbid.ops.conv import blur
from jbid.ops.motion import gaussian_process_kernel, kernel_of_extent
from jbid.pretrain.blurred_photos import perturb_kernel


@pytest.mark.parametrize("length, tile, overlap", [(1000, 300, 90), (301, 300, 90), (300, 300, 90), (2047, 512, 100)])
def test_tiles_cover_and_their_weights_are_positive(length, tile, overlap):
    axis = Axis(length, tile, overlap)
    starts = axis.starts()
    assert starts[0] == 0 and starts[-1] == length - tile
    assert all(b - a <= tile - overlap for a, b in itertools.pairwise(starts))
    total = np.zeros(length)
    for start in starts:
        total[start : start + tile] += axis.weights(start)
    # everywhere at least one tile counts fully or two share
    assert total.min() >= 0.99


# the network sees the mean of a tile and the size of its residual
@pytest.mark.parametrize("method, most", [("sparse", 1 / 255), ("learned", 4 / 255)])
def test_tiles_leave_no_seams(method, most):
    kernel = np.asarray(gaussian_process_kernel(jax.random.key(0), 9))
    sharp = data.camera()[100:320, 60:370, None].astype(np.float32) / 255
    blurred = np.asarray(blur(sharp, kernel))
    blurred = blurred + np.float32(0.01) * np.random.default_rng(0).standard_normal(blurred.shape, np.float32)
    calls = []
    tiled = deconvolve_tiled(
        blurred, kernel, method=method, tile=192, on_tile=lambda done, of: calls.append((done, of))
    )
    whole = deconvolve_tiled(blurred, kernel, method=method, tile=1000, options=TILE_OPTIONS)
    assert calls[-1][0] == calls[-1][1] == len(calls) > 2
    assert np.abs(tiled - whole)[32:-32, 32:-32].max() < most and np.abs(tiled - whole).mean() < most / 8
    # and tiles were not just one
    assert np.abs(tiled - whole).max() > 0


def perturbed_scene(noise=0.03, gain=1.0):
    """A sharp photo, a blurred one and a kernel with errors."""
    kernel = kernel_of_extent(15, 4)
    sharp = np.float32(gain) * data.astronaut()[20:280, 110:390].astype(np.float32) / 255
    blurred = np.asarray(blur(sharp, kernel))
    blurred = blurred + noise * np.random.default_rng(0).standard_normal(blurred.shape)
    (h, w), half = blurred.shape[:2], kernel.shape[0] // 2
    return sharp[half : half + h, half : half + w], np.clip(blurred, 0, 1).astype(np.float32), kernel


def test_network_repairs_what_a_wrong_kernel_spoils():
    truth, blurred, kernel = perturbed_scene()
    wrong = perturb_kernel(kernel, np.random.default_rng(1))
    images = (deconvolve_tiled(blurred, wrong, method=method) for method in ("sparse", "learned"))
    sparse, learned = (align(luma(image), luma(truth)).psnr for image in images)
    assert learned > sparse + 0.2


@pytest.mark.parametrize(
    "noise, gain, is_exact, large, chosen",
    [
        (0.03, 1, True, 10**6, "learned"),
        (0.002, 1, True, 10**6, "sparse"),
        (0.15, 1, True, 10**6, "sparse"),
        (0.03, 1.5, True, 10**6, "sparse"),
        (0.002, 1, False, 10**6, "learned"),
        (0.15, 1, False, 10**6, "sparse"),
        (0.03, 1, False, 1000, "learned"),
        (0.002, 1, False, 1000, "sparse"),
    ],
)
def test_network_is_used_where_it_wins(monkeypatch, noise, gain, is_exact, large, chosen):
    monkeypatch.setattr(tiled, "LARGE", large)
    _, blurred, kernel = perturbed_scene(noise, gain)
    methods = ("auto", "sparse", "learned")
    found = {m: deconvolve_tiled(blurred, kernel, method=m, is_exact=is_exact) for m in methods}
    assert np.abs(found["sparse"] - found["learned"]).max() > 1e-3
    np.testing.assert_array_equal(found["auto"], found[chosen])


@pytest.mark.parametrize("scale", [1, 40])
def test_largest_rectangle_of_known_pixels(scale):
    known = np.ones((30, 40), bool)
    known[:, 25] = known[20, :25] = False
    known[5, 30] = False
    large = np.kron(known, np.ones((scale, scale), bool))
    found, cell = largest_rectangle(large), -(-large.shape[1] // 96)
    assert found.of(large).all() and found[:2] == (0, 0)
    assert 25 * scale - cell < found.width <= 25 * scale and 20 * scale - cell < found.height <= 20 * scale
    disc = np.hypot(*np.ogrid[-500:500, -500:500]) < 500
    found = largest_rectangle(disc)
    assert found.of(disc).all() and 0.9 * 500000 < found.width * found.height <= 500000


def test_most_informative_region_contains_the_edges():
    picture = np.full((300, 400, 1), 0.5, np.float32)
    rng = np.random.default_rng(0)
    picture[150:250, 250:350, 0] = np.kron(rng.random((10, 10)), np.ones((10, 10)))
    region = most_informative_region(picture, 120)
    assert region.width == region.height == 120
    assert region.y <= 155 and region.y + 120 >= 245 and region.x <= 255 and region.x + 120 >= 345
    # edges in one direction alone tell little: stripes do not win
    picture[20:140, 20:140, 0] = np.tile(np.repeat([0.1, 0.9], 5), 12)
    assert most_informative_region(picture, 120).y > 100
    # nor do clipped lights
    picture[20:140, 20:140, 0] = np.kron(rng.integers(0, 2, (24, 24)), np.ones((5, 5)))
    assert most_informative_region(picture, 120).y > 100
    assert most_informative_region(picture, 1000) == Region(0, 0, 400, 300)


def test_tiles_of_a_scaled_axis_begin_at_multiples_of_the_scale():
    axis = Axis(19, 8, 2)
    assert [start * 128 for start in axis.starts()] == axis.scaled(128).starts()
