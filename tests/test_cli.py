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
from jbid.ops.motion import gaussian_process_kernel
from jbid.pipeline.config import parse_assignment, read_config, resolve
from jbid.pipeline.resume import read_resumable

TINY = ["--set=channels=4", "--set=skip_channels=2", "--set=scales=1", "--kernel-size=9", "--start=random"]
CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.toml"))


@pytest.fixture
def photo(tmp_path):
    """A blurred color photo of 56x64 pixels."""
    sharp = transform.resize(data.astronaut(), (64, 72), anti_aliasing=True).astype(np.float32)
    path = tmp_path / "photo.png"
    write_image(path, blur(sharp, gaussian_process_kernel(jax.random.key(0), 9)))
    return path


def refused(capsys, *args) -> str:
    """The one line that bad input gets."""
    capsys.readouterr()
    assert main([str(a) for a in args]) == 2
    err = capsys.readouterr().err
    assert err.startswith("jbid: error: ") and err.count("\n") == 1
    return err


def test_deblur_writes_image_kernel_and_report(photo, tmp_path):
    out = tmp_path / "out"
    assert main(["deblur", str(photo), "--steps=6", "--seeds=2", "--seed=3", "--out", str(out), *TINY]) == 0
    assert {"photo.json", "photo_kernel.png", "photo_sharp.png"} <= {p.name for p in out.iterdir()}
    assert read_image(out / "photo_sharp.png").shape == read_image(photo).shape
    kernel = read_kernel(out / "photo_kernel.png")
    assert kernel.shape == (9, 9)
    report = json.loads((out / "photo.json").read_text())
    assert report["settings"]["options"]["channels"] == 4 and report["settings"]["options"]["image_lr"] == 0.01
    assert report["complete"] and report["steps_done"] == 6
    assert {"seed 3", "seed 4"} <= {c["name"] for c in report["candidates"]}
    assert report["chosen"] == report["candidates"][0]["name"]
    assert {"jax", "jbid"} <= set(report["versions"]) and report["seconds"] > 0 and report["device"]


@pytest.mark.parametrize("flags", [["--color=rgb"], ["--no-finish"], ["--color=rgb", "--no-finish", "--batch=2"]])
def test_deblur_in_color_and_without_finish(photo, tmp_path, flags):
    second = tmp_path / "second.png"
    write_image(second, read_image(photo)[::-1])
    out = tmp_path / "out"
    assert main(["deblur", str(photo), str(second), "--steps=2", "--out", str(out), *TINY, *flags]) == 0
    assert read_image(out / "second_sharp.png").shape == read_image(photo).shape


def test_a_known_kernel_is_kept(photo, tmp_path):
    kernel = np.asarray(gaussian_process_kernel(jax.random.key(0), 9))
    write_kernel(tmp_path / "k.png", kernel[:, 1:])  # 9x8: made square and odd
    args = ["deblur", photo, "--kernel", tmp_path / "k.png", "--steps=2", "--out", tmp_path / "out", *TINY[:3]]
    assert main([str(a) for a in args]) == 0
    found = read_kernel(tmp_path / "out" / "photo_kernel.png")
    np.testing.assert_allclose(found[:, :8], kernel[:, 1:] / kernel[:, 1:].sum(), atol=1e-4)
    assert json.loads((tmp_path / "out" / "photo.json").read_text())["settings"]["options"]["loss"] == "ssim"


def test_bad_pictures(capsys, photo, tmp_path):
    assert "no such file" in refused(capsys, "deblur", tmp_path / "missing.png")
    (tmp_path / "text.png").write_text("not a picture")
    assert "not an image" in refused(capsys, "deblur", tmp_path / "text.png")
    io.imsave(tmp_path / "dot.png", np.zeros((1, 1), np.uint8), check_contrast=False)
    assert "1x1" in refused(capsys, "deblur", tmp_path / "dot.png")
    tifffile.imwrite(tmp_path / "nan.tif", np.full((64, 64), np.nan, np.float32))
    assert "NaN" in refused(capsys, "deblur", tmp_path / "nan.tif")
    tifffile.imwrite(tmp_path / "big.tif", np.full((64, 64), 7, np.float32))
    assert "outside [0, 1]" in refused(capsys, "deblur", tmp_path / "big.tif")
    (tmp_path / "other").mkdir()
    write_image(tmp_path / "other" / "photo.png", np.zeros((40, 40)))
    assert main(["deblur", str(photo), str(tmp_path / "other"), "--steps=1", "--out", str(tmp_path / "o"), *TINY]) == 2
    assert "rename one" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--kernel-size=65"], "larger than the image"),
        (["--kernel-size=8"], "odd"),
        (["--set=chanels=3"], "'channels'"),
        (["--set=dtype=fp16"], "bfloat16"),
        (["--set=channels=wide"], "int"),
        (["--set=channels"], "key=value"),
        (["--set=kernel_net=cnn"], "kernel_net"),
        (["--steps=0"], "steps"),
        (["--seeds=0"], "seeds"),
        (["--method=magic"], "selfdeblur"),
        (["--preset=slow"], "quick"),
        (["--config=absent.toml"], "absent.toml"),
        (["--kernel=absent.png"], "no such file"),
        (["--start=edgy"], "edges"),
        (["--region=50,50,40,40"], "beyond the picture"),
        (["--region=0,0,0,5"], "region"),
        (["--preset=instant", "--seeds=2"], "instant"),
        (["--no-finish", "--patch=40"], "--patch 0"),
    ],
)
def test_bad_options(capsys, photo, flags, words):
    assert words in refused(capsys, "deblur", photo, *flags)


@pytest.mark.parametrize(
    "flag, word", [("--color=green", "luma"), ("--batch=0", "at least 1"), ("--kernel-size=big", "odd")]
)
def test_what_argparse_refuses_is_one_line_too(capsys, photo, flag, word):
    with pytest.raises(SystemExit) as stopped:
        main(["deblur", str(photo), flag])
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and err.count("\n") == 1 and word in err


def test_bad_config_files(capsys, photo, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text("kernel_sise = 9")
    line = refused(capsys, "deblur", photo, "--config", config)
    assert "c.toml" in line and "'kernel_size'" in line
    config.write_text("steps = ")
    assert "TOML" in refused(capsys, "deblur", photo, "--config", config)


def test_unwritable_folder(capsys, photo, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused(capsys, "deblur", photo, "--out", tmp_path / "file" / "out")


def test_nothing_is_lost_to_a_bad_second_run(capsys, photo, tmp_path):
    out = tmp_path / "out"
    assert main(["deblur", str(photo), "--steps=2", "--out", str(out), *TINY]) == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    refused(capsys, "deblur", tmp_path / "missing.png", "--out", out)
    refused(capsys, "deblur", photo, "--set=channels=wide", "--out", out)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_blur_is_the_forward_model(tmp_path, capsys):
    sharp = transform.resize(data.camera(), (40, 44), anti_aliasing=True)[..., None]
    kernel = np.asarray(gaussian_process_kernel(jax.random.key(1), 9))
    write_image(tmp_path / "sharp.png", sharp)
    write_kernel(tmp_path / "k.png", kernel)
    assert main(["blur", str(tmp_path / "sharp.png"), "--kernel", str(tmp_path / "k.png"), "--out", str(tmp_path)]) == 0
    expected = blur(read_image(tmp_path / "sharp.png"), read_kernel(tmp_path / "k.png"))
    np.testing.assert_allclose(read_image(tmp_path / "sharp_blurred.png"), expected, atol=0.51 / 255)
    assert "larger" in refused(capsys, "blur", tmp_path / "k.png", "--kernel", tmp_path / "sharp.png")


def killed_then_resumed(photo, tmp_path, stop) -> tuple[dict, dict]:
    """Files of an uninterrupted run, and of one that `stop(process)` ended half way and --resume took up."""
    steps = 400
    args = ["deblur", str(photo), f"--steps={steps}", *TINY]
    assert main([*args, "--out", str(tmp_path / "whole")]) == 0
    out = tmp_path / "stopped"
    command = [sys.executable, "-m", "jbid", *args, "--out", str(out), "--checkpoint-every=0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 300
    # some checkpoint, but not the last
    while not any(p.name.isdigit() and int(p.name) >= 20 for p in out.glob(".jbid/*/*/*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    stop(process)
    process.communicate(timeout=60)
    checkpoints = [int(p.name) for p in out.glob(".jbid/*/*/*") if p.name.isdigit()]
    assert checkpoints and max(checkpoints) < steps
    assert main([*args, "--out", str(out), "--resume"]) == 0
    return tuple({p.name: p.read_bytes() for p in d.glob("*.png")} for d in (tmp_path / "whole", out))


def test_killed_and_resumed_ends_bit_for_bit_the_same(photo, tmp_path):
    whole, resumed = killed_then_resumed(photo, tmp_path, lambda process: process.kill())
    assert whole == resumed and len(whole) == 2
    reports = [json.loads((tmp_path / d / "photo.json").read_text()) for d in ("whole", "stopped")]
    assert reports[0]["candidates"] == reports[1]["candidates"]


def test_ctrl_c_saves_what_is_there_and_resumes(photo, tmp_path):
    def stop(process):
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        report = json.loads((tmp_path / "stopped" / "photo.json").read_text())
        assert not report["complete"] and 0 < report["steps_done"] < 400
        assert (tmp_path / "stopped" / "photo_sharp.png").exists()

    whole, resumed = killed_then_resumed(photo, tmp_path, stop)
    assert whole == resumed


def test_resume_skips_what_is_done(photo, tmp_path, capsys):
    args = ["deblur", str(photo), "--steps=2", "--out", str(tmp_path / "out"), *TINY]
    assert main(args) == 0
    assert main([*args, "--resume"]) == 0
    assert "skipped" in capsys.readouterr().out
    # other settings are another run
    assert main([*args, "--resume", "--seed=1"]) == 0
    assert "skipped" not in capsys.readouterr().out


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_shipped_configs_resolve(path):
    config = read_config(path)
    if config.get("image_net") == "stylegan2":
        # the generator is the user's
        with pytest.raises(ValueError, match="--set generator"):
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


def test_few_steps_move_the_kernel_all_the_same():
    """The preset holds it for a third of its own steps; who asks for another hold gets it."""
    few, many, told = (
        resolve([("test", {"steps": 20, **more})]).options["kernel_hold"]
        for more in ({}, {"steps": 200}, {"kernel_hold": 30})
    )
    assert (few, many, told) == (6, 40, 30)


def test_help_answers_without_jax():
    script = "import sys; from jbid.cli.main import parser; parser().format_help(); print({'jax', 'flax'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_instant_needs_no_kernel_size(photo, tmp_path):
    sharp = transform.resize(data.astronaut(), (168, 176), anti_aliasing=True).astype(np.float32)
    kernel = gaussian_process_kernel(jax.random.key(0), 9)
    write_image(photo, blur(sharp, kernel))
    out = tmp_path / "out"
    assert main(["deblur", str(photo), "--preset=instant", "--out", str(out)]) == 0
    truth = crop_center(sharp, kernel.shape)
    before, after = (
        align(luma(x)[..., 0], luma(truth)[..., 0]).psnr
        for x in (read_image(photo), read_image(out / "photo_sharp.png"))
    )
    assert after > before + 3
    report = json.loads((out / "photo.json").read_text())
    assert max(report["kernel_size"]) in (5, 7, 9, 11) and report["start"]["candidates"] and report["warnings"] == []


def test_each_way_to_start(photo, tmp_path):
    kernel = np.asarray(gaussian_process_kernel(jax.random.key(0), 9))
    write_kernel(tmp_path / "k.png", kernel)
    found = {}
    for start in ("uniform", "edges", str(tmp_path / "k.png")):
        args = ["deblur", str(photo), *TINY[:4], f"--start={start}", "--steps=1", "--set=kernel_lr=0.0"]
        assert main([*args, "--set=kernel_net=free", "--out", str(tmp_path / "out")]) == 0
        report = json.loads((tmp_path / "out" / "photo.json").read_text())
        assert any(c["name"] == "start" for c in report["candidates"]) == (start == "edges")
        found[start] = read_kernel(tmp_path / "out" / "photo_kernel.png")
    np.testing.assert_allclose(found["uniform"], 1 / 81, atol=1e-5)
    np.testing.assert_allclose(found[str(tmp_path / "k.png")], kernel, atol=2e-3)


def test_one_broken_file_never_stops_the_rest(photo, tmp_path, capsys):
    folder = tmp_path / "folder"
    folder.mkdir()
    write_image(folder / "a.png", read_image(photo))
    write_image(folder / "c.png", read_image(photo))
    whole = (folder / "a.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    (folder / "d.png").write_text("not a picture")
    (folder / "notes.txt").write_text("not looked at")
    assert main(["deblur", str(folder), "--steps=1", "--out", str(tmp_path / "out"), *TINY]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jbid: error")]
    assert len(errors) == 2 and "b.png" in "".join(errors) and "d.png" in "".join(errors)
    assert {p.stem for p in (tmp_path / "out").glob("*_sharp.png")} == {"a_sharp", "c_sharp"}
    assert main(["deblur", str(folder / "[ac].png"), "--steps=1", "--out", str(tmp_path / "two"), *TINY]) == 0
    assert len(list((tmp_path / "two").glob("*_sharp.png"))) == 2


def test_a_region_is_where_the_kernel_comes_from(photo, tmp_path):
    args = ["deblur", str(photo), "--steps=1", "--region=4,2,48,40", "--out", str(tmp_path / "out"), *TINY]
    assert main(args) == 0
    report = json.loads((tmp_path / "out" / "photo.json").read_text())
    assert report["region"] == [4, 2, 48, 40]
    assert read_image(tmp_path / "out" / "photo_sharp.png").shape == read_image(photo).shape


def test_linear_light(tmp_path):
    """Blur made in linear light is undone better in linear light."""
    sharp = transform.resize(data.astronaut(), (72, 80), anti_aliasing=True).astype(np.float32)
    kernel = gaussian_process_kernel(jax.random.key(0), 9)
    write_image(tmp_path / "photo.png", linear_to_srgb(np.asarray(blur(srgb_to_linear(sharp), kernel))))
    write_kernel(tmp_path / "k.png", kernel)
    scores = []
    for flag in ([], ["--linear"]):
        args = ["deblur", str(tmp_path / "photo.png"), "--kernel", str(tmp_path / "k.png"), "--preset=instant"]
        assert main([*args, *flag, "--out", str(tmp_path / "out")]) == 0
        scores.append(psnr(read_image(tmp_path / "out" / "photo_sharp.png"), crop_center(sharp, kernel.shape)))
    assert scores[1] > scores[0] + 1


def test_failed_seeds_are_named_and_dropped(photo, tmp_path, capsys, monkeypatch):
    """Three of four seeds are made to fail after the optimization: not a number, black, and a delta kernel."""
    from jbid.pipeline.solve import optimize

    true = np.asarray(gaussian_process_kernel(jax.random.key(0), 9))
    real = optimize

    def planted(*args, **kwargs):
        result = real(*args, **kwargs)
        images, kernels = (np.array(v) for v in result.restored)
        images[0] = np.array(luma(read_image(photo)))
        kernels[0] = true
        images[0, 0] = np.nan
        images[0, 1] = 0
        kernels[0, 2] = np.eye(81)[40].reshape(9, 9)
        return result._replace(restored=result.restored._replace(image=images, kernel=kernels))

    monkeypatch.setattr("jbid.pipeline.solve.optimize", planted)
    assert main(["deblur", str(photo), "--steps=1", "--seeds=4", "--out", str(tmp_path / "out"), *TINY]) == 0
    report = json.loads((tmp_path / "out" / "photo.json").read_text())
    told = {c["name"]: c["failure"] for c in report["candidates"]}
    assert told["seed 0"] == "not a number" and told["seed 1"] == "flat image" and told["seed 2"] == "delta kernel"
    assert report["chosen"] == "seed 3" and told["seed 3"] is None
    printed = capsys.readouterr().out
    assert "not a number" in printed and "delta kernel" in printed


def test_spread_over_seeds_is_drawn(photo, tmp_path, monkeypatch):
    from jbid.pipeline.solve import optimize

    real = optimize

    def kept_apart(*args, **kwargs):
        result = real(*args, **kwargs)
        images, kernels = (np.array(v) for v in result.restored)
        images[0] = luma(read_image(photo))
        for i in range(3):
            kernels[0, i] = gaussian_process_kernel(jax.random.key(i), 9)
        return result._replace(restored=result.restored._replace(image=images, kernel=kernels))

    monkeypatch.setattr("jbid.pipeline.solve.optimize", kept_apart)
    assert main(["deblur", str(photo), "--steps=1", "--seeds=3", "--out", str(tmp_path / "out"), *TINY]) == 0
    report = json.loads((tmp_path / "out" / "photo.json").read_text())
    spread = read_image(tmp_path / "out" / "photo_spread.png")
    assert spread.shape[:2] == read_image(photo).shape[:2] and spread.max() > 0 and report["spread_of_seeds"] > 0
    assert {"seed 0", "seed 1", "seed 2", "mean of seeds"} == {c["name"] for c in report["candidates"]}


def test_blur_adds_the_noise_that_is_named(photo, tmp_path, capsys):
    write_kernel(tmp_path / "k.png", np.ones((3, 3)))
    base = ["blur", str(photo), "--kernel", str(tmp_path / "k.png"), "--out"]
    pictures = {}
    for name, more in (("clean", []), ("a", ["--noise=shot:25"]), ("b", ["--noise=shot:25", "--seed=1"])):
        assert main([*base, str(tmp_path / name), *more]) == 0
        pictures[name] = read_image(tmp_path / name / f"{photo.stem}_blurred.png")
    noise = pictures["a"] - pictures["clean"]
    assert 0.03 < noise.std() < 0.2 and (pictures["a"] != pictures["b"]).any()
    assert main([*base, str(tmp_path / "c"), "--noise=rain:1"]) == 2
    assert main(["demo", "--out", str(tmp_path / "d"), "--noise=rain:1"]) == 2
    assert "gaussian:LEVEL" in capsys.readouterr().err and not (tmp_path / "c").exists()


def test_robust_needs_no_size_and_stops_itself(photo, tmp_path):
    args = ["deblur", str(photo), "--method=robust", "--kernel-size=half", "--start=random", "--steps=40", *TINY[:3]]
    args += ["--set=siren_width=16", "--set=window=4", "--set=patience=3", "--seeds=2", "--no-finish", "--patch=0"]
    assert main([*args, "--out", str(tmp_path / "out")]) == 0
    told = json.loads((tmp_path / "out" / f"{photo.stem}.json").read_text())
    # half of 56x64 pixels, odd
    assert told["kernel_size"] == [29, 33] and len(told["stopped"]) == 2 and told["complete"]
    kernel = read_kernel(tmp_path / "out" / f"{photo.stem}_kernel.png")
    assert kernel.shape == (29, 33)
    # what is stopped early is not taken for interrupted
    assert all(n == 0 or n <= told["steps_done"] for n in told["stopped"])


def test_a_known_kernel_asks_each_method_for_its_own(tmp_path):
    asked = [resolve([("config", {"method": m})], known_kernel=True).options["loss"] for m in ("selfdeblur", "robust")]
    assert asked == ["ssim", "huber"]
    assert resolve([("config", {"preset": "instant"})], known_kernel=True).options["loss"] == "mse_ssim"


def test_a_benchmark_goes_on_with_what_has_the_same_settings(tmp_path):
    """As they are after a way through a file, which has no tuples."""
    path, settings = tmp_path / "report.json", {"milestones": (1, 2), "steps": 3}
    write_json(path, {"settings": settings, "images": [1]})
    assert read_resumable(path, settings, True)["images"] == [1] and read_resumable(path, settings, False) == {}
    with pytest.raises(ValueError, match="other settings"):
        read_resumable(path, settings | {"steps": 4}, True)
