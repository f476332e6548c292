from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.ndimage
from skimage import data, transform
from skimage.color import rgb2ycbcr

from jbid.io.images import read_image
from jbid.metrics import align, frequency_band_error, kernel_similarity, lpips, psnr, ssim_matlab, vif
from tests.helpers import golden_rows


def picture(n=96):
    return transform.resize(data.camera(), (n, n), anti_aliasing=True)


@pytest.mark.parametrize(
    "row", golden_rows("levin_official_run.csv")[::5], ids=lambda r: "-".join(list(r.values())[:3])
)
def test_alignment_matches_the_authors_scores(levin_folder, row):
    i, k = row["image"], row["kernel"]
    result = read_image(levin_folder / "official_run" / f"im{i}_kernel{k}_img_x.png")[..., 0]
    score = align(result, read_image(levin_folder / "gt" / f"im{i}.png")[..., 0], max_shift=int(row["maxshift"]))
    assert score.psnr == pytest.approx(float(row["psnr"]), abs=1e-4)
    assert score.ssim == pytest.approx(float(row["ssim"]), abs=1e-5)


@pytest.mark.parametrize("row", golden_rows("lai_blurry_scored.csv"), ids=lambda r: r["name"])
def test_ssim_with_downsampling_matches_the_authors_scores(levin_folder, row):
    lai = levin_folder.parent / "lai"
    if not lai.is_dir():
        pytest.skip("needs Lai's images beside Levin's in JBID_DATA")

    def studio_luma(path):
        image = read_image(path)
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


def test_kernel_similarity_ignores_shift_scale_size_and_rotation():
    kernel = np.zeros((9, 9))
    kernel[2, 1:7] = [1, 2, 3, 2, 1, 5]
    assert kernel_similarity(3 * np.pad(np.roll(kernel, (3, 1), (0, 1)), 2), kernel) == pytest.approx(1)
    assert kernel_similarity(kernel[::-1, ::-1], kernel) == pytest.approx(1)
    assert kernel_similarity(kernel.T, kernel) < 0.9
    assert kernel_similarity(np.zeros((3, 3)), kernel) == 0


def test_kernel_similarity_by_fractions_of_a_pixel():
    rows, columns = np.mgrid[-7:8, -7:8]
    one, half = (np.exp(-((rows - s) ** 2) / 1.2 - (columns + s) ** 2 / 1.5) for s in (0, 0.5))
    assert kernel_similarity(one, half) < 0.95
    assert kernel_similarity(one, half, 2) == pytest.approx(1, abs=2e-3)
    assert kernel_similarity(one, one, 4) == pytest.approx(1)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="one size"):
        align(np.zeros((50, 50)), np.zeros((50, 51)))
    with pytest.raises(ValueError, match="exceed 30"):
        align(np.zeros((30, 50)), np.zeros((30, 50)))


def test_vif_matches_a_published_implementation():
    import sewar

    truth = picture()
    rng = np.random.default_rng(0)
    for other in (
        scipy.ndimage.gaussian_filter(truth, 2),
        np.clip(truth + 0.05 * rng.normal(size=truth.shape), 0, 1),
        np.clip(1.3 * truth, 0, 1),
        1 - truth,
        truth,
    ):
        assert vif(other, truth) == pytest.approx(sewar.vifp(255 * truth, 255 * other), abs=1e-9)
    assert vif(truth, truth) == pytest.approx(1)
    with pytest.raises(ValueError, match="41x41"):
        vif(truth[:20], truth[:20])


def test_frequency_bands_are_rings():
    truth = np.zeros((32, 32))
    truth[16, 16] = 1.0
    j = np.arange(32)
    for frequency, ring in ((0.05, 0), (0.15, 1), (0.375, 3), (0.45, 4)):
        n = round(frequency * 32)
        wave = np.cos(2 * np.pi * n * j / 32)
        error = frequency_band_error(truth + wave, truth)
        assert np.argmax(error) == ring and np.allclose(np.delete(error, ring), 0, atol=1e-9)
    np.testing.assert_allclose(frequency_band_error(0.5 * truth, truth), 0.5)
    np.testing.assert_array_equal(frequency_band_error(truth, truth, bands=3), np.zeros(3))


def test_lpips_reports_missing_packages_and_weights(tmp_path):
    with pytest.raises(ValueError, match="alexnet-owt"):
        lpips(picture(), picture(), tmp_path / "none.pth")


def test_lpips_uses_the_given_weights(tmp_path):
    torch = pytest.importorskip("torch", reason="needs the extra lpips")
    package = pytest.importorskip("lpips", reason="needs the extra lpips")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = package.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    given = {
        f"features.{name}": value
        for part in ("slice1", "slice2", "slice3", "slice4", "slice5")
        for name, value in getattr(model.net, part).state_dict().items()
    }
    torch.save(given, tmp_path / "alexnet.pth")
    a, b = np.random.default_rng(0).random((2, 64, 70, 3)).astype(np.float32)
    tensors = (torch.from_numpy(v.transpose(2, 0, 1)[None] * 2 - 1) for v in (a, b))
    with torch.no_grad():
        wanted = float(model(*tensors))
    assert lpips(a, b, tmp_path / "alexnet.pth") == pytest.approx(wanted, rel=1e-5)
    assert lpips(a, a, tmp_path / "alexnet.pth") == pytest.approx(0, abs=1e-7)
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="not torchvision's"):
        lpips(a, b, tmp_path / "other.pth")
