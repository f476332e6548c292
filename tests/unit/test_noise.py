from __future__ import annotations

import colorsys
from functools import partial
from io import BytesIO

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage import data
from skimage.restoration import estimate_sigma

from jbid.deconvolution.sparse import deconvolve_sparse, regularization_weight, sparse_deconvolution
from jbid.metrics import align
from jbid.ops.conv import blur, crop_center, pad_edge
from jbid.ops.motion import gaussian_process_kernel
from jbid.ops.noise import (
    NOISE_LEVELS,
    NOISE_MODELS,
    add_noise,
    compression_noise,
    detect_impulses,
    estimate_error,
    estimate_noise,
    gaussian_noise,
    impulse_noise,
    parse_noise,
    remove_impulses,
    saturation,
    shot_noise,
)
from jbid.runtime.compile import jit

GRAY = jnp.full((200, 200, 3), 0.4)
KEY = jax.random.key(0)


def test_noise_models_have_their_statistics():
    x = gaussian_noise(KEY, GRAY, 0.05)
    assert float((x - GRAY).std()) == pytest.approx(0.05, rel=0.02)
    x = impulse_noise(KEY, GRAY, 0.08)
    hit = np.asarray(x != GRAY)
    assert hit.any(-1).mean() == pytest.approx(0.08, abs=0.005) and (hit.any(-1) == hit.all(-1)).all()
    assert (x[..., 0] == 1).mean() == pytest.approx(0.04, abs=0.004)
    x = shot_noise(KEY, GRAY, 25)
    assert float(x.mean()) == pytest.approx(0.4, abs=0.005)
    # the variance of a Poisson number is its mean
    assert float(x.std()) == pytest.approx(np.sqrt(0.4 / 25), rel=0.03)
    np.testing.assert_allclose(x * 25, np.round(x * 25), atol=1e-4)


def test_saturation_matches_the_standard_library(unchecked):
    x = jax.random.uniform(KEY, (4, 5, 3))
    got = saturation(KEY, x)
    for pixel, other in zip(np.asarray(x).reshape(-1, 3), np.asarray(got).reshape(-1, 3)):
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        np.testing.assert_allclose(other, colorsys.hsv_to_rgb(h, min(2 * s + 0.1, 1), v), atol=2e-3)
    with pytest.raises(ValueError, match="color"):
        saturation(KEY, x[..., :1])


def test_host_and_compiled_functions_agree():
    x = np.asarray(impulse_noise(KEY, gaussian_noise(KEY, jnp.asarray(data.astronaut()[:90, :80] / 255), 0.02), 0.05))
    for function in (estimate_noise, detect_impulses, remove_impulses):
        ours = function(x)
        assert isinstance(ours, np.ndarray | np.generic)
        np.testing.assert_allclose(ours, jit(function)(jnp.asarray(x)), atol=1e-6)
    assert remove_impulses(x) is not x
    clean = np.full((9, 9, 1), 0.5, np.float32)
    assert remove_impulses(clean) is clean and estimate_noise(clean) < 1e-6


@pytest.mark.parametrize("model", NOISE_MODELS)
def test_same_key_same_noise(model):
    x = jax.random.uniform(KEY, (30, 30, 3))
    a, b, c = (NOISE_MODELS[model](jax.random.key(s), x, NOISE_LEVELS[model][1]) for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any() == (model != "clipping") and a.min() >= 0 and a.max() <= 1


def test_clipped_light_is_brightened_before_the_blur(scene):
    x, kernel, clean = scene
    expected = np.minimum(blur(1.6 * x, kernel), 1)
    assert 0.01 < (expected == 1).mean() < 0.9
    np.testing.assert_allclose(add_noise(KEY, clean, "clipping:1.6"), expected, atol=1e-6)


def test_noise_specifications_are_parsed():
    assert parse_noise("gaussian:0.05") == ("gaussian", 0.05)
    assert parse_noise("impulse:high") == ("impulse", 0.08) and parse_noise("shot:low") == ("shot", 90)
    assert parse_noise("saturation") == ("saturation", 2)
    for text in ("gaussian", "gaussian:x", "gaussian:-1", "impulse:2", "salt:0.1", "shot:inf", "shot:nan"):
        with pytest.raises(ValueError, match="`noise` must"):
            parse_noise(text)


@pytest.fixture(scope="module")
def scene():
    x = jnp.asarray(data.camera()[100:260, 100:260, None] / 255, jnp.float32)
    kernel = gaussian_process_kernel(jax.random.key(5), 17)
    return x, kernel, blur(x, kernel)


def test_noise_level_of_a_blurred_image_is_estimated(scene):
    for sigma in (0.005, 0.02, 0.05):
        y = gaussian_noise(KEY, scene[2], sigma)
        assert float(estimate_noise(y)) == pytest.approx(sigma, rel=0.15)
        assert float(estimate_noise(y)) == pytest.approx(estimate_sigma(np.asarray(y[..., 0])), rel=0.06)


@pytest.mark.parametrize("quality", [30, 50, 75])
def test_error_of_a_compression_is_estimated_wherever_the_blocks_begin(scene, quality):
    y = np.asarray(scene[2])[..., 0]
    file = BytesIO()
    Image.fromarray(np.uint8(np.round(255 * y))).save(file, "JPEG", quality=quality)
    compressed = np.asarray(Image.open(file), np.float32) / 255
    error = np.sqrt(np.mean((compressed - y) ** 2))
    assert float(estimate_noise(compressed[..., None])) < 0.3 * error
    for top, left in ((0, 0), (3, 5)):
        assert compression_noise(compressed[top:, left:]) == pytest.approx(error, rel=0.4)
    assert estimate_error(compressed[..., None]) == compression_noise(compressed)
    assert compression_noise(y) == compression_noise(np.asarray(gaussian_noise(KEY, scene[2], 0.02))[..., 0]) == 0


def test_only_impulses_are_detected(scene):
    y = scene[2]
    assert not detect_impulses(y).any()
    hit = impulse_noise(KEY, y, 0.08)
    planted = np.asarray(jnp.abs(hit - y).max(-1) > 0.05)
    found = np.asarray(detect_impulses(hit)[..., 0])
    assert found[planted].mean() > 0.97 and found[~planted].mean() < 0.01
    assert float(jnp.abs(remove_impulses(hit) - y).mean()) < 0.1 * float(jnp.abs(hit - y).mean())
    assert float(estimate_noise(remove_impulses(hit))) < 0.005 < float(estimate_noise(hit))


def test_many_impulses_are_found_in_dark_and_bright_parts_too():
    ramp = jnp.linspace(0.06, 0.94, 200)[None, :, None] * jnp.ones((150, 1, 1))
    hit = impulse_noise(jax.random.key(3), ramp, 0.08)
    is_hit, found = np.asarray(hit != ramp)[..., 0], np.asarray(detect_impulses(hit))[..., 0]
    assert (is_hit & ~found).sum() < 0.003 * is_hit.sum() and not (found & ~is_hit).any()
    assert float(jnp.abs(remove_impulses(hit) - ramp).max()) < 0.05
    # a few black and white pixels are not taken for them
    few = ramp.at[jnp.array([30, 70, 110]), 8].set(0).at[50, 190].set(1).at[90, 100].set(0)
    assert np.argwhere(np.asarray(detect_impulses(few))[..., 0]).tolist() == [[90, 100]]


@pytest.mark.parametrize("noise", ["gaussian:0.05", "impulse:0.08", "shot:90"])
def test_deconvolution_adapts_to_the_noise(scene, noise):
    x, kernel, clean = scene
    model, level = parse_noise(noise)
    y = NOISE_MODELS[model](KEY, clean, level)
    truth = np.asarray(x[8:-8, 8:-8, 0])

    def gained(**options):
        return align(np.asarray(jit(partial(deconvolve_sparse, **options))(y, kernel))[..., 0], truth).psnr

    adapted, fixed = gained(), gained(weight=1e-4)
    assert adapted > align(np.asarray(y)[..., 0], truth).psnr + 2
    if model == "impulse":
        # the pixels hit are not trusted, whatever the weight
        hit_or_not = jit(partial(sparse_deconvolution, weight=1e-4))(y, kernel, pad_edge(y, kernel.shape))
        fixed = align(np.asarray(crop_center(hit_or_not, kernel.shape))[..., 0], truth).psnr
    assert adapted > fixed + 3


def test_regularization_weight_grows_with_the_noise():
    weights = [float(regularization_weight(jnp.asarray(s))) for s in (0.0, 0.0015, 0.01, 0.05)]
    assert weights[0] == weights[1] == pytest.approx(1e-4) and weights[1] < weights[2] < weights[3]
