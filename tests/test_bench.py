from __future__ import annotations

import json

import numpy as np
import pytest

from jbid.bench.cli import main
from jbid.bench.conditions import level_size
from jbid.data import levin
from tests.test_metrics import golden_rows

TINY = [
    "--set=channels=4",
    "--set=skip_channels=2",
    "--set=scales=1",
    "--steps=2",
    "--start=random",
    "--kernel-size=published",
]


def test_official_results_score_as_published(levin_folder, tmp_path, capsys):
    out = tmp_path / "score.json"
    given = ["--data", str(levin_folder), "--score", str(levin_folder / "official_run"), "--limit", "8"]
    assert main(["levin", *given, "--out", str(out)]) == 0
    content = json.loads(out.read_text())
    # the first of four images with its eight kernels; all 32, whose mean is 33.7812, take two minutes
    rows = golden_rows("levin_official_run.csv")
    for maxshift, suffix in (("5", "_maxshift5"), ("10", "")):
        theirs = [row for row in rows if row["image"] == "1" and row["maxshift"] == maxshift]
        for score, tolerance in (("psnr", 1e-3), ("ssim", 1e-4)):
            expected = np.mean([float(row[score]) for row in theirs])
            assert content["mean"][score + suffix] == pytest.approx(expected, abs=tolerance)
    assert 0.8 < content["mean"]["kernel_similarity"] < 1
    assert len(content["images"]) == 8 and content["protocol"]["maxshift"] == 10 and content["device"]


def test_kernels_are_those_of_a_true_convolution(levin_folder):
    from jbid.blur import blur, crop_centre
    from jbid.metrics import align

    for item in levin.load(levin_folder, levin.NAMES[:8]):
        # the kernel files are not centred, hence the alignment
        observed = np.asarray(crop_centre(item.blurred, item.kernel.shape))[..., 0]
        right, turned = (
            align(observed, np.asarray(blur(item.sharp, k))[..., 0]).psnr
            for k in (item.kernel, item.kernel[::-1, ::-1])
        )
        assert right > 40 and right > turned + 4, item.name


def test_run_writes_scores_and_resumes(levin_folder, tmp_path, capsys):
    out = tmp_path / "run.json"
    args = [
        "levin",
        "--data",
        str(levin_folder),
        "--only",
        "im1_kernel5_img",
        "im2_kernel5_img",
        "--out",
        str(out),
        *TINY,
    ]
    assert main(args) == 0
    content = json.loads(out.read_text())
    row = content["images"][0]
    assert {"name", "psnr", "ssim", "seconds", "error_ratio", "kernel_similarity", "psnr_network"} <= set(row)
    assert np.isclose(content["mean"]["psnr"], np.mean([r["psnr"] for r in content["images"]]))
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        f"{r['name']}{end}" for r in content["images"] for end in ("_x.png", "_k.png", ".json")
    }
    before = (tmp_path / "run" / "im1_kernel5_img_x.png").stat().st_mtime_ns
    assert main([*args, "--resume"]) == 0
    assert (tmp_path / "run" / "im1_kernel5_img_x.png").stat().st_mtime_ns == before
    # what was written scores the same afterwards
    again = tmp_path / "again.json"
    assert (
        main(
            [
                "levin",
                "--data",
                str(levin_folder),
                "--only",
                "im1_kernel5_img",
                "--score",
                str(tmp_path / "run"),
                "--out",
                str(again),
            ]
        )
        == 0
    )
    assert json.loads(again.read_text())["mean"]["psnr"] == pytest.approx(row["psnr"])


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--data=absent"], "expected a folder"),
        (["--only", "im9_kernel9_img"], "im9_kernel9_img"),
        (["--limit=0"], "--limit"),
        (["--maxshift=20"], "--maxshift"),
        (["--score=absent"], "are missing"),
        (["--set=chanels=2"], "channels"),
    ],
)
def test_bad_input(levin_folder, capsys, flags, words):
    data = [] if flags[0].startswith("--data") else ["--data", str(levin_folder)]
    assert main(["levin", *data, *flags]) == 2
    err = capsys.readouterr().err
    assert err.startswith("jbid: error: ") and err.count("\n") == 1 and words in err


def test_levels_of_overspecification_go_from_the_true_size_to_half():
    sizes = [level_size((13, 13), (255, 255), level) for level in range(1, 6)]
    # 13, 42, 71, 100, 128 in the paper; odd here
    assert sizes == [13, 41, 71, 99, 127]


def test_conditions_are_made_scored_drawn_and_resumed(levin_folder, tmp_path, capsys):
    out = tmp_path / "noise.json"
    args = ["noise", "--data", str(levin_folder), "--only", "im1_kernel5_img", "--noises", "gaussian:0.05"]
    args += ["--methods", "robust", "selfdeblur", "--kernel-size", "11", "--out", str(out), *TINY[:-1]]
    assert main(args) == 0
    table = capsys.readouterr().out
    content = json.loads(out.read_text())
    assert [(row["method"], row["condition"]) for row in content["images"]] == [
        ("robust", "gaussian:0.05"),
        ("selfdeblur", "gaussian:0.05"),
    ]
    means = {row["method"]: row for row in content["means"]}
    # the noise of the picture that was given is there, and the same for both
    given = [row["psnr_blurred"] for row in content["images"]]
    assert given[0] == given[1] and 20 < means["input"]["psnr"] < 30 and 0 < means["input"]["vif"] < 0.5
    assert "selfdeblur" in table and out.with_suffix(".png").stat().st_size > 5000
    first = (tmp_path / "noise" / "im1_kernel5_img_robust_gaussian_0.05.json").stat().st_mtime_ns
    assert main([*args, "--resume"]) == 0
    assert (tmp_path / "noise" / "im1_kernel5_img_robust_gaussian_0.05.json").stat().st_mtime_ns == first


def test_noise_without_blur_has_its_own_baseline(levin_folder, tmp_path):
    out = tmp_path / "only.json"
    args = ["noise-only", "--data", str(levin_folder), "--only", "im1_kernel5_img", "--noises", "impulse:0.08"]
    assert main([*args, "--methods", "dip", "--out", str(out), *TINY[:-1]]) == 0
    row = json.loads(out.read_text())["images"][0]
    assert row["kernel_size"] == 1 and row["support_true"] == 1 and row["psnr_network"] == pytest.approx(row["psnr"])


def test_bad_conditions_are_refused_in_one_line(levin_folder, capsys):
    for args, word in (
        (["noise", "--noises", "salt:1"], "gaussian:LEVEL"),
        (["oversize", "--levels", "6"], "from 1 to 5"),
        (["oversize", "--method", "robust"], "--methods robust"),
        (["noise", "--lpips", "none.pth"], "alexnet-owt"),
        (["oversize", "--noise", "gaussian"], "gaussian:0.05"),
    ):
        assert main([*args, "--data", str(levin_folder)]) == 2
        error = capsys.readouterr().err
        assert word in error and error.count("\n") == 1


def test_a_report_needs_a_name_of_its_own(tmp_path, capsys):
    """The pictures lie in a folder named as the report without its suffix."""
    with pytest.raises(SystemExit) as ended:
        main(["oversize", "--out", str(tmp_path / "oversize")])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert ".json" in error and error.count("\n") == 1
