from __future__ import annotations

import csv
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import jbid.methods
from jbid.bench import options, runner, table
from jbid.bench.cli import main
from jbid.bench.conditions import level_size
from jbid.bench.options import TableConfig
from jbid.bench.protocols import PROTOCOLS
from jbid.bench.sets import SETS, load_items, select_names
from jbid.data import levin
from jbid.io.images import read_image, write_image
from jbid.ops.color import luma
from tests.helpers import golden_rows

TINY = [
    "--set=channels=4",
    "--set=skip_channels=2",
    "--set=scales=1",
    "--steps=2",
    "--method=selfdeblur",
    "--init=random",
    "--kernel-size=published",
]
# of commands that compare methods
TINY_RUN = TINY[:4]


@pytest.mark.data
def test_official_results_score_as_published(levin_folder, tmp_path, capsys):
    out = tmp_path / "score.json"
    folder = levin_folder / "official_run"
    assert main(["levin", "--data", str(levin_folder), "--score", str(folder), "--limit=4", "--out", str(out)]) == 0
    content = json.loads(out.read_text())
    # the first of four images with half of its kernels; all 32, whose mean is 33.7812, take two minutes
    rows = golden_rows("levin_official_run.csv")
    for maxshift, suffix in (("5", "_maxshift5"), ("10", "")):
        published = [row for row in rows if row["image"] == "1" and row["maxshift"] == maxshift][:4]
        for score, tolerance in (("psnr", 1e-3), ("ssim", 1e-4)):
            expected = np.mean([float(row[score]) for row in published])
            assert content["mean"][score + suffix] == pytest.approx(expected, abs=tolerance)
    assert 0.8 < content["mean"]["kernel_similarity"] < 1
    assert len(content["images"]) == 4 and content["protocol"]["maxshift"] == 10 and content["device"]


@pytest.mark.data
def test_kernels_have_the_orientation_of_a_convolution(levin_folder):
    from jbid.metrics import align
    from jbid.ops.conv import blur, crop_center

    for item in levin.load(levin_folder, levin.NAMES[:8]):
        # the kernel files are not centered, hence the alignment
        observed = np.asarray(crop_center(item.blurred, item.kernel.shape))[..., 0]
        correct, rotated = (
            align(observed, np.asarray(blur(item.sharp, k))[..., 0]).psnr
            for k in (item.kernel, item.kernel[::-1, ::-1])
        )
        assert correct > 40 and correct > rotated + 4, item.name


def test_run_writes_scores_and_resumes(levin_set, tmp_path, capsys):
    out = tmp_path / "run.json"
    args = ["levin", "--data", str(levin_set), "--only", "im1_kernel5_img", "im2_kernel5_img", "--out", str(out)]
    assert main([*args, *TINY]) == 0
    content = json.loads(out.read_text())
    row = content["images"][0]
    assert {"name", "psnr", "ssim", "seconds", "error_ratio", "kernel_similarity", "psnr_network"} <= set(row)
    assert {"support_init", "padded_shape", "identity"} <= set(row)
    assert np.isclose(content["mean"]["psnr"], np.mean([r["psnr"] for r in content["images"]]))
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        f"{r['name']}{end}" for r in content["images"] for end in ("_x.png", "_k.png", ".json")
    }
    image = tmp_path / "run" / "im1_kernel5_img_x.png"
    before = image.stat().st_mtime_ns
    assert main([*args, *TINY, "--resume"]) == 0
    assert image.stat().st_mtime_ns == before
    # the written files have the same scores
    again = tmp_path / "again.json"
    args = ["levin", "--data", str(levin_set), "--only", "im1_kernel5_img", "--score", str(tmp_path / "run")]
    assert main([*args, "--out", str(again)]) == 0
    assert json.loads(again.read_text())["mean"]["psnr"] == pytest.approx(row["psnr"])


def test_resume_with_other_settings_asks_for_overwrite(levin_set, tmp_path, capsys):
    out = tmp_path / "run.json"
    args = ["levin", "--data", str(levin_set), "--only", "im1_kernel5_img", "--no-full", "--out", str(out), *TINY]
    assert main(args) == 0
    row_file = tmp_path / "run" / "im1_kernel5_img.json"
    before = row_file.read_text()
    capsys.readouterr()
    # once because of the report, once because of the row of a run that was killed before its report
    for _ in range(2):
        assert main([*args, "--seed=1", "--resume"]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "other settings" in err and "--overwrite" in err
        assert row_file.read_text() == before
        out.unlink(missing_ok=True)
    assert main([*args, "--seed=1", "--resume", "--overwrite"]) == 0
    assert json.loads(row_file.read_text())["identity"] != json.loads(before)["identity"]
    assert json.loads(out.read_text())["settings"]["seed"] == 1


def test_benchmark_runs_from_python(levin_set, tmp_path, capsys):
    config = TableConfig(data=levin_set, only=("im1_kernel5_img",), out=tmp_path / "run.json", full=False)
    assert table.run(config) == 0
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["settings"]["method"] == "edges" and content["images"][0]["psnr"] > 28
    assert "| jbid edges " in capsys.readouterr().out
    for wrong, message in (
        (TableConfig(data=levin_set, limit=1, out=tmp_path / "run"), "`out` must be a name that ends in .json"),
        (TableConfig(set_name="kohler"), "`set_name` must be one of levin, lai"),
        (TableConfig(data=levin_set, limit=0), "`limit` must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            table.run(wrong)


def test_reports_are_named_by_method_and_preset():
    configs = {
        TableConfig(): ("edges", "jbid edges"),
        TableConfig(preset="instant"): ("edges", "jbid edges"),
        TableConfig(preset="quick"): ("selfdeblur_quick", "jbid selfdeblur, quick, seed 0"),
        TableConfig(method="robust", preset="paper", n_seeds=4): ("robust_paper", "jbid robust, paper, seed 0 to 3"),
    }
    for config, (name, label) in configs.items():
        assert table.name_run(config.resolve()) == name and table.label_run(config.resolve()) == label
    assert table.label_run(TableConfig().resolve(), 0.5) == "jbid edges, scale 0.5"


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--data=absent"], "expected a folder"),
        (["--only", "im9_kernel9_img"], "im9_kernel9_img"),
        (["--maxshift=20"], "--maxshift"),
        (["--score=absent", "--only", "im1_kernel1_img"], "no such folder"),
        ([f"--score={Path(__file__).parent}", "--only", "im1_kernel1_img"], "are missing"),
        (["--method=selfdeblur", "--set=chanels=2", "--only", "im1_kernel1_img"], "channels"),
        (["--limit=1", "--only", "im1_kernel1_img"], "--only"),
    ],
)
def test_bad_input(levin_set, capsys, flags, words):
    data = [] if flags[0].startswith("--data") else ["--data", str(levin_set)]
    assert main(["levin", *data, *flags]) == 2
    err = capsys.readouterr().err
    assert err.startswith("jbid: error: ") and err.count("\n") == 1 and words in err


REFUSED = {
    "variance": ("--method", "--init", "--deconvolve", "--batch", "--lpips", "--full", "--each-seed"),
    "oversize": ("--method", "--kernel-size", "--noises", "--size-level"),
    "noise": ("--method", "--levels", "--noise"),
    "noise-only": ("--method", "--levels", "--noise"),
    "real": ("--protocol", "--full", "--score", "--lpips", "--each-seed"),
    "check": ("--method", "--out", "--limit"),
}


@pytest.mark.parametrize("command", REFUSED)
def test_help_has_no_refused_options(capsys, command):
    assert main([command, "--help"]) == 0
    words = capsys.readouterr().out.replace("[", " ").split()
    assert "--data" in words
    for flag in REFUSED[command]:
        assert flag not in words, flag
        assert main([command, f"{flag}=1"]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and flag in err


@pytest.mark.parametrize("flags", [["levin", "--limit=0"], ["real", "--batch=0"], ["lai", "--checkpoint-every=-1"]])
def test_values_out_of_range_are_refused_in_one_line(capsys, flags):
    assert main(flags) == 2
    err = capsys.readouterr().err
    assert err.startswith("jbid: error: ") and err.count("\n") == 1 and flags[1].split("=")[0] in err


def test_names_of_earlier_versions_are_accepted(levin_set, capsys):
    # with an error that ends the command once its options are read
    assert main(["levin", "--data", str(levin_set), "--start=encoder", "--no-finish", "--maxshift=20"]) == 2
    err = capsys.readouterr().err
    assert "--start is now --init" in err and "--no-finish is now --no-deconvolve" in err
    assert main(["variance", "--data", str(levin_set), "--starts", "random", "encoder", "--perturb=2"]) == 2
    err = capsys.readouterr().err
    assert "--starts is now --inits" in err and "'encoder' is now 'learned'" in err and "--perturb" in err


def test_help_does_not_import_jax():
    code = "import sys; from jbid.bench.cli import main; main(['levin', '--help']); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_names_in_the_options_are_those_of_the_modules():
    from jbid.ops.motion import KERNEL_MODELS

    assert set(PROTOCOLS) == set(get_args(options.ProtocolName))
    assert set(SETS) == set(get_args(options.SetName))
    assert {"mixed", *KERNEL_MODELS} == set(get_args(options.KernelModel))
    help_text = inspect.getsource(options.MethodOptions)
    assert all(name in help_text for name in jbid.methods.names())


def test_levels_of_overspecification_range_from_the_true_size_to_half():
    sizes = [level_size((13, 13), (255, 255), level) for level in range(1, 6)]
    # 13, 42, 71, 100, 128 in the paper; odd here
    assert sizes == [13, 41, 71, 99, 127]


def test_conditions_are_scored_plotted_and_resumed(levin_set, tmp_path, capsys):
    out = tmp_path / "noise.json"
    args = ["noise", "--data", str(levin_set), "--only", "im1_kernel5_img", "--noises", "gaussian:0.05"]
    args += ["--methods", "robust", "selfdeblur", "--kernel-size", "11", "--init=random", "--out", str(out), *TINY_RUN]
    assert main(args) == 0
    printed = capsys.readouterr().out
    content = json.loads(out.read_text())
    assert [(row["method"], row["condition"]) for row in content["images"]] == [
        ("robust", "gaussian:0.05"),
        ("selfdeblur", "gaussian:0.05"),
    ]
    means = {row["method"]: row for row in content["means"]}
    # both methods have the same noisy image
    inputs = [row["psnr_blurred"] for row in content["images"]]
    assert inputs[0] == inputs[1] and 20 < means["input"]["psnr"] < 30
    assert means["deconvolution, true kernel"]["psnr"] > 20
    assert "selfdeblur" in printed and out.with_suffix(".png").stat().st_size > 5000
    first = (tmp_path / "noise" / "im1_kernel5_img_robust_gaussian_0.05.json").stat().st_mtime_ns
    assert main([*args, "--resume"]) == 0
    assert (tmp_path / "noise" / "im1_kernel5_img_robust_gaussian_0.05.json").stat().st_mtime_ns == first


def test_noise_without_blur_has_its_own_baseline(levin_set, tmp_path):
    out = tmp_path / "only.json"
    args = ["noise-only", "--data", str(levin_set), "--only", "im1_kernel5_img", "--noises", "impulse:0.08"]
    assert main([*args, "--methods", "dip", "--init=random", "--out", str(out), *TINY_RUN]) == 0
    row = json.loads(out.read_text())["images"][0]
    assert row["kernel_size"] == 1 and row["support_true"] == 1 and row["psnr_network"] == pytest.approx(row["psnr"])


def test_bad_conditions_are_refused_in_one_line(levin_set, capsys):
    for args, word in (
        (["noise", "--noises", "salt:1"], "gaussian:LEVEL"),
        (["oversize", "--levels", "6"], "from 1 to 5"),
        (["oversize", "--set", "method=robust"], "--methods"),
        (["oversize", "--preset", "instant"], "--preset must be quick or paper"),
        (["noise", "--methods", "dip"], "noise-only"),
        (["noise", "--methods"], "--methods must name"),
        (["noise", "--methods", "wiener"], "--methods must be among edges"),
        (["noise", "--kernel-size=11", "--size-level=2"], "--size-level"),
        (["noise", "--lpips", "none.pth"], "alexnet-owt"),
        (["oversize", "--noise", "gaussian"], "gaussian:0.05"),
    ):
        assert main([*args, "--data", str(levin_set), "--only", "im1_kernel1_img"]) == 2
        error = capsys.readouterr().err
        assert word in error and error.count("\n") == 1


def test_report_without_suffix_is_refused(tmp_path, capsys):
    """The images lie in a folder named as the report without its suffix."""
    assert main(["oversize", "--out", str(tmp_path / "oversize")]) == 2
    error = capsys.readouterr().err
    assert ".json" in error and error.count("\n") == 1


def test_protocols_differ_in_range_and_alignment():
    # Matlab's range makes errors smaller by 219 / 255
    rng = np.random.default_rng(0)
    sharp = rng.random((64, 64, 3), np.float32)
    image = np.clip(sharp + 0.05 * rng.standard_normal(sharp.shape).astype(np.float32), 0, 1)
    score = {name: p.score(image, sharp) for name, p in PROTOCOLS.items()}
    gain = score["sd_matlab"].psnr - score["sd_fullrange"].psnr
    assert gain == pytest.approx(20 * np.log10(255 / 219), abs=1e-4)
    assert score["rgb_raw"].psnr == pytest.approx(10 * np.log10(1 / np.mean((image - sharp) ** 2)), abs=1e-4)
    # a shifted image has the same score unless the protocol does not align it
    moved = np.roll(image, (2, -1), (0, 1))
    for name in ("sd_matlab", "sd_fullrange", "gain_aligned", "rgb_aligned"):
        again = PROTOCOLS[name].score(moved, sharp)
        assert again.shift == (2, -1) and again.psnr == pytest.approx(score[name].psnr, abs=1e-6)
    assert PROTOCOLS["rgb_raw"].score(moved, sharp).psnr < 15
    # brightness counts for all protocols but one
    darker = 0.6 * image
    assert PROTOCOLS["gain_aligned"].score(darker, sharp).psnr == pytest.approx(score["gain_aligned"].psnr, abs=1e-6)
    assert score["gain_aligned"].psnr == pytest.approx(score["sd_matlab"].psnr, abs=0.1)
    assert PROTOCOLS["sd_matlab"].score(darker, sharp).psnr < score["sd_matlab"].psnr - 5
    # a gray result of a color image has the range of the ground truth
    gray = PROTOCOLS["sd_matlab"].score(luma(sharp), sharp)
    assert gray.psnr > 60


@pytest.mark.data
def test_blurred_lai_images_score_as_by_the_authors_script(lai_folder, tmp_path):
    rows = golden_rows("lai_blurry_scored.csv")
    out = tmp_path / "blurred.json"
    args = ["lai", "--data", str(lai_folder), "--score", str(lai_folder / "uniform")]
    args += ["--protocol", "sd_matlab", "rgb_raw"]
    assert main([*args, "--only", *(row["name"] for row in rows), "--out", str(out)]) == 0
    content = json.loads(out.read_text())
    for row, known in zip(content["images"], rows):
        assert row["name"] == known["name"] and row["psnr_rgb_raw"] < row["psnr"]
        assert row["psnr"] == pytest.approx(float(known["psnr"]), abs=2e-3)
        assert row["ssim"] == pytest.approx(float(known["ssim"]), abs=2e-4)
    assert content["groups"]["category"]["text"]["images"] == 4
    text, page = (out.with_suffix(end).read_text() for end in (".md", ".html"))
    # published scores stand beside them, with their own protocol
    assert "26.71 / 0.9140" in text and "not stated" in text and "GKPILE" in page
    # the page is self-contained
    assert page.count("data:image/jpeg;base64,") == 20 and "http" not in page.replace("http-equiv", "")


@pytest.mark.data
def test_subsets_and_scales(lai_folder, tmp_path, capsys):
    lai = SETS["lai"]
    assert len(select_names(lai, subset=("text",))) == 20
    names = select_names(lai, subset=("kernel_03", "text", "people"))
    assert names[0] == "people_01_kernel_03" and len(names) == 10
    item = load_items(lai, lai_folder, ["text_05_kernel_01"], 0.25)[0]
    assert item.blurred.shape == item.sharp.shape == (88, 126, 3)
    assert item.kernel.shape == (9, 9) and item.kernel.sum() == pytest.approx(1, abs=1e-5)
    # the shrunk sharp image, blurred with the shrunk kernel, is the shrunk blurred image
    from jbid.metrics import align
    from jbid.ops.conv import blur, crop_center

    for scale in (0.25, 0.5):
        small = load_items(lai, lai_folder, ["natural_01_kernel_03"], scale)[0]
        again = np.asarray(blur(luma(small.sharp), small.kernel))[..., 0]
        observed = np.asarray(crop_center(luma(small.blurred), small.kernel.shape))[..., 0]
        assert align(observed, again, max_shift=1).psnr > 38
    cases = [("--subset", "cats"), "people"], [("--scale", "2"), "at most 1"], [("--scale", "0"), "above 0"]
    none = "--only", "text_01_kernel_01", "--subset", "people"
    for flags, word in (*cases, [none, "no image"], [("--no-deconvolve", "--preset", "quick"), "--deconvolve"]):
        assert main(["lai", "--data", str(lai_folder), *flags]) == 2
        assert word in capsys.readouterr().err


def test_results_are_scored_again_without_another_run(levin_set, tmp_path):
    out = tmp_path / "run.json"
    args = ["levin", "--data", str(levin_set), "--only", "im1_kernel5_img", "--out", str(out), *TINY]
    assert main([*args, "--no-full"]) == 0
    first = json.loads(out.read_text())["images"][0]
    before = (tmp_path / "run" / "im1_kernel5_img_x.png").stat().st_mtime_ns
    assert main([*args, "--no-full", "--protocol", "rgb_raw", "--resume"]) == 0
    second = json.loads(out.read_text())["images"][0]
    assert (tmp_path / "run" / "im1_kernel5_img_x.png").stat().st_mtime_ns == before
    assert second["psnr"] < first["psnr"] and second["seconds"] == first["seconds"]
    # no score of the earlier protocol is left
    assert main([*args, "--resume"]) == 0
    assert main([*args, "--no-full", "--protocol", "rgb_raw", "--resume"]) == 0
    assert "psnr_blurred" not in json.loads(out.read_text())["images"][0]


def test_synthetic_images_depend_on_the_seed_alone(tmp_path, capsys):
    from skimage import data

    from jbid.data.synthetic import Synthetic

    for name in ("one", "two"):
        write_image(tmp_path / f"{name}.png", data.astronaut()[100:300, 100:320].astype(np.float32) / 255)
    few = Synthetic(tmp_path, (13,), crop=96, noise="gaussian:0.01")
    many = Synthetic(tmp_path, (13, 21), kernels=2, crop=96, noise="gaussian:0.01")
    names = few.NAMES
    assert len(names) == 2 and len(many.NAMES) == 8 and set(names) < set(many.NAMES)
    one, same = few.load(None, names)[0], many.load(None, names)[0]
    assert one.blurred.shape == one.sharp.shape == (96, 96, 3) and one.kernel.shape == (13, 13)
    np.testing.assert_array_equal(one.blurred, same.blurred)
    assert not np.array_equal(one.kernel, few.load(None, names)[1].kernel)
    assert not np.array_equal(one.kernel, few._replace(seed=1).load(None, names)[0].kernel)
    from jbid.ops.conv import blur

    # nothing but noise differs
    full = np.asarray(blur(np.pad(one.sharp, ((6, 6), (6, 6), (0, 0)), mode="reflect"), one.kernel))
    inner = (slice(20, 76),) * 2
    assert 0.005 < np.std((full - one.blurred)[inner]) < 0.02
    assert main(["synthetic", "--data", str(tmp_path), "--sizes", "4"]) == 2
    assert "odd sizes" in capsys.readouterr().err
    assert main(["synthetic", "--data", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err


def test_photos_without_ground_truth_have_a_page(tmp_path, capsys):
    from skimage import data

    write_image(tmp_path / "photo.png", data.camera()[100:196, 200:310, None].astype(np.float32) / 255)
    (tmp_path / "notes.txt").write_text("no image")
    out = tmp_path / "real.json"
    assert main(["real", "--data", str(tmp_path), "--out", str(out), *TINY[:-1], "--kernel-size=9"]) == 0
    row = json.loads(out.read_text())["images"][0]
    assert 0 < row["blur_effect"] < 1 and row["noise_blurred"] >= 0 and "psnr" not in row
    assert row["q"] > 0 and row["q_blurred"] > 0
    sheet = read_image(tmp_path / "real_sheet.jpg")
    # the photo lies at the left, its restoration beside it
    assert sheet[40:100, 10:200].std() > 0.05 and sheet[40:100, 245:435].std() > 0.05
    assert "photo" in out.with_suffix(".html").read_text()


def test_metric_q_falls_with_blur_and_with_noise():
    from scipy.ndimage import gaussian_filter
    from skimage import data

    from jbid.bench.real import anisotropic_patches, metric_q

    sharp = data.camera()[:256, :256] / 255
    patches = anisotropic_patches(sharp)
    noise = np.random.default_rng(0).standard_normal(sharp.shape)
    values = [metric_q(x, patches) for x in (sharp, gaussian_filter(sharp, 1), gaussian_filter(sharp, 2))]
    assert 0.05 < patches.mean() < 0.95 and values[0] > 1.1 * values[1] > 1.2 * values[2]
    # of a step of 100 gray levels along the columns of a patch: s1 = sqrt(8 * 2 * 50^2), s2 = 0
    step = np.where(np.arange(8) < 4, 0, 100 / 255) * np.ones((8, 1))
    assert metric_q(step, np.ones((1, 1), bool)) == pytest.approx(200)
    # patches of noise alone seldom seem to have a direction
    assert anisotropic_patches(noise).mean() < 0.02
    smooth = gaussian_filter(noise, 3)[8:-8, 8:-8]
    assert anisotropic_patches(smooth).mean() > 0.5
    assert metric_q(sharp + 0.2 * noise, patches) < metric_q(sharp + 0.05 * noise, patches)


def test_variance_over_seeds_and_initial_kernels(levin_set, tmp_path, capsys):
    out = tmp_path / "variance.json"
    args = ["variance", "--data", str(levin_set), "--only", "im1_kernel5_img", "--crop=72", "--seeds=3"]
    args += ["--inits", "random", "perturbed", "--kernel-size=11", "--out", str(out), *TINY_RUN]
    assert main(args) == 0
    content = json.loads(out.read_text())
    assert [row["init"] for row in content["summary"]] == ["random", "perturbed"]
    seeds = content["cells"][1]["seeds"]
    # each has its own initial kernel
    assert len({seed["psnr"] for seed in seeds}) == 3
    with open(out.with_suffix(".csv"), newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 6 and float(lines[4]["psnr"]) == seeds[1]["psnr"]
    best = max(seed["psnr"] for seed in seeds)
    assert content["summary"][1]["best psnr"] == best and content["summary"][1]["regret of the score, dB"] >= 0
    kept = (tmp_path / "variance" / "im1_kernel5_img_selfdeblur_random.npz").stat().st_mtime_ns
    assert main([*args, "--resume"]) == 0
    assert (tmp_path / "variance" / "im1_kernel5_img_selfdeblur_random.npz").stat().st_mtime_ns == kept
    wrong = {
        "--set=init=edges": "--inits",
        "--set=deconvolve=false": "deconvolve",
        "--preset=instant": "quick or paper",
        "--crop=500": "64 to 72",
        "--perturb=2": "0 to 1",
    }
    for flag, word in wrong.items():
        assert main([*args[:3], flag]) == 2
        assert word in capsys.readouterr().err
    assert main([*args, "--seed=5", "--resume"]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_variance_of_the_edge_based_estimate(levin_set, tmp_path):
    """Its seeds are samples with random options, selected by their rank; the same ones whatever their number."""
    out = tmp_path / "variance.json"
    args = ["variance", "--data", str(levin_set), "--only", "im1_kernel5_img", "--crop=72", "--methods", "edges"]
    assert main([*args, "--seeds=6", "--out", str(out)]) == 0
    content = json.loads(out.read_text())
    (cell,) = content["cells"]
    assert [seed["seed"] for seed in cell["seeds"]] == list(range(6)) and cell["init"] == "edges"
    psnr, ranks = ([seed[key] for seed in cell["seeds"]] for key in ("psnr", "rank"))
    assert len(set(psnr)) == 6 and max(psnr) < cell["psnr_true_kernel"] + 1
    (line,) = content["summary"]
    selected = psnr[int(np.argmax(ranks))]
    assert (
        line["regret of the rank, dB"] == pytest.approx(max(psnr) - selected) and line["regret of the loss, dB"] is None
    )
    fewer = tmp_path / "fewer.json"
    assert main([*args, "--seeds=2", "--seed=3", "--out", str(fewer)]) == 0
    again = json.loads(fewer.read_text())["cells"][0]["seeds"]
    assert [seed["psnr"] for seed in again] == pytest.approx(psnr[3:5], abs=1e-6)


def test_samples_of_an_image_whose_sides_round_apart():
    """Half of 71 rows are 36, and 36 / 71 of 74 columns are 38, but half of them 37."""
    from jbid.bench.cells import Cell
    from jbid.bench.estimates import run_samples
    from jbid.bench.protocols import PROTOCOLS
    from jbid.data.levin import Item
    from jbid.pipeline.config import Config

    image = np.random.default_rng(0).uniform(size=(71, 74, 3)).astype(np.float32)
    item = Item("noise", image, image, np.ones((3, 3), np.float32) / 9, 3)
    found = run_samples(Cell(item, "edges", Config(n_seeds=1), 0.3), PROTOCOLS["rgb_raw"], lambda: False)
    assert found and np.isfinite(found[0]["seeds"][0]["psnr"])


def test_gain_by_the_number_of_seeds():
    """The best of more seeds is better, up to all of them; the blurred image's PSNR is subtracted."""
    from jbid.bench.variance_statistics import gains_by_count

    seeds = [{"psnr": p, "rank": r} for p, r in ((30.0, 1.0), (20.0, 3.0), (25.0, 2.0))]
    row = {"name": "a", "method": "edges", "init": "edges", "psnr_blurred": 18.0, "seeds": seeds}
    gains = gains_by_count([row], {"a": np.ones((3, 3))})["edges, edges"]
    best, selected = ([values[i] for values in gains.values()] for i in (0, 1))
    assert list(gains) == [1, 2, 3] and best[0] < best[1] < best[2] == 12 and selected[2] == 2
    assert best[0] == pytest.approx(selected[0]) == pytest.approx(7, abs=0.8)


def test_regret_of_the_selection():
    """It is zero if score and PSNR agree, and the whole spread if they are opposed."""
    from jbid.bench.variance_statistics import mean_regret
    from jbid.kernel_estimation.ranking import NO_TERMS

    psnr = [30.0, 20.0, 25.0, 28.0]

    def row(sign):
        seeds = [
            {"psnr": p, "loss": sign * p, "failure": None, "terms": NO_TERMS._replace(flatness=sign * p)._asdict()}
            for p in psnr
        ]
        return {"seeds": seeds}

    similarity = np.ones((4, 4))
    for rule in ("score", "loss"):
        assert mean_regret(row(-1), similarity, rule, 4) == 0 and mean_regret(row(1), similarity, rule, 4) == 10
        assert 0 < mean_regret(row(1), similarity, rule, 2) < 10 and mean_regret(row(1), similarity, rule, 1) == 0
    assert mean_regret(row(-1), similarity, "any", 4) == pytest.approx(30 - np.mean(psnr))
    # a failed seed is not selected, whatever its score
    failed = row(1)
    failed["seeds"][1]["failure"] = "flat image"
    assert mean_regret(failed, similarity, "score", 4) == 5


@pytest.mark.data
def test_files_are_checked_against_their_checksums(levin_folder, tmp_path, capsys):
    import shutil

    assert main(["check", "levin", "--data", str(levin_folder)]) == 0
    assert "44 of 44" in capsys.readouterr().out
    shutil.copytree(levin_folder, tmp_path / "levin")
    for path in tmp_path.rglob("*"):
        path.chmod(0o755)
    (tmp_path / "levin" / "gt" / "im1.png").write_bytes(b"broken")
    (tmp_path / "levin" / "kernels" / "kernel3.png").unlink()
    assert main(["check", "levin", "--data", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert "42 of 44" in printed.out
    assert "im1.png: other content" in printed.err and "kernel3.png: missing" in printed.err
    assert main(["check", "--data", str(tmp_path / "none")]) == 2
    assert "csdwren/SelfDeblur" in capsys.readouterr().err


@pytest.mark.data
@pytest.mark.slow
def test_sets_are_read_by_tensorflow_datasets_without_tensorflow(levin_folder, tmp_path):
    pytest.importorskip("array_record", reason="has no wheel for this system")
    from jbid.data.tfds import tfds_source

    source = tfds_source("levin", levin_folder, tmp_path)
    assert len(source) == 32 and "tensorflow" not in sys.modules
    by_name = {example["name"].decode(): example for example in source}
    for item in levin.load(levin_folder, ["im2_kernel4_img", "im3_kernel5_img"]):
        example = by_name[item.name]
        for part in ("blurred", "sharp"):
            np.testing.assert_allclose(example[part] / np.float32(255), getattr(item, part))
        kernel = example["kernel"][..., 0].astype(np.float32)
        kernel = kernel if example["convolved"] else kernel[::-1, ::-1]
        np.testing.assert_allclose(kernel / kernel.sum(), item.kernel, atol=1e-6)
    with pytest.raises(ValueError, match="levin, lai"):
        tfds_source("kohler")


@pytest.mark.data
@pytest.mark.slow
def test_tensorflow_datasets_has_all_of_lai_in_three_channels(lai_folder, tmp_path):
    pytest.importorskip("array_record", reason="has no wheel for this system")
    from jbid.data.tfds import tfds_source

    source = tfds_source("lai", lai_folder, tmp_path)
    assert len(source) == 100
    for i in (0, 37, 99):
        example = source[i]
        assert example["blurred"].shape == example["sharp"].shape and example["sharp"].shape[2] == 3
    by_name = {example["name"].decode(): example["sharp"].shape for example in source}
    # whose file has an alpha channel
    assert by_name["text_05_kernel_02"] == (351, 502, 3)


def test_tensorboard_has_losses_scores_and_images(levin_set, tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    out, board = tmp_path / "run.json", tmp_path / "board"
    args = ["levin", "--data", str(levin_set), "--only", "im1_kernel5_img", "--out", str(out), *TINY[:3], *TINY[4:]]
    assert main([*args, "--steps=10", "--seeds=2", "--no-full", "--tensorboard", str(board)]) == 0
    scored = ["levin", "--data", str(levin_set), "--only", "im1_kernel5_img", "--score", str(tmp_path / "run")]
    assert main([*scored, "--no-full", "--tensorboard", str(tmp_path / "again")]) == 0
    (again,), (events,) = (folder.glob("events*") for folder in (tmp_path / "again", board))
    assert b"images/psnr" in again.read_bytes() and b"restored" in again.read_bytes()
    content, values, offset = events.read_bytes(), {}, 0
    while offset < len(content):
        # a record: length, checksum of the length, event, checksum of the event
        size = int.from_bytes(content[offset : offset + 8], "little")
        event = Event.FromString(content[offset + 12 : offset + 12 + size])
        values |= {value.tag: (event.step, value) for value in event.summary.value}
        offset += size + 16
    row = json.loads(out.read_text())["images"][0]
    assert values["images/psnr"][1].simple_value == pytest.approx(row["psnr"])
    step, lowest = values["loss/im1_kernel5_img/lowest"]
    assert step == 10 and lowest.simple_value == pytest.approx(min(c["loss"] for c in row["candidates"] if c["loss"]))
    image = values["im1_kernel5_img/restored"][1].image
    assert (image.height, image.width) == (72, 72) and image.encoded_image_string.startswith(b"\x89PNG")


def test_checkpoint_of_another_batch_is_not_used(levin_set, tmp_path, monkeypatch):
    """A batch with the same first image has a checkpoint folder of its own."""
    folders = []
    launch = runner.launch

    def record_folder(prepared, config, *, folder, **options):
        folders.append((len(prepared), folder.name))
        return launch(prepared, config, folder=folder, **options)

    monkeypatch.setattr(runner, "launch", record_folder)
    args = ["levin", "--data", str(levin_set), "--no-full", *TINY[:-1], "--kernel-size=11"]
    for name, batch in (("one", "1"), ("two", "2")):
        assert main([*args, "--limit=2", "--batch", batch, "--out", str(tmp_path / f"{name}.json")]) == 0
    (_, first), _, (count, second) = folders
    assert count == 2 and second != first
