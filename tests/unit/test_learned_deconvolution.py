"""Learned deconvolution: maps, correction, its limits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import uniform_filter
from skimage import data

from jbid.deconvolution.learned import (
    LEVELS,
    MAPS,
    contrast_scale,
    correction_input,
    deconvolve_learned,
    kernel_levels,
)
from jbid.deconvolution.sparse import deconvolve_sparse, sparse_latent
from jbid.nets.deconvolver import DIFFERENT, FACTOR, OUTPUT, DeconvolutionNet
from jbid.ops.color import luma
from jbid.ops.conv import blur
from jbid.ops.motion import kernel_of_extent
from jbid.pretrain.loop import ship


@pytest.fixture(scope="module")
def scene():
    """Sharp color image with its surroundings, kernel and blurred image."""
    sharp = (data.astronaut()[:140, 150:300] / 255).astype(np.float32)
    kernel = kernel_of_extent(13, 3)
    return sharp, kernel, np.asarray(blur(sharp, kernel), np.float32)


def network_folder(folder, last):
    """Weights of a small network whose correction is `last` everywhere."""
    net = DeconvolutionNet(8, 8)
    variables = dict(net.init(jax.random.key(0), jnp.zeros((1, 8, 8, MAPS)), jnp.zeros((1, LEVELS))))
    params = dict(variables["params"])
    *_, name = sorted((n for n in params if n.startswith("Conv_")), key=lambda n: int(n.split("_")[1]))
    params[name] = {**params[name], "bias": jnp.full(4, last)}
    ship(folder, "deconvolver", {"params": params}, {"settings": {"width": 8, "deep_width": 8}})
    return folder


def given(blurred, kernel, latent, **options):
    numbers = {"scale": contrast_scale(blurred), "noise": 0.001, "levels": kernel_levels(kernel)}
    return correction_input(blurred, kernel, latent, **(numbers | options))


def test_input_of_both_array_types(scene):
    sharp, kernel, blurred = scene
    y, x = blurred[..., 0], sharp[..., 0]
    host = given(y, kernel, x)
    scale, levels = contrast_scale(y), kernel_levels(kernel)
    compiled = jax.jit(lambda *args: correction_input(*args, scale=scale, noise=0.001, levels=levels))
    device = compiled(*(jnp.asarray(v) for v in (y, kernel, x)))
    assert host.maps.dtype == host.levels.dtype == np.float32
    assert host.maps.shape == (*y.shape, MAPS) and host.levels.shape == (LEVELS,)
    for a, b in zip(host, device):
        np.testing.assert_allclose(a, b, atol=1e-3 * np.abs(a).max())


def test_residual_shows_a_wrong_kernel_and_neither_clipped_nor_unknown_pixels(scene):
    sharp, kernel, blurred = scene
    y, x = blurred[..., 0], sharp[..., 0]
    right, wrong = given(y, kernel, x), given(y, np.flip(kernel), x)
    assert np.abs(right.maps[..., -1]).max() < 0.05 < 1 < np.abs(wrong.maps[..., -1]).max()
    assert wrong.levels[1] > right.levels[1] + 3
    bright = 3 * x
    clipped = np.minimum(np.asarray(blur(bright[..., None], kernel))[..., 0], 1)
    assert (clipped == 1).mean() > 0.1
    assert np.abs(given(clipped, kernel, bright).maps[..., -1]).max() < 0.05
    unknown = np.zeros(y.shape, bool)
    unknown[40:60, 50:70] = True
    painted = np.where(unknown, 0.9, y)
    assert np.abs(given(painted, kernel, x, unknown=unknown).maps[..., -1]).max() < 0.05
    assert np.abs(given(painted, kernel, x).maps[..., -1]).max() > 1


def test_correction_is_added_to_all_channels(scene, tmp_path):
    _, kernel, blurred = scene
    scale, weight = 0.8, 1e-4
    options = {"scale": scale, "noise": 0.001, "levels": kernel_levels(kernel), "weight": weight, "rounds": 2}
    nothing = deconvolve_learned(blurred, kernel, folder=network_folder(tmp_path / "zero", 0.0), **options)
    sparse = deconvolve_sparse(blurred, kernel, weight=weight, rounds=2)
    np.testing.assert_allclose(nothing, sparse, atol=1e-6)
    brighter = deconvolve_learned(blurred, kernel, folder=network_folder(tmp_path / "more", 4.0), **options)
    added = brighter - nothing
    is_inside = ((brighter < 1) & (nothing > 0)).all(-1)  # what was cut off is unknown
    np.testing.assert_allclose(added[is_inside], added[is_inside][:, :1] * np.ones(3), atol=1e-5)
    # in proportion to how much deconvolutions differ nearby
    gray = [luma(x)[..., 0] for x in (blurred, sparse_latent(blurred, kernel, weight=weight, rounds=2))]
    numbers = {name: options[name] for name in ("scale", "noise", "levels")}
    maps = correction_input(gray[0], kernel, gray[1], **numbers).maps
    different = np.sqrt(uniform_filter((maps[..., DIFFERENT] ** 2).mean(-1), 18))
    expected = OUTPUT * 4 * different[is_inside] / scale
    assert np.corrcoef(added[is_inside][:, 0], expected)[0, 1] > 0.97
    assert added[is_inside].mean() == pytest.approx(expected.mean(), rel=0.05)


def test_network_shifts_with_the_image(tmp_path):
    net = DeconvolutionNet(8, 8)
    maps = np.random.default_rng(0).standard_normal((1, 160, 160, MAPS)).astype(np.float32)
    levels = jnp.ones((1, LEVELS))
    variables = net.init(jax.random.key(1), maps, levels)
    key = jax.random.key(2)
    variables = jax.tree.map(lambda v: v + 0.1 * jax.random.normal(key, v.shape), variables)
    whole, part = net.apply(variables, maps, levels), net.apply(variables, maps[:, FACTOR:, FACTOR:], levels)
    # beyond the reach of the border
    np.testing.assert_allclose(whole[:, 64:-64, 64:-64], part[:, 60:-64, 60:-64], atol=1e-4)
    assert np.std(whole) > 0.01
