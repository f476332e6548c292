"""Learned deconvolution: maps, correction, its limits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage as ndi
from skimage import data

from jbid.deconvolution.learned import (
    BACK_FACTOR,
    BACK_RIDGES,
    LEVELS,
    MAPS,
    SHARE,
    contrast_scale,
    correct,
    correction_input,
    deconvolve_learned,
    kernel_levels,
    observe,
    periodic_shape,
    place_latent,
    trained_networks,
)
from jbid.deconvolution.sparse import deconvolve_sparse, sparse_latent
from jbid.nets.deconvolver import DIFFERENT, FACTOR, OUTPUT, RIDGE_RANGE, Correction, DeconvolutionNet
from jbid.ops.color import luma
from jbid.ops.conv import blur
from jbid.ops.motion import kernel_of_extent
from jbid.ops.periodic import put_inside
from jbid.pretrain.loop import ship


@pytest.fixture(scope="module")
def scene():
    """Sharp color image with its surroundings, kernel and blurred image."""
    sharp = (data.astronaut()[:140, 150:300] / 255).astype(np.float32)
    kernel = kernel_of_extent(13, 3)
    return sharp, kernel, np.asarray(blur(sharp, kernel), np.float32)


def network_folder(folder, *biases):
    """Weights of small networks of constant outputs, one for each stage: the free image, and a factor of each map."""
    net = DeconvolutionNet(8, 8)
    params = {}
    for i, bias in enumerate(biases):
        key = jax.random.key(i)
        stage = dict(net.init(key, jnp.zeros((1, 8, 8, MAPS)), jnp.zeros((1, LEVELS)))["params"])
        *_, name = sorted((n for n in stage if n.startswith("Conv_")), key=lambda n: int(n.split("_")[1]))
        # the outputs of the four pixels of a half-size one lie side by side
        stage[name] = {**stage[name], "bias": jnp.tile(jnp.array(bias, float), 4)}
        *_, last = sorted((n for n in stage if n.startswith("Dense_")), key=lambda n: int(n.split("_")[1]))
        params[f"stage_{i}"] = {**stage, last: {**stage[last], "bias": jnp.full(1, RIDGE_RANGE[1])}}
    ship(folder, "deconvolver", {"params": params}, {"settings": {"width": 8, "deep_width": 8}})
    return folder


NOTHING = (0.0,) * (1 + len(DIFFERENT))


def prepare(blurred, kernel, latent, *, unknown=None, **options):
    """Observation and first deconvolution, periodic."""
    numbers = {"noise": 0.001, **options}
    if not options:
        numbers |= {"scale": contrast_scale(blurred), "levels": kernel_levels(kernel)}
    side = kernel.shape[0]
    x = place_latent(latent * np.float32(numbers["scale"]), side, periodic_shape(blurred.shape, side))
    return observe(blurred, kernel, unknown=unknown, **numbers), x


def given(blurred, kernel, latent, **options):
    return correction_input(*prepare(blurred, kernel, latent, **options))


def test_input_of_both_array_types(scene):
    sharp, kernel, blurred = scene
    y, x = blurred[..., 0], sharp[..., 0]
    host = given(y, kernel, x)
    scale, levels = contrast_scale(y), kernel_levels(kernel)
    compiled = jax.jit(lambda *args: given(*args, scale=scale, levels=levels))
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


def divided(observed, x, ridge):
    """F^-1[conj(K) F(y - k * x) / (|K|^2 + ridge)]."""
    (h, w), residual = observed.blurred.shape, np.zeros(x.shape)
    residual[:h, :w] = observed.blurred - np.fft.irfft2(observed.transfer * np.fft.rfft2(x), x.shape)[:h, :w]
    power = np.abs(observed.transfer) ** 2
    return np.fft.irfft2(observed.transfer.conj() * np.fft.rfft2(residual) / (power + ridge), x.shape)


def test_corrections_follow_each_other(scene):
    sharp, kernel, blurred = scene
    y = blurred[..., 0]
    observed, x = prepare(y, kernel, np.roll(sharp[..., 0], 1, 0))
    (h, w), inputs = y.shape, []
    added = [np.full(y.shape, n, np.float32) for n in (0.1, -0.2)]

    def network(given):
        inputs.append(given)
        return Correction(added[len(inputs) - 1], np.float32(0.05))

    found = correct(observed, x, [network, network])
    for i, result in enumerate(found):
        x = put_inside(x[:h, :w] + added[i], x)
        x = x + divided(observed, x, 0.05).astype(np.float32)
        np.testing.assert_allclose(result, x[:h, :w], atol=1e-5)
    # the second sees the residual of the first's result, and what the first one's was
    assert inputs[1].levels[1] < inputs[0].levels[1] == inputs[1].levels[2] == inputs[0].levels[2]


def test_a_small_ridge_brings_the_image_back_to_what_was_seen(scene):
    sharp, kernel, blurred = scene
    observed, x = prepare(blurred[..., 0], kernel, ndi.gaussian_filter(sharp[..., 0], 1))
    gaps = []
    for ridge in (100.0, 0.1, 0.001):
        nothing = Correction(np.zeros_like(observed.blurred), np.float32(ridge))
        (found,) = correct(observed, x, [lambda given, nothing=nothing: nothing])
        gaps.append(np.abs(correction_input(observed, put_inside(found, x)).maps[..., -1]).mean())
    assert gaps[0] > 1.5 * gaps[1] > 2 * gaps[2]


def test_a_factor_of_one_undoes_what_the_maps_are_scaled_by(scene, tmp_path):
    """A factor of the residual's map is a share of its deconvolution."""
    sharp, kernel, blurred = scene
    observed, x = prepare(blurred[..., 0], kernel, ndi.gaussian_filter(sharp[..., 0], 1))
    factors = [0.0] * len(DIFFERENT)
    factors[-1] = 1 / (OUTPUT * BACK_FACTOR)
    (network,) = trained_networks(network_folder(tmp_path, (0.0, *factors)))
    h, w = observed.blurred.shape
    expected = divided(observed, x, BACK_RIDGES[-1])[:h, :w]
    np.testing.assert_allclose(network(correction_input(observed, x)).added, expected, atol=1e-3 * expected.max())


def test_correction_is_added_to_all_channels(scene, tmp_path):
    _, kernel, blurred = scene
    scale, weight = 0.8, 1e-4
    options = {"scale": scale, "noise": 0.001, "levels": kernel_levels(kernel), "weight": weight, "rounds": 2}
    nothing = deconvolve_learned(blurred, kernel, folder=network_folder(tmp_path / "zero", NOTHING), **options)
    sparse = deconvolve_sparse(blurred, kernel, weight=weight, rounds=2)
    np.testing.assert_allclose(nothing, sparse, atol=1e-5)  # what the division of spectra by the largest ridge adds
    free = network_folder(tmp_path / "more", NOTHING, (4.0, *NOTHING[1:]))
    brighter = deconvolve_learned(blurred, kernel, folder=free, **options)
    added = brighter - nothing
    is_inside = ((brighter < 1) & (nothing > 0)).all(-1)  # what was cut off is unknown
    np.testing.assert_allclose(added[is_inside], added[is_inside][:, :1] * np.ones(3), atol=1e-5)
    # in proportion to how much deconvolutions differ nearby
    gray = [luma(x)[..., 0] for x in (blurred, sparse_latent(blurred, kernel, weight=weight, rounds=2))]
    maps = given(gray[0], kernel, gray[1], scale=scale, levels=options["levels"]).maps
    different = np.sqrt(ndi.uniform_filter((maps[..., DIFFERENT] ** 2).mean(-1), 18))
    expected = SHARE * OUTPUT * 4 * different[is_inside] / scale
    assert np.corrcoef(added[is_inside][:, 0], expected)[0, 1] > 0.97
    assert added[is_inside].mean() == pytest.approx(expected.mean(), rel=0.05)


def test_network_shifts_with_the_image(tmp_path):
    net = DeconvolutionNet(8, 8)
    maps = np.random.default_rng(0).standard_normal((1, 160, 160, MAPS)).astype(np.float32)
    levels = jnp.ones((1, LEVELS))
    variables = net.init(jax.random.key(1), maps, levels)
    key = jax.random.key(2)
    variables = jax.tree.map(lambda v: v + 0.1 * jax.random.normal(key, v.shape), variables)
    whole, part = (net.apply(variables, x, levels).added for x in (maps, maps[:, FACTOR:, FACTOR:]))
    # beyond the reach of the border
    np.testing.assert_allclose(whole[:, 64:-64, 64:-64], part[:, 60:-64, 60:-64], atol=1e-4)
    assert np.std(whole) > 0.01
