"""Public API: names, examples of the docstrings, inputs of all kinds, and one line for bad ones."""

from __future__ import annotations

import doctest
import inspect
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from skimage import data

import jbid
from jbid.methods import MethodSpec
from jbid.metrics import align
from jbid.ops.color import luma
from jbid.ops.conv import crop_center
from jbid.ops.motion import kernel_of_extent
from tests.helpers import TINY_NETWORK

EXAMPLES = [name for name in jbid.__all__ if ">>>" in (inspect.getdoc(getattr(jbid, name)) or "")]
ONLY_TYPES = {"RunContext", "KernelEstimate", "Method", "Generator", "Estimate", "write_image"}
QUICK = {"method": "selfdeblur", "kernel_size": 5, "steps": 2, "deconvolve": False, **TINY_NETWORK}


@pytest.fixture(scope="module")
def photo():
    """A blurred photo of floats (64, 64, 3)."""
    sharp = data.astronaut()[20:88, 190:258]
    return np.asarray(jbid.blur(sharp, jbid.motion_kernels(0, 5, 1)[0]))


def test_import_offers_all_names_and_does_not_import_jax():
    code = "import sys, jbid; assert set(jbid.__all__) <= set(dir(jbid)); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(hasattr(jbid, name) for name in jbid.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'sharpen'"):
        jbid.sharpen  # noqa: B018


def test_every_public_name_is_documented_and_every_function_has_an_example():
    for name in jbid.__all__:
        item = getattr(jbid, name)
        assert inspect.getdoc(item), name
        assert inspect.ismodule(item) or name in EXAMPLES or name in ONLY_TYPES, name


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_the_docstrings_run(name):
    item = getattr(jbid, name)
    examples = doctest.DocTestFinder(recurse=False).find(item, name, globs=dict(vars(inspect.getmodule(item))))
    results = [doctest.DocTestRunner().run(example) for example in examples]
    assert sum(result.attempted for result in results) > 0
    assert sum(result.failed for result in results) == 0


def test_images_of_all_kinds_have_the_same_answer(photo):
    kernel = np.ones((3, 3))
    gray = photo.mean(-1)
    for image in (photo, gray, gray[..., None]):
        expected = jbid.deblur(image, kernel=kernel)
        assert expected.image.shape == image.shape
        assert expected.image.dtype == np.float32
        for dtype, tolerance in ((np.uint8, 0.1), (np.uint16, 1e-3)):
            integers = np.round(image * np.iinfo(dtype).max).astype(dtype)
            assert np.abs(jbid.deblur(integers, kernel=kernel).image - expected.image).max() < tolerance
    np.testing.assert_array_equal(
        jbid.deblur(gray, kernel=kernel).image, jbid.deblur(gray[..., None], kernel=kernel).image[..., 0]
    )


def test_deblur_without_arguments_estimates_the_kernel_and_saves(photo, tmp_path):
    restoration = jbid.deblur(photo)
    assert restoration.image.shape == photo.shape
    assert restoration.kernel.sum() == pytest.approx(1, abs=1e-5)
    assert restoration.score == restoration.candidates[0].terms.score
    assert restoration.network_image is None
    assert restoration.save(tmp_path / "out") == tmp_path / "out" / "restored_sharp.png"
    report = json.loads((tmp_path / "out" / "restored.json").read_text())
    assert report["settings"]["method"] == "edges"
    assert report["chosen"] == restoration.chosen
    np.testing.assert_allclose(
        jbid.read_image(tmp_path / "out" / "restored_sharp.png"), restoration.image, atol=0.5 / 255 + 1e-6
    )


def test_the_front_door_gives_what_its_parts_give(photo):
    restoration = jbid.deblur(photo, kernel_size=7, patch=0, min_confidence=0.0)
    estimate = jbid.estimate_kernel(photo, size=7)
    np.testing.assert_allclose(estimate.kernel, restoration.kernel, atol=1e-6)
    np.testing.assert_allclose(jbid.deconvolve(photo, restoration.kernel), restoration.image, atol=1e-5)


def test_without_confidence_the_image_is_left_as_it_is(photo):
    left = jbid.deblur(photo, min_confidence=1.0)
    np.testing.assert_allclose(left.image, photo, atol=1e-6)
    assert left.confidence is not None and left.kernel.max() == 1 and left.chosen == "no blur"
    assert "left as it is" in left.warnings[-1]
    assert jbid.deblur(photo, kernel=left.kernel, min_confidence=1.0).confidence is None
    with pytest.raises(ValueError, match="`min_confidence` must be 0 to 1"):
        jbid.deblur(photo, min_confidence=2.0)


def test_an_image_of_much_noise_is_not_left_as_it_is():
    sharp = luma(data.astronaut()[:220, 60:280] / 255)[..., 0]
    blurred = jbid.blur(sharp, kernel_of_extent(11, 2))
    noisy = np.asarray(jbid.add_noise(0, blurred, "shot:25"))
    restored = jbid.deblur(noisy)
    assert restored.confidence >= 0.9 and restored.chosen != "no blur"
    inside = crop_center(sharp[..., None], (11, 11))
    before, after = (align(x[..., None], inside, max_shift=6).psnr for x in (noisy, restored.image))
    assert after > before + 0.5


def test_a_star_on_dark_ground_is_kept():
    rng = np.random.default_rng(0)
    star = 0.02 + 0.002 * rng.standard_normal((160, 160)).astype(np.float32)
    star[30:33, 30:33] = 0.9
    kernel = np.zeros((5, 5), np.float32)
    kernel[2] = 0.2
    restored = jbid.deblur(jbid.blur(star, kernel), kernel=kernel).image
    assert restored.max() > 0.6


def test_bars_at_the_border_are_left_out(photo):
    inner = jbid.deblur(photo, min_confidence=0.0)
    bars = np.pad(photo, ((12, 16), (0, 0), (0, 0)))
    framed = jbid.deblur(bars, min_confidence=0.0)
    np.testing.assert_array_equal(framed.image[:12], 0)
    np.testing.assert_allclose(framed.image[12:-16], inner.image, atol=1e-6)
    assert any("bars" in warning for warning in framed.warnings) and not any("bars" in w for w in inner.warnings)


def test_writing_over_an_image_stays_and_does_no_harm():
    sharp = (data.astronaut()[:300, 60:360] / 255).astype(np.float32)
    kernel = np.asarray(jbid.motion_kernels(5, 13, 1)[0])
    blurred = (np.round(np.asarray(jbid.blur(sharp, kernel)) * 255) / 255).astype(np.float32)
    stamp = Image.fromarray(np.uint8(np.round(blurred * 255)))
    ImageDraw.Draw(stamp).text((10, 10), "12.05.2003 17:44", fill=(255, 150, 20), font=ImageFont.load_default(22))
    written = (np.asarray(stamp) / 255).astype(np.float32)
    with_writing, without = jbid.deblur(written, kernel=kernel), jbid.deblur(blurred, kernel=kernel)
    letters = (written[..., 0] > 0.95) & (written[..., 2] < 0.1)
    np.testing.assert_array_equal(with_writing.image[letters], written[letters])
    assert any("writing" in warning for warning in with_writing.warnings) and not without.warnings
    # beyond the line, the same image
    np.testing.assert_allclose(with_writing.image[100:], without.image[100:], atol=0.05)
    assert np.abs(with_writing.image[100:] - without.image[100:]).mean() < 2e-3


def test_a_batch_equals_single_images(photo):
    images = [photo, photo[::-1]]
    batch = jbid.deblur_batch(images, **QUICK)
    for image, restoration in zip(images, batch):
        np.testing.assert_allclose(jbid.deblur(image, **QUICK).image, restoration.image, atol=1e-4)


def test_the_best_scoring_seed_is_chosen(photo):
    # from a wide initial kernel, because the estimated one is so narrow that its seeds would count as failed
    restoration = jbid.deblur(photo, n_seeds=2, init="uniform", **QUICK)
    assert restoration.losses.shape == (2, 2)
    assert restoration.score == min(candidate.terms.score for candidate in restoration.candidates)
    assert restoration.spread.shape == photo.shape[:2]


@pytest.mark.parametrize(
    "image, options, error, words",
    [
        ("text", {}, TypeError, "`image` must be an array .* got str"),
        (np.full((64, 64), np.nan), {}, ValueError, "`image` must be finite"),
        (np.full((64, 64), 255.0), {}, ValueError, r"`image` must be in \[0, 1\]"),
        (np.zeros((64, 64), int), {}, TypeError, "got int64"),
        (np.zeros((64, 64, 4)), {}, ValueError, r"got the shape \(64, 64, 4\)"),
        (np.zeros((64, 64)), {"kernel_size": 8}, ValueError, "kernel.size.*odd.*8"),
        (np.zeros((64, 64)), {"method": "edge"}, ValueError, "`method` must be one of edges"),
        (np.zeros((64, 64)), {"preset": "best"}, ValueError, "`preset` must be one of"),
        (np.zeros((64, 64)), {"n_seeds": 4}, ValueError, "`n_seeds` = 4 does not apply to the method edges"),
        (np.zeros((64, 64)), {"channels": 64}, ValueError, "no option of the method edges, but of selfdeblur"),
        (np.zeros((64, 64)), {"kernel_sise": 9}, ValueError, "nearest known one is 'kernel_size'"),
        (np.zeros((64, 64)), {"kernel": np.zeros((3, 3))}, ValueError, "`kernel` must be"),
        (np.zeros((64, 64)), {"kernel": np.ones((65, 65))}, ValueError, "kernel"),
    ],
)
def test_bad_input_gets_one_line_that_names_the_parameter(image, options, error, words):
    with pytest.raises(error, match=words) as caught:
        jbid.deblur(image, **options)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)


def test_a_method_can_be_added_at_run_time(photo, monkeypatch):
    monkeypatch.setattr(jbid.methods, "_registered", {})

    def build(kernel_size, *, steps, out_channels, kernel=None, rate: float = 1e-2):
        return jbid.selfdeblur(
            kernel_size, steps=steps, out_channels=out_channels, kernel=kernel, image_lr=rate, **TINY_NETWORK
        )

    jbid.methods.register(MethodSpec("fifth", "a test", build, {"quick": {"steps": 2, "init": "edges"}}))
    restoration = jbid.deblur(photo, method="fifth", kernel_size=5, rate=2e-2)
    assert restoration.losses.shape[0] == 2
    with pytest.raises(ValueError, match="`rate` must be float"):
        jbid.deblur(photo, method="fifth", rate="fast")
    with pytest.raises(ValueError, match="fifth"):
        jbid.deblur(photo, method="fifth", preset="paper")
    with pytest.raises(ValueError, match="`presets` must be among quick, paper, got none"):
        jbid.methods.register(MethodSpec("sixth", "a test", build, {}))


def test_synthesis_accepts_integers_gray_images_and_keys():
    key = jax.random.key(3)
    np.testing.assert_array_equal(jbid.motion_kernels(3, 9, 2), jbid.motion_kernels(key, 9, 2))
    gray = data.camera()[:32, :40]
    blurred = jbid.blur(gray, np.full((3, 5), 1 / 15))
    assert blurred.shape == (30, 36)
    assert 0 <= float(blurred.min()) <= float(blurred.max()) <= 1
    noisy = jbid.add_noise(key, blurred, "gaussian:0.02")
    assert float(jbid.estimate_noise(noisy)) == pytest.approx(0.02, rel=0.3)
