from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from jbid.bench import table
from jbid.bench.cli import main
from jbid.bench.conditions import level_size
from jbid.data import levin
from jbid.io.images import write_image
from jbid.ops.color import luma
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
    from jbid.metrics import align
    from jbid.ops.conv import blur, crop_center

    for item in levin.load(levin_folder, levin.NAMES[:8]):
        # the kernel files are not centerd, hence the alignment
        observed = np.asarray(crop_center(item.blurred, item.kernel.shape))[..., 0]
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
        (["--maxshift=20"], "--maxshift"),
        (["--score=absent"], "no such folder"),
        ([f"--score={Path(__file__).parent}"], "are missing"),
        (["--set=chanels=2"], "channels"),
    ],
)
def test_bad_input(levin_folder, capsys, flags, words):
    data = [] if flags[0].startswith("--data") else ["--data", str(levin_folder)]
    assert main(["levin", *data, *flags]) == 2
    err = capsys.readouterr().err
    assert err.startswith("jbid: error: ") and err.count("\n") == 1 and words in err


@pytest.mark.parametrize("flags", [["levin", "--limit=0"], ["real", "--batch=0"], ["variance", "--lpips=x.pth"]])
def test_what_the_parser_refuses_is_one_line_too(capsys, flags):
    with pytest.raises(SystemExit) as ended:
        main(flags)
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.count("\n") == 1 and flags[1].split("=")[0] in err


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


@pytest.fixture
def lai_folder(levin_folder):
    folder = levin_folder.parent / "lai"
    if not folder.is_dir():
        pytest.skip("needs Lai's images beside Levin's in JBID_DATA")
    return folder


def test_protocols_are_those_of_the_command_line():
    from jbid.bench import cli
    from jbid.bench.protocols import PROTOCOLS

    assert tuple(PROTOCOLS) == cli.PROTOCOLS
    # Matlab's range makes errors smaller by 219 / 255
    rng = np.random.default_rng(0)
    sharp = rng.random((64, 64, 3), np.float32)
    image = np.clip(sharp + 0.05 * rng.standard_normal(sharp.shape).astype(np.float32), 0, 1)
    score = {name: p.score(image, sharp) for name, p in PROTOCOLS.items()}
    gain = score["sd_matlab"].psnr - score["sd_fullrange"].psnr
    assert gain == pytest.approx(20 * np.log10(255 / 219), abs=1e-4)
    assert score["rgb_raw"].psnr == pytest.approx(10 * np.log10(1 / np.mean((image - sharp) ** 2)), abs=1e-4)
    # a picture moved by two pixels is as good as before, but where nothing is moved back
    moved = np.roll(image, (2, -1), (0, 1))
    for name in ("sd_matlab", "sd_fullrange", "rgb_aligned"):
        again = PROTOCOLS[name].score(moved, sharp)
        assert again.shift == (2, -1) and again.psnr == pytest.approx(score[name].psnr, abs=1e-6)
    assert PROTOCOLS["rgb_raw"].score(moved, sharp).psnr < 15
    # a gray result of a picture in color has the range of the truth
    gray = PROTOCOLS["sd_matlab"].score(luma(sharp), sharp)
    assert gray.psnr > 60


def test_blurred_lai_images_score_as_by_the_authors_script(lai_folder, tmp_path):
    rows = golden_rows("lai_blurry_scored.csv")
    out = tmp_path / "blurred.json"
    args = [
        "lai",
        "--data",
        str(lai_folder),
        "--score",
        str(lai_folder / "uniform"),
        "--protocol",
        "sd_matlab",
        "rgb_raw",
    ]
    assert main([*args, "--only", *(row["name"] for row in rows), "--out", str(out)]) == 0
    content = json.loads(out.read_text())
    for row, known in zip(content["images"], rows):
        assert row["name"] == known["name"] and row["psnr_rgb_raw"] < row["psnr"]
        assert row["psnr"] == pytest.approx(float(known["psnr"]), abs=2e-3)
        assert row["ssim"] == pytest.approx(float(known["ssim"]), abs=2e-4)
    assert content["groups"]["category"]["text"]["images"] == 4
    text, page = (out.with_suffix(end).read_text() for end in (".md", ".html"))
    # beside them what was published, by its own protocol
    assert "26.71 / 0.9140" in text and "not stated" in text and "GKPILE" in page
    # all in one file
    assert page.count("data:image/jpeg;base64,") == 20 and "http" not in page.replace("http-equiv", "")


def test_subsets_and_scales(lai_folder, tmp_path, capsys):
    from jbid.bench.cli import parser
    from jbid.bench.table import chosen_names, loaded
    from jbid.data import lai

    def args(*flags):
        return parser().parse_args(["lai", "--data", str(lai_folder), *flags])

    assert len(chosen_names(args("--subset", "text"), lai)) == 20
    assert chosen_names(args("--subset", "kernel_03", "text", "people"), lai)[0] == "people_01_kernel_03"
    assert len(chosen_names(args("--subset", "kernel_03", "text", "people"), lai)) == 10
    item = loaded(args("--only", "text_05_kernel_01", "--scale", "0.25"), lai)[0]
    assert item.blurred.shape == item.sharp.shape == (88, 126, 3)
    assert item.kernel.shape == (9, 9) and item.kernel.sum() == pytest.approx(1, abs=1e-5)
    # what is shrunk is still blurred by what is shrunk
    from jbid.metrics import align
    from jbid.ops.conv import blur, crop_center

    for scale in ("0.25", "0.5"):
        half = loaded(args("--only", "natural_01_kernel_03", "--scale", scale), lai)[0]
        again = np.asarray(blur(luma(half.sharp), half.kernel))[..., 0]
        seen = np.asarray(crop_center(luma(half.blurred), half.kernel.shape))[..., 0]
        assert align(seen, again, max_shift=1).psnr > 38
    cases = [("--subset", "cats"), "people"], [("--scale", "2"), "at most 1"], [("--scale", "0"), "above 0"]
    none = "--only", "text_01_kernel_01", "--subset", "people"
    for flags, word in (*cases, [none, "no image"], [("--no-finish", "--preset", "quick"), "without --finish"]):
        assert main(["lai", "--data", str(lai_folder), *flags]) == 2
        assert word in capsys.readouterr().err


def test_results_are_scored_anew_without_being_made_anew(levin_folder, tmp_path):
    out = tmp_path / "run.json"
    args = ["levin", "--data", str(levin_folder), "--only", "im1_kernel5_img", "--out", str(out), *TINY]
    assert main([*args, "--no-full"]) == 0
    first = json.loads(out.read_text())["images"][0]
    before = (tmp_path / "run" / "im1_kernel5_img_x.png").stat().st_mtime_ns
    assert main([*args, "--no-full", "--protocol", "rgb_raw", "--resume"]) == 0
    second = json.loads(out.read_text())["images"][0]
    assert (tmp_path / "run" / "im1_kernel5_img_x.png").stat().st_mtime_ns == before
    assert second["psnr"] < first["psnr"] and second["seconds"] == first["seconds"]
    # nothing of the old protocol is left
    assert main([*args, "--resume"]) == 0
    assert main([*args, "--no-full", "--protocol", "rgb_raw", "--resume"]) == 0
    assert "psnr_blurred" not in json.loads(out.read_text())["images"][0]


def test_synthetic_pictures_depend_on_the_seed_alone(tmp_path, capsys):
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

    # the noise is there, and nothing else
    full = np.asarray(blur(np.pad(one.sharp, ((6, 6), (6, 6), (0, 0)), mode="reflect"), one.kernel))
    inner = (slice(20, 76),) * 2
    assert 0.005 < np.std((full - one.blurred)[inner]) < 0.02
    assert main(["synthetic", "--data", str(tmp_path), "--sizes", "4"]) == 2
    assert "odd sizes" in capsys.readouterr().err
    assert main(["synthetic", "--data", str(tmp_path / "none")]) == 2
    assert "no pictures" in capsys.readouterr().err


def test_photos_without_a_truth_make_a_page(tmp_path, capsys):
    from skimage import data

    write_image(tmp_path / "photo.png", data.camera()[100:196, 200:310, None].astype(np.float32) / 255)
    (tmp_path / "notes.txt").write_text("no picture")
    out = tmp_path / "real.json"
    assert main(["real", "--data", str(tmp_path), "--out", str(out), *TINY[:-1], "--kernel-size=9"]) == 0
    row = json.loads(out.read_text())["images"][0]
    assert 0 < row["blur_effect"] < 1 and row["noise_blurred"] >= 0 and "psnr" not in row
    assert "photo" in out.with_suffix(".html").read_text()


def test_seeds_of_several_starts(levin_folder, tmp_path, capsys):
    out = tmp_path / "variance.json"
    args = ["variance", "--data", str(levin_folder), "--only", "im1_kernel5_img", "--crop=72", "--seeds=3"]
    args += ["--starts", "random", "perturbed", "--kernel-size=11", "--out", str(out), *TINY[:4]]
    assert main(args) == 0
    content = json.loads(out.read_text())
    assert [one["start"] for one in content["summary"]] == ["random", "perturbed"]
    seeds = content["launches"][1]["seeds"]
    # each has a start of its own
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
        "--start=edges": "--starts",
        "--set=start=edges": "--starts",
        "--no-finish": "both",
        "--crop=500": "64 to 255",
        "--perturb=2": "0 to 1",
    }
    for flag, word in wrong.items():
        assert main([*args, flag]) == 2
        assert word in capsys.readouterr().err


def test_the_choice_among_seeds_knows_no_truth():
    """And its regret is none where score and PSNR agree, and the whole spread where they are opposed."""
    from jbid.bench.variance import regrets
    from jbid.kernel_estimation.ranking import NO_TERMS

    psnr = [30.0, 20.0, 25.0, 28.0]

    def row(sign):
        seeds = [
            {"psnr": p, "loss": sign * p, "refused": None, "terms": NO_TERMS._replace(flatness=sign * p)._asdict()}
            for p in psnr
        ]
        return {"seeds": seeds}

    alike = np.ones((4, 4))
    for rule in ("score", "loss"):
        assert regrets(row(-1), alike, rule, 4) == 0 and regrets(row(1), alike, rule, 4) == 10
        assert 0 < regrets(row(1), alike, rule, 2) < 10 and regrets(row(1), alike, rule, 1) == 0
    assert regrets(row(-1), alike, "any", 4) == pytest.approx(30 - np.mean(psnr))
    # one that has failed is not chosen whatever its score
    failed = row(1)
    failed["seeds"][1]["refused"] = "flat image"
    assert regrets(failed, alike, "score", 4) == 5


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
    told = capsys.readouterr()
    assert "42 of 44" in told.out and "im1.png: other content" in told.err and "kernel3.png: missing" in told.err
    assert main(["check", "--data", str(tmp_path / "none")]) == 2
    assert "csdwren/SelfDeblur" in capsys.readouterr().err


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


def test_tensorboard_has_losses_scores_and_pictures(levin_folder, tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    out, board = tmp_path / "run.json", tmp_path / "board"
    args = ["levin", "--data", str(levin_folder), "--only", "im1_kernel5_img", "--out", str(out), *TINY]
    assert main([*args, "--steps=10", "--seeds=2", "--no-full", "--tensorboard", str(board)]) == 0
    scored = ["levin", "--data", str(levin_folder), "--only", "im1_kernel5_img", "--score", str(tmp_path / "run")]
    assert main([*scored, "--no-full", "--tensorboard", str(tmp_path / "again")]) == 0
    (again,), (events,) = (folder.glob("events*") for folder in (tmp_path / "again", board))
    assert b"images/psnr" in again.read_bytes() and b"restored" in again.read_bytes()
    content, found, at = events.read_bytes(), {}, 0
    while at < len(content):
        # a record is its length, that one's checksum, the event and its checksum
        size = int.from_bytes(content[at : at + 8], "little")
        event = Event.FromString(content[at + 12 : at + 12 + size])
        found |= {value.tag: (event.step, value) for value in event.summary.value}
        at += size + 16
    row = json.loads(out.read_text())["images"][0]
    assert found["images/psnr"][1].simple_value == pytest.approx(row["psnr"])
    step, lowest = found["loss/im1_kernel5_img/lowest"]
    assert step == 10 and lowest.simple_value == pytest.approx(min(c["loss"] for c in row["candidates"] if c["loss"]))
    picture = found["im1_kernel5_img/restored"][1].image
    assert (picture.height, picture.width) == (255, 255) and picture.encoded_image_string.startswith(b"\x89PNG")


def test_a_launch_is_gone_on_with_by_the_same_images_alone(levin_folder, tmp_path, monkeypatch):
    """Not by another launch that has the same first image."""
    folders = []
    real = table.launch

    def noted(tasks, settings, *, folder, **options):
        folders.append((len(tasks), folder.name))
        return real(tasks, settings, folder=folder, **options)

    monkeypatch.setattr(table, "launch", noted)
    args = ["levin", "--data", str(levin_folder), "--no-full", *TINY, "--kernel-size=11"]
    for name, batch in (("one", "1"), ("two", "2")):
        assert main([*args, "--limit=2", "--batch", batch, "--out", str(tmp_path / f"{name}.json")]) == 0
    (_, first), _, (count, both) = folders
    assert count == 2 and both != first
