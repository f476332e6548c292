from __future__ import annotations

import csv

import numpy as np
import pytest
import scipy.ndimage
from skimage import data, transform
from skimage.color import rgb2ycbcr

from jbid import images as im
from jbid.metrics import align, kernel_similarity, psnr, ssim_matlab
from tests.conftest import GOLDEN


def picture(n=96):
    return transform.resize(data.camera(), (n, n), anti_aliasing=True)


def golden_rows(name):
    with open(GOLDEN / name, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "row", golden_rows("levin_official_run.csv")[::5], ids=lambda r: "-".join(list(r.values())[:3])
)
def test_alignment_gives_the_authors_scores(levin_folder, row):
    i, k = row["image"], row["kernel"]
    result = im.read(levin_folder / "official_run" / f"im{i}_kernel{k}_img_x.png")[..., 0]
    score = align(result, im.read(levin_folder / "gt" / f"im{i}.png")[..., 0], max_shift=int(row["maxshift"]))
    assert score.psnr == pytest.approx(float(row["psnr"]), abs=1e-4)
    assert score.ssim == pytest.approx(float(row["ssim"]), abs=1e-5)


@pytest.mark.parametrize("row", golden_rows("lai_blurry_scored.csv"), ids=lambda r: r["name"])
def test_ssim_with_downsampling_gives_the_authors_scores(levin_folder, row):
    lai = levin_folder.parent / "lai"
    if not lai.is_dir():
        pytest.skip("needs Lai's images beside Levin's in JBID_DATA")

    def studio_luma(path):
        image = im.read(path)
        return rgb2ycbcr(image.astype(float))[..., 0] / 255 if image.shape[-1] == 3 else image[..., 0]

    blurred = studio_luma(lai / "uniform" / f"{row['name']}.png")
    truth = studio_luma(lai / "ground_truth" / f"{row['name'].split('_kernel')[0]}.png")
    score = align(blurred, truth, max_shift=int(row["maxshift"]))
    assert score.psnr == pytest.approx(float(row["psnr"]), abs=1e-4)
    assert score.ssim == pytest.approx(float(row["ssim"]), abs=1e-5)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (2.25, -3.5), (-10.0, 9.75)])
def test_alignment_finds_a_planted_shift(shift):
    truth = picture()
    moved = scipy.ndimage.shift(truth, shift, order=1, mode="nearest")
    found = align(moved, truth)
    assert found.shift == shift
    # every shift tried one after the other finds nothing better
    inner = truth[15:-15, 15:-15]
    tried = []
    for dy in np.arange(shift[0] - 1, min(shift[0] + 1, 10) + 0.1, 0.25):
        for dx in np.arange(shift[1] - 1, min(shift[1] + 1, 10) + 0.1, 0.25):
            back = scipy.ndimage.shift(moved, (-dy, -dx), order=1, mode="nearest")[15:-15, 15:-15]
            tried.append(np.sum((back - inner) ** 2))
    assert found.squared_error <= min(tried) + 1e-9


def test_psnr():
    assert psnr(np.full((4, 4), 0.5), np.full((4, 4), 0.6)) == pytest.approx(20)
    assert psnr(np.ones(3), np.ones(3)) == np.inf


def test_ssim_is_one_for_equal_and_symmetric():
    a = picture()
    b = np.clip(a + 0.05 * np.random.default_rng(0).standard_normal(a.shape), 0, 1)
    assert ssim_matlab(a, a) == pytest.approx(1)
    assert ssim_matlab(a, b) == pytest.approx(ssim_matlab(b, a)) and ssim_matlab(a, b) < 0.95


def test_kernel_similarity_ignores_shift_scale_size_and_turn():
    kernel = np.zeros((9, 9))
    kernel[2, 1:7] = [1, 2, 3, 2, 1, 5]
    assert kernel_similarity(3 * np.pad(np.roll(kernel, (3, 1), (0, 1)), 2), kernel) == pytest.approx(1)
    assert kernel_similarity(kernel[::-1, ::-1], kernel) == pytest.approx(1)
    assert kernel_similarity(kernel.T, kernel) < 0.9
    assert kernel_similarity(np.zeros((3, 3)), kernel) == 0


def test_refusals():
    with pytest.raises(ValueError, match="one size"):
        align(np.zeros((50, 50)), np.zeros((50, 51)))
    with pytest.raises(ValueError, match="more than 30"):
        align(np.zeros((30, 50)), np.zeros((30, 50)))
