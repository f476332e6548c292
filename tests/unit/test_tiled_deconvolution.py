from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest
from skimage import data

from jbid.deconvolution.tiled import TILE_OPTIONS, Axis, deconvolve_tiled
from jbid.kernel_estimation.patch import Region, most_informative_region
from jbid.ops.conv import blur
from jbid.ops.motion import gaussian_process_kernel


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


def test_tiles_leave_no_seams():
    kernel = np.asarray(gaussian_process_kernel(jax.random.key(0), 9))
    sharp = data.camera()[100:320, 60:370, None].astype(np.float32) / 255
    blurred = np.asarray(blur(sharp, kernel))
    calls = []
    tiled = deconvolve_tiled(blurred, kernel, tile=192, on_tile=lambda done, of: calls.append((done, of)))
    whole = deconvolve_tiled(blurred, kernel, tile=1000, options=TILE_OPTIONS)
    assert calls[-1][0] == calls[-1][1] == len(calls) > 2
    assert np.abs(tiled - whole)[32:-32, 32:-32].max() < 1 / 255
    # and tiles were not just one
    assert np.abs(tiled - whole).max() > 0


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
