"""Commands of `jbid`: files, results, resuming and noise. Arguments and errors are tested in test_commandline.py."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tifffile
from skimage import data, io, transform

from jbid.cli.main import main
from jbid.io.files import write_json
from jbid.io.images import read_image, read_kernel, write_image, write_kernel
from jbid.metrics import align, psnr
from jbid.ops.color import linear_to_srgb, luma, srgb_to_linear
from jbid.ops.conv import blur, crop_center
from jbid.ops.motion import gaussian_process_kernel, kernel_of_extent
from jbid.pipeline.config import parse_assignment, read_config, resolve
from jbid.pipeline.resume import read_resumable
from tests.helpers import ROOT, TINY_ARGUMENTS

# a run of the deep prior that takes seconds
TINY = [*TINY_ARGUMENTS, "--set=min_confidence=0.0", "--method=selfdeblur", "--kernel-size=9", "--init=random"]
CONFIGS = sorted((ROOT / "configs").glob("*.toml"))


def write_photo(path):
    sharp = transform.resize(data.astronaut(), (64, 72), anti_aliasing=True).astype(np.float32)
    write_image(path, blur(sharp, gaussian_process_kernel(jax.random.key(0), 9)))


@pytest.fixture
def photo(tmp_path):
    """A blurred color photo of 56x64 pixels."""
    path = tmp_path / "photo.png"
    write_photo(path)
    return path


@pytest.fixture
def kernel_file(tmp_path):
    """The kernel of `photo`."""
    path = tmp_path / "k.png"
    write_kernel(path, np.asarray(gaussian_process_kernel(jax.random.key(0), 9)))
    return path


def report_of(folder: Path, name: str = "photo") -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_deblur_writes_image_kernel_and_report(photo, tmp_path):
    out = tmp_path / "out"
    assert main(["deblur", str(photo), "--steps=6", "--seeds=2", "--seed=3", "--out", str(out), *TINY]) == 0
    assert {"photo.json", "photo_kernel.png", "photo_sharp.png"} <= {p.name for p in out.iterdir()}
    assert read_image(out / "photo_sharp.png").shape == read_image(photo).shape
    assert read_kernel(out / "photo_kernel.png").shape == (9, 9)
    report = report_of(out)
    assert report["settings"]["options"]["channels"] == 4 and report["settings"]["options"]["image_lr"] == 0.01
    assert report["complete"] and report["steps_done"] == 6
    assert {"seed 3", "seed 4"} <= {c["name"] for c in report["candidates"]}
    assert report["chosen"] == report["candidates"][0]["name"]
    assert {"jax", "jbid"} <= set(report["versions"]) and report["seconds"] > 0 and report["device"]
    assert not (out / ".jbid").exists()


@pytest.mark.parametrize(
    "flags", [["--color=rgb"], ["--no-deconvolve"], ["--color=rgb", "--no-deconvolve", "--batch=2"]]
)
def test_deblur_in_color_and_without_deconvolution(photo, tmp_path, flags):
    second = tmp_path / "second.png"
    write_image(second, read_image(photo)[::-1])
    out = tmp_path / "out"
    assert main(["deblur", str(photo), str(second), "--steps=2", "--out", str(out), *TINY, "--patch=0", *flags]) == 0
    assert read_image(out / "second_sharp.png").shape == read_image(photo).shape


def test_a_known_kernel_is_kept(photo, tmp_path):
    kernel = np.asarray(gaussian_process_kernel(jax.random.key(0), 9))
    write_kernel(tmp_path / "k.png", kernel[:, 1:])  # 9x8: padded to an odd square
    args = ["deblur", photo, "--kernel", tmp_path / "k.png", "--steps=2", "--out", tmp_path / "out"]
    assert main([str(a) for a in (*args, "--method=selfdeblur", *TINY_ARGUMENTS)]) == 0
    kept = read_kernel(tmp_path / "out" / "photo_kernel.png")
    np.testing.assert_allclose(kept[:, :8], kernel[:, 1:] / kernel[:, 1:].sum(), atol=1e-4)
    report = report_of(tmp_path / "out")
    assert report["settings"]["options"]["loss"] == "ssim" and report["known_kernel"] == "k.png"


def test_alpha_bit_depth_and_format_are_kept(photo, kernel_file, tmp_path):
    pixels = read_image(photo)
    alpha = np.tile(np.arange(64, dtype=np.uint8) * 4, (56, 1))
    io.imsave(tmp_path / "a.png", np.dstack([np.uint8(pixels * 255), alpha]), check_contrast=False)
    tifffile.imwrite(tmp_path / "b.tif", np.uint16(pixels * 65535))
    args = ["deblur", tmp_path / "a.png", tmp_path / "b.tif", "--kernel", kernel_file, "--out", tmp_path / "out"]
    assert main([str(a) for a in args]) == 0
    restored = io.imread(tmp_path / "out" / "a_sharp.png")
    np.testing.assert_array_equal(restored[..., 3], alpha)
    assert tifffile.imread(tmp_path / "out" / "b_sharp.tif").dtype == np.uint16


def test_transparent_pixels_stay_and_do_no_harm(tmp_path, capsys):
    sharp = (data.astronaut()[60:240, 120:300] / 255).astype(np.float32)
    blurred = np.asarray(blur(sharp, kernel_of_extent(11, 4)))
    rows, columns = np.ogrid[: blurred.shape[0], : blurred.shape[1]]
    shown = (rows - 85) ** 2 / 80**2 + (columns - 80) ** 2 / 70**2 < 1
    pixels = np.uint8(255 * np.dstack([np.where(shown[..., None], blurred, 0), shown]))
    io.imsave(tmp_path / "cut.png", pixels, check_contrast=False)
    io.imsave(tmp_path / "black.png", pixels[..., :3], check_contrast=False)
    args = ["deblur", str(tmp_path / "cut.png"), str(tmp_path / "black.png"), "--out", str(tmp_path / "out")]
    assert main([*args, "--set", "min_confidence=0"]) == 0
    assert "transparent pixels were left out" in capsys.readouterr().err
    restored, without = (io.imread(tmp_path / "out" / f"{name}_sharp.png") for name in ("cut", "black"))
    np.testing.assert_array_equal(restored[~shown], pixels[~shown])
    truth = sharp[5:-5, 5:-5]
    errors = [np.mean((x[shown] / 255 - truth[shown]) ** 2) for x in (restored[..., :3], without, pixels[..., :3])]
    assert errors[0] < 0.5 * min(errors[1:])


def test_lights_above_white_are_clipped_compressed_or_kept(kernel_file, tmp_path):
    lamps = np.full((80, 90, 1), 0.1, np.float32)
    lamps[40:43, 30:33] = lamps[20:24, 60:64] = 6
    kernel = read_kernel(kernel_file)
    write_image(tmp_path / "night.png", np.minimum(np.asarray(blur(lamps, kernel)), 1))
    args = ["deblur", str(tmp_path / "night.png"), "--kernel", str(kernel_file), "--highlights"]
    for choice in ("clip", "compress", "keep"):
        assert main([*args, choice, "--out", str(tmp_path / choice)]) == 0
    kept = tifffile.imread(tmp_path / "keep" / "night_sharp.tif")
    clipped, compressed = (read_image(tmp_path / c / "night_sharp.png")[..., 0] for c in ("clip", "compress"))
    assert kept.dtype == np.float32 and kept.max() > 1.5
    np.testing.assert_allclose(clipped, np.minimum(kept, 1), atol=0.51 / 255)
    is_dark = kept < 0.7
    np.testing.assert_allclose(compressed[is_dark], kept[is_dark], atol=0.51 / 255)
    assert compressed.max() == 1 and (compressed == 1).sum() < (clipped == 1).sum()


def test_nothing_is_lost_to_a_bad_second_run(capsys, photo, tmp_path):
    out = tmp_path / "out"
    args = ["deblur", str(photo), "--out", str(out), *TINY]
    assert main([*args, "--steps=2"]) == 0
    before = contents(out)
    assert main(["deblur", str(tmp_path / "missing.png"), "--out", str(out)]) == 2
    assert main([*args, "--set=channels=wide"]) == 2
    assert contents(out) == before


def test_blur_is_the_forward_model(tmp_path, capsys):
    sharp = transform.resize(data.camera(), (40, 44), anti_aliasing=True)[..., None]
    kernel = np.asarray(gaussian_process_kernel(jax.random.key(1), 9))
    write_image(tmp_path / "sharp.png", sharp)
    write_kernel(tmp_path / "k.png", kernel)
    assert main(["blur", str(tmp_path / "sharp.png"), "--kernel", str(tmp_path / "k.png"), "--out", str(tmp_path)]) == 0
    expected = blur(read_image(tmp_path / "sharp.png"), read_kernel(tmp_path / "k.png"))
    np.testing.assert_allclose(read_image(tmp_path / "sharp_blurred.png"), expected, atol=0.51 / 255)
    assert main(["blur", str(tmp_path / "k.png"), "--kernel", str(tmp_path / "sharp.png")]) == 2
    assert "larger" in capsys.readouterr().err


STEPS = 200


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Folder of a photo, with the results of a run of `STEPS` steps in whole/."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    write_photo(folder / "photo.png")
    assert main(["deblur", str(folder / "photo.png"), f"--steps={STEPS}", *TINY, "--out", str(folder / "whole")]) == 0
    return folder


def stop_and_resume(folder, tmp_path, stop) -> None:
    """Restore the photo as in `uninterrupted`, but `stop(process)` ends the run half way and --resume continues it."""
    args = ["deblur", str(folder / "photo.png"), f"--steps={STEPS}", *TINY]
    out = tmp_path / "stopped"
    command = [sys.executable, "-m", "jbid", *args, "--out", str(out), "--checkpoint-every=0"]
    with (tmp_path / "output.txt").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    deadline = time.monotonic() + 300
    # some checkpoint, but not the last
    while not any(p.name.isdigit() and int(p.name) >= 20 for p in out.glob(".jbid/*/*/*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    stop(process)
    process.wait(timeout=60)
    checkpoints = [int(p.name) for p in out.glob(".jbid/*/*/*") if p.name.isdigit()]
    assert checkpoints and max(checkpoints) < STEPS
    assert main([*args, "--out", str(out), "--resume"]) == 0
    whole, resumed = ({p.name: p.read_bytes() for p in d.glob("*.png")} for d in (folder / "whole", out))
    assert whole == resumed and len(whole) == 2


@pytest.mark.slow
def test_a_killed_and_resumed_run_ends_bit_for_bit_the_same(uninterrupted, tmp_path):
    stop_and_resume(uninterrupted, tmp_path, lambda process: process.kill())
    reports = [report_of(folder) for folder in (uninterrupted / "whole", tmp_path / "stopped")]
    assert reports[0]["candidates"] == reports[1]["candidates"]


@pytest.mark.slow
def test_ctrl_c_saves_a_checkpoint_and_resume_continues(uninterrupted, tmp_path):
    def stop(process):
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        report = report_of(tmp_path / "stopped")
        assert not report["complete"] and 0 < report["steps_done"] < STEPS
        assert (tmp_path / "stopped" / "photo_sharp.png").exists()
        output = (tmp_path / "output.txt").read_text()
        assert output.count("Run the same command with --resume to continue") == 1
        assert "Saving a checkpoint" in output and "Traceback" not in output

    stop_and_resume(uninterrupted, tmp_path, stop)


def test_resume_skips_complete_results(photo, tmp_path, capsys):
    args = ["deblur", str(photo), "--steps=2", "--out", str(tmp_path / "out"), *TINY]
    assert main(args) == 0
    assert main([*args, "--resume"]) == 0
    assert "already complete, skipped" in capsys.readouterr().out
    # without --resume the photo is restored again
    assert main(args) == 0
    assert "skipped" not in capsys.readouterr().out


def test_resume_replaces_results_of_other_settings_only_with_overwrite(photo, tmp_path, capsys):
    out = tmp_path / "out"
    second = tmp_path / "second.png"
    write_image(second, read_image(photo)[::-1])
    args = ["--steps=2", "--out", str(out), *TINY]
    assert main(["deblur", str(photo), *args]) == 0
    before = contents(out)
    capsys.readouterr()
    assert main(["deblur", str(photo), str(second), *args, "--seed=1", "--resume"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jbid: error: ")]
    assert len(lines) == 1 and "photo.json" in lines[0] and "--overwrite" in lines[0]
    # the other photo is restored all the same
    after = contents(out)
    assert "second_sharp.png" in after and all(after[name] == before[name] for name in before)
    assert main(["deblur", str(photo), *args, "--seed=1", "--resume", "--overwrite"]) == 0
    assert report_of(out)["settings"]["seed"] == 1
    # a run that does not resume replaces results as before
    assert main(["deblur", str(photo), *args, "--seed=2"]) == 0
    assert report_of(out)["settings"]["seed"] == 2


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_shipped_configs_resolve(path):
    config = read_config(path)
    if config.get("image_net") == "stylegan2":
        # the generator is the user's
        with pytest.raises(ValueError, match="`generator`"):
            resolve([(path.name, config)])
        return
    settings = resolve([(path.name, config)])
    for name, value in config.items():
        assert (settings._asdict() | settings.options)[name] == value


def test_later_sources_win():
    settings = resolve([("a", {"steps": 5, "channels": 8}), ("b", {"steps": 7, "preset": "paper"})])
    assert settings.steps == 7 and settings.options["channels"] == 8 and settings.options["ssim_from"] == 1000
    assert parse_assignment("milestones=[1, 2]") == ("milestones", [1, 2])
    assert parse_assignment("loss=ssim") == ("loss", "ssim")


def test_few_steps_move_the_kernel_too():
    """The preset holds it for a third of its own steps; an explicit value is kept."""
    few, many, explicit = (
        resolve([("test", {"method": "selfdeblur", "steps": 20, **more})]).options["kernel_hold"]
        for more in ({}, {"steps": 200}, {"kernel_hold": 30})
    )
    assert (few, many, explicit) == (6, 40, 30)


def test_the_default_method_needs_no_kernel_size(photo, tmp_path, capsys):
    sharp = transform.resize(data.astronaut(), (120, 128), anti_aliasing=True).astype(np.float32)
    kernel = gaussian_process_kernel(jax.random.key(0), 9)
    write_image(photo, blur(sharp, kernel))
    out = tmp_path / "out"
    assert main(["deblur", str(photo), "--out", str(out)]) == 0
    assert "photo: trying kernels of up to" in capsys.readouterr().err
    original = crop_center(sharp, kernel.shape)
    before, after = (
        align(luma(x)[..., 0], luma(original)[..., 0]).psnr
        for x in (read_image(photo), read_image(out / "photo_sharp.png"))
    )
    assert after > before + 3
    report = report_of(out)
    assert report["settings"]["method"] == "edges" and report["steps_done"] == 0
    assert max(report["kernel_size"]) in (5, 7, 9, 11)
    assert report["kernel_estimate"]["candidates"] and report["warnings"] == []


def test_each_initial_kernel(photo, kernel_file, tmp_path):
    kernels = {}
    for init in ("uniform", "edges", str(kernel_file)):
        args = ["deblur", str(photo), *TINY[:-1], f"--init={init}", "--steps=1", "--set=kernel_lr=0.0"]
        assert main([*args, "--set=kernel_net=free", "--out", str(tmp_path / "out")]) == 0
        candidates = report_of(tmp_path / "out")["candidates"]
        assert any(c["name"] == "initial kernel" for c in candidates) == (init == "edges")
        kernels[init] = read_kernel(tmp_path / "out" / "photo_kernel.png")
    np.testing.assert_allclose(kernels["uniform"], 1 / 81, atol=1e-5)
    np.testing.assert_allclose(kernels[str(kernel_file)], read_kernel(kernel_file), atol=2e-3)


def test_one_broken_file_never_stops_the_rest(photo, tmp_path, capsys):
    folder = tmp_path / "folder"
    folder.mkdir()
    write_image(folder / "a.png", read_image(photo))
    write_image(folder / "c.png", read_image(photo))
    intact = (folder / "a.png").read_bytes()
    (folder / "b.png").write_bytes(intact[: len(intact) // 2])
    (folder / "d.png").write_text("not an image")
    (folder / "notes.txt").write_text("ignored")
    assert main(["deblur", str(folder), "--steps=1", "--out", str(tmp_path / "out"), *TINY]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jbid: error")]
    assert len(errors) == 2 and "b.png" in "".join(errors) and "d.png" in "".join(errors)
    assert {p.stem for p in (tmp_path / "out").glob("*_sharp.png")} == {"a_sharp", "c_sharp"}
    assert main(["deblur", str(folder / "[ac].png"), "--steps=1", "--out", str(tmp_path / "two"), *TINY]) == 0
    assert len(list((tmp_path / "two").glob("*_sharp.png"))) == 2


def test_results_in_the_input_folder_are_no_inputs(photo, kernel_file, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    write_image(folder / "a.png", read_image(photo))
    args = ["deblur", str(folder), "--kernel", str(kernel_file), "--out", str(folder)]
    assert main(args) == 0 and main(args) == 0
    assert {p.name for p in folder.iterdir()} == {"a.png", "a_sharp.png", "a_kernel.png", "a.json"}


def test_the_kernel_is_estimated_from_the_region(photo, tmp_path):
    args = ["deblur", str(photo), "--steps=1", "--region=4,2,48,40", "--out", str(tmp_path / "out"), *TINY]
    assert main(args) == 0
    assert report_of(tmp_path / "out")["region"] == [4, 2, 48, 40]
    assert read_image(tmp_path / "out" / "photo_sharp.png").shape == read_image(photo).shape


def test_linear_light(kernel_file, tmp_path):
    """Blur made in linear light is undone better in linear light."""
    sharp = transform.resize(data.astronaut(), (72, 80), anti_aliasing=True).astype(np.float32)
    kernel = gaussian_process_kernel(jax.random.key(0), 9)
    write_image(tmp_path / "photo.png", linear_to_srgb(np.asarray(blur(srgb_to_linear(sharp), kernel))))
    scores = []
    for flag in ([], ["--linear"]):
        args = ["deblur", str(tmp_path / "photo.png"), "--kernel", str(kernel_file), *flag]
        assert main([*args, "--out", str(tmp_path / "out")]) == 0
        scores.append(psnr(read_image(tmp_path / "out" / "photo_sharp.png"), crop_center(sharp, kernel.shape)))
    assert scores[1] > scores[0] + 1


def test_failed_seeds_are_reported_and_never_chosen(photo, tmp_path, capsys, monkeypatch):
    """Three of four seeds are made to fail after the optimization: not a number, black, and a delta kernel."""
    from jbid.pipeline.solve import optimize

    true = np.asarray(gaussian_process_kernel(jax.random.key(0), 9))

    def plant_failures(*args, **options):
        result = optimize(*args, **options)
        images, kernels = (np.array(v) for v in result.output)
        images[0] = np.array(luma(read_image(photo)))
        kernels[0] = true
        images[0, 0] = np.nan
        images[0, 1] = 0
        kernels[0, 2] = np.eye(81)[40].reshape(9, 9)
        return result._replace(output=result.output._replace(image=images, kernel=kernels))

    monkeypatch.setattr("jbid.pipeline.solve.optimize", plant_failures)
    assert main(["deblur", str(photo), "--steps=1", "--seeds=4", "--out", str(tmp_path / "out"), *TINY]) == 0
    report = report_of(tmp_path / "out")
    failures = {c["name"]: c["failure"] for c in report["candidates"]}
    assert failures["seed 0"] == "not a number" and failures["seed 1"] == "flat image"
    assert failures["seed 2"] == "delta kernel"
    assert report["chosen"] == "seed 3" and failures["seed 3"] is None
    printed = capsys.readouterr().out
    assert "not a number" in printed and "delta kernel" in printed


def test_the_spread_over_seeds_is_drawn(photo, tmp_path, monkeypatch):
    from jbid.pipeline.solve import optimize

    def plant_kernels(*args, **options):
        result = optimize(*args, **options)
        images, kernels = (np.array(v) for v in result.output)
        images[0] = luma(read_image(photo))
        for i in range(3):
            kernels[0, i] = gaussian_process_kernel(jax.random.key(i), 9)
        return result._replace(output=result.output._replace(image=images, kernel=kernels))

    monkeypatch.setattr("jbid.pipeline.solve.optimize", plant_kernels)
    assert main(["deblur", str(photo), "--steps=1", "--seeds=3", "--out", str(tmp_path / "out"), *TINY]) == 0
    report = report_of(tmp_path / "out")
    spread = read_image(tmp_path / "out" / "photo_spread.png")
    assert spread.shape[:2] == read_image(photo).shape[:2] and spread.max() > 0 and report["spread_of_seeds"] > 0
    assert {"seed 0", "seed 1", "seed 2", "mean of seeds"} == {c["name"] for c in report["candidates"]}


def test_blur_adds_the_requested_noise(photo, tmp_path, capsys):
    write_kernel(tmp_path / "k.png", np.ones((3, 3)))
    base = ["blur", str(photo), "--kernel", str(tmp_path / "k.png"), "--out"]
    images = {}
    for name, more in (("clean", []), ("a", ["--noise=shot:25"]), ("b", ["--noise=shot:25", "--seed=1"])):
        assert main([*base, str(tmp_path / name), *more]) == 0
        images[name] = read_image(tmp_path / name / f"{photo.stem}_blurred.png")
    noise = images["a"] - images["clean"]
    assert 0.03 < noise.std() < 0.2 and (images["a"] != images["b"]).any()
    assert main([*base, str(tmp_path / "c"), "--noise=rain:1"]) == 2
    assert main(["demo", "--out", str(tmp_path / "d"), "--noise=rain:1"]) == 2
    assert "gaussian:LEVEL" in capsys.readouterr().err and not (tmp_path / "c").exists()


def test_kernels_draws_a_grid(tmp_path):
    args = ["kernels", "--size=9", "--count=4", "--model=gaussian_process", "--out"]
    assert main([*args, str(tmp_path / "new" / "k.png")]) == 0 and main([*args, str(tmp_path / "k.png")]) == 0
    assert (tmp_path / "new" / "k.png").read_bytes() == (tmp_path / "k.png").read_bytes()
    assert read_image(tmp_path / "k.png").max() == 1


def test_robust_needs_no_size_and_stops_early(photo, tmp_path):
    args = ["deblur", str(photo), "--method=robust", "--kernel-size=half", "--init=random", "--steps=40"]
    args += [*TINY_ARGUMENTS, "--set=siren_width=16", "--set=window=4", "--set=patience=3", "--seeds=2"]
    assert main([*args, "--no-deconvolve", "--patch=0", "--out", str(tmp_path / "out")]) == 0
    report = report_of(tmp_path / "out")
    # half of 56x64 pixels, odd
    assert report["kernel_size"] == [29, 33] and len(report["stopped"]) == 2 and report["complete"]
    assert read_kernel(tmp_path / "out" / f"{photo.stem}_kernel.png").shape == (29, 33)
    # early stopping does not count as an interruption
    assert all(n == 0 or n <= report["steps_done"] for n in report["stopped"])


def test_a_known_kernel_has_settings_of_its_own_for_each_method():
    methods = ("selfdeblur", "robust")
    losses = [resolve([("config", {"method": m})], known_kernel=True).options["loss"] for m in methods]
    assert losses == ["ssim", "huber"]
    assert resolve([("config", {"preset": "instant"})], known_kernel=True).options == {}


def test_a_report_of_the_same_settings_is_resumed(tmp_path):
    """The comparison is made as read from JSON, which has no tuples."""
    path, settings = tmp_path / "report.json", {"milestones": (1, 2), "steps": 3}
    other = settings | {"steps": 4}
    write_json(path, {"settings": settings, "images": [1]})
    assert read_resumable(path, settings, resume=True)["images"] == [1]
    assert read_resumable(path, settings, resume=False) == {}
    assert read_resumable(path, other, resume=True, overwrite=True) == {}
    with pytest.raises(ValueError, match="other settings"):
        read_resumable(path, other, resume=True)
