from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from skimage import data, transform

from jbid.kernel_estimation.gain import (
    GainPredictor,
    edge_steps,
    load_model,
    measure_fit,
    measure_image,
    sharpness,
)
from jbid.kernel_estimation.ranking import latent_images
from jbid.ops.kernels import disc_kernel, gaussian_kernel, place_kernel


def scene(kernel, noise=0.003):
    """A part of a photo, sharp and blurred."""
    side = 192 + kernel.shape[0] - 1
    sharp = transform.resize(data.camera()[:400, 100:500], (side, side), anti_aliasing=True).astype(np.float32)
    blurred = scipy.signal.fftconvolve(sharp, kernel, "valid")
    blurred = blurred + noise * np.random.default_rng(0).standard_normal(blurred.shape)
    return sharp, (np.round(np.clip(blurred, 0, 1) * 255) / 255).astype(np.float32)


def assess(image, kernels):
    return GainPredictor(image).assess(latent_images(image, kernels), kernels)


def test_the_true_blur_is_predicted_to_gain_most():
    kernel = disc_kernel(3.0)
    _, blurred = scene(kernel)
    wrong = [disc_kernel(6.0), place_kernel(np.eye(13, dtype=np.float32), 13), gaussian_kernel(0.4)]
    true, *others = assess(blurred, [kernel, *wrong])
    assert true.rank > max(other.rank for other in others)
    assert true.gain > 1 and true.confidence > 0.7


def test_nothing_is_predicted_to_gain_on_a_sharp_image():
    sharp, _ = scene(disc_kernel(1.0))
    found = assess(sharp, [gaussian_kernel(1.0), disc_kernel(2.0), disc_kernel(4.0)])
    assert max(item.confidence for item in found) < 0.5


@pytest.mark.parametrize("brightness, contrast", [(0.3, 0.4), (-0.05, 0.8)])
def test_brightness_and_contrast_do_not_matter(brightness, contrast):
    kernel = disc_kernel(2.0)
    _, blurred = scene(kernel)
    other = (brightness + contrast * blurred).astype(np.float32)
    (first,), (second,) = assess(blurred, [kernel]), assess(other, [kernel])
    # values beyond the range are a feature, and they do change
    assert second.gain == pytest.approx(first.gain, abs=1.0)


def test_measures_know_ringing_echoes_and_structure():
    sharp, blurred = scene(disc_kernel(2.0))
    waves = sharp + (0.05 * np.sin(np.arange(sharp.shape[1]) * 1.3)).astype(np.float32)
    double = (sharp + np.roll(sharp, (7, 9), (0, 1))) / 2
    clean, ringing, echo = (measure_image(x) for x in (sharp, waves, double))
    assert ringing["q50"] - ringing["rms"] > clean["q50"] - clean["rms"]
    assert echo["echo"] > clean["echo"]
    assert measure_image(sharp + 0.5)["excess"] > clean["excess"] + 1
    right, wrong = (measure_fit(blurred, sharp, k) for k in (disc_kernel(2.0), gaussian_kernel(0.6)[:, :]))
    assert right["residual"] < wrong["residual"] and right["white"] < wrong["white"]
    assert right["count"] == pytest.approx(np.log((disc_kernel(2.0) > 0).sum()))


def test_blur_lowers_the_sharpness():
    sharp, _ = scene(disc_kernel(1.0))
    values = [sharpness(scipy.ndimage.gaussian_filter(sharp, s), 0.0) for s in (0, 0.7, 1.5)]
    assert values[0] > values[1] + 3 > values[2] + 6


def test_edge_steps_give_the_width_of_edges():
    ramp = np.linspace(0, 1, 5)[[0] * 30 + [1, 2, 3] + [4] * 31]
    wide = np.minimum(ramp, ramp[:, None]).astype(np.float32)
    sharp = (wide > 0.5).astype(np.float32)
    assert edge_steps(sharp)["step1_most"] == pytest.approx(0, abs=1e-3)
    # four pixels wide: a quarter of the height in each
    assert edge_steps(wide)["step1_most"] == pytest.approx(np.log(1 / 4), abs=0.05)
    # motion across leaves the horizontal edges sharp
    across = edge_steps(np.minimum(ramp, ramp[:, None] > 0.5).astype(np.float32))
    assert across["step1_most"] == pytest.approx(0, abs=1e-3) and across["step1_least"] < -1


def test_features_are_those_of_the_model():
    _, blurred = scene(disc_kernel(2.0))
    kernel = disc_kernel(2.0)
    features = GainPredictor(blurred).features(latent_images(blurred, [kernel])[0], kernel)
    assert set(load_model().names) == set(features) and all(np.isfinite(v) for v in features.values())
