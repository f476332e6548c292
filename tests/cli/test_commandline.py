"""Arguments of the command line: help, old spellings, errors on one line and exit codes."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import tifffile
from skimage import io
from tqdm import tqdm

from jbid.cli.main import app, main
from jbid.io.images import write_image
from jbid.runtime import commandline
from jbid.runtime.commandline import create_app, run
from jbid.runtime.console import Interrupt, tile_bar
from tests.helpers import ROOT

COMMANDS = ("deblur", "blur", "kernels", "pretrain", "transfer", "augment", "demo")
# old flags, their present spelling and a value
VALUES = {"--init": "edges", "--color": "rgb", "--deconvolve": None, "--no-deconvolve": None}
OLD = [(old, new, VALUES[new]) for old, new in commandline.RENAMED.items()]


@pytest.fixture
def photo(tmp_path):
    """A color image of 56x64 pixels; no test here restores it."""
    path = tmp_path / "photo.png"
    write_image(path, np.random.default_rng(0).random((56, 64, 3), np.float32))
    return path


def error_of(capsys, *args) -> str:
    """The one line on stderr of a command with bad input, whose exit code is 2."""
    capsys.readouterr()
    assert main([str(a) for a in args]) == 2
    err = capsys.readouterr().err
    assert err.startswith("jbid: error: ") and err.count("\n") == 1
    return err


def help_of(capsys, *args) -> str:
    capsys.readouterr()
    assert main([*args, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_no_old_spelling(capsys, command):
    text = help_of(capsys, command)
    assert f"Example: jbid {command}" in text
    assert not any(flag in text.split() for flag in commandline.RENAMED)


def test_help_of_deblur_puts_common_options_first(capsys):
    text = help_of(capsys, "deblur")
    assert text.index("Options") < text.index("--kernel-size") < text.index("Research options") < text.index("--preset")
    assert "[default: deblurred]" in text


@pytest.mark.parametrize("args", [["--help"], ["deblur", "--help"], ["pretrain", "--help"], ["--version"]])
def test_help_answers_without_jax_and_numpy(args):
    script = (
        "import sys; from jbid.cli.main import main; code = main(sys.argv[1:]);"
        "print(code, {'jax', 'flax', 'numpy', 'scipy', 'skimage', 'PIL'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True, check=True)
    assert done.stdout and done.stderr.strip() == "0 set()"


def test_entry_point_of_the_module_and_of_the_console_script():
    from jbid.__main__ import entry_point

    assert callable(entry_point)
    done = subprocess.run([sys.executable, "-m", "jbid", "nothing"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.startswith("jbid: error: ") and done.stderr.count("\n") == 1
    assert not done.stdout


def test_bad_images(capsys, photo, tmp_path):
    assert "no such file" in error_of(capsys, "deblur", tmp_path / "missing.png")
    assert "no images found" in error_of(capsys, "deblur", tmp_path / "*.gif")
    (tmp_path / "text.png").write_text("not an image")
    assert "not an image" in error_of(capsys, "deblur", tmp_path / "text.png")
    io.imsave(tmp_path / "dot.png", np.zeros((1, 1), np.uint8), check_contrast=False)
    assert "1x1" in error_of(capsys, "deblur", tmp_path / "dot.png")
    tifffile.imwrite(tmp_path / "nan.tif", np.full((64, 64), np.nan, np.float32))
    assert "NaN" in error_of(capsys, "deblur", tmp_path / "nan.tif", "--out", tmp_path / "out")
    tifffile.imwrite(tmp_path / "big.tif", np.full((64, 64), 7, np.float32))
    assert "outside [0, 1]" in error_of(capsys, "deblur", tmp_path / "big.tif", "--out", tmp_path / "out")


def test_two_images_of_one_name_are_refused(capsys, photo, tmp_path):
    (tmp_path / "other").mkdir()
    write_image(tmp_path / "other" / "photo.png", np.zeros((40, 40)))
    # both are bad input here: the first is larger than its kernel allows, the second has its name
    line = error_of(capsys, "deblur", photo, tmp_path / "other", "--kernel-size=57", "--out", tmp_path / "out")
    assert "photo_sharp. Rename one." in line


NETWORK = "--method=selfdeblur"


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--kernel-size=65"], "--kernel-size must not exceed the image"),
        (["--kernel-size=8"], "--kernel-size must be a positive odd number"),
        ([NETWORK, "--set=chanels=3"], "'channels'"),
        ([NETWORK, "--set=dtype=fp16"], "bfloat16"),
        ([NETWORK, "--set=channels=wide"], "--set channels must be int"),
        (["--set=channels"], "key=value"),
        ([NETWORK, "--set=kernel_net=cnn"], "--set kernel_net"),
        ([NETWORK, "--steps=0"], "--steps must be at least 1"),
        (["--method=magic"], "selfdeblur"),
        (["--preset=slow"], "quick"),
        (["--config=absent.toml"], "absent.toml"),
        (["--kernel=absent.png"], "no such file"),
        ([NETWORK, "--init=edgy"], "--init must be random"),
        (["--region=0,0,0,5"], "--region must be x, y, width, height"),
        (["--seeds=2"], "--seeds = 2 does not apply to the method edges"),
        (["--steps=5"], "--steps = 5 does not apply to the method edges"),
        ([NETWORK, "--init=edges+uniform"], "--seeds must be at least 2"),
        (["--preset=instant", "--seeds=2"], "edges"),
        ([NETWORK, "--no-deconvolve", "--patch=40"], "--patch = 0"),
    ],
)
def test_bad_settings_are_reported_with_their_flags(capsys, photo, flags, words):
    line = error_of(capsys, "deblur", photo, *flags)
    assert words in line and "`" not in line


@pytest.mark.parametrize(
    "flag, word",
    [
        ("--color=green", "luma"),
        ("--batch=0", "at least 1"),
        ("--seeds=0", "at least 1"),
        ("--kernel-size=big", "odd"),
        ("--region=1,2,3", "x,y,width,height"),
        ("--memory=lots", "6GiB"),
        ("--steps=many", "--steps"),
        ("--checkpoint-every=-1", "at least 0"),
        ("--checkpoint-every=inf", "at least 0"),
        ("--unknown", "--unknown"),
        ("--method", "--method"),
    ],
)
def test_arguments_that_cannot_be_parsed_point_to_the_help(capsys, photo, flag, word):
    line = error_of(capsys, "deblur", photo, flag)
    assert word in line and line.endswith("(see jbid deblur --help)\n")


@pytest.mark.parametrize(
    "args, words",
    [
        (["nothing"], "deblur, blur"),
        (["deblur"], "IMAGE"),
        (["deblur", "a.png", "--checkpoint-every", "-0.5"], "--checkpoint-every"),
        (["kernels", "--out=k.jpg"], ".png"),
        (["kernels", "--count=0"], "--count"),
        (["kernels", "--size=8"], "--size must be an odd number"),
        (["kernels", "--model=rain"], "--model must be one of camera"),
        (["blur", "a.png"], "--kernel"),
        (["pretrain", "nothing", "--config=c.toml", "--workdir=w"], "generator, initializer, operator, lines"),
        (["pretrain", "generator", "--config=absent.toml", "--workdir=w"], "absent.toml"),
        (["pretrain", "generator", "--config=c.toml", "--workdir=w", "--checkpoint-every=-1"], "--checkpoint-every"),
        (["pretrain", "generator", "--config=c.toml", "--workdir=w", "--measure-every=0"], "--measure-every"),
        (["transfer", "--target=a.png"], "--sharp and --blurry"),
        (["transfer", "--target=a.png", "--sharp=b.png"], "--sharp and --blurry"),
        (["transfer", "--sample"], "--target"),
        (["augment", "--target=folder"], "--pairs, --frames and --sample"),
        (["augment", "--target=folder", "--sample", "--crop=8"], "--crop at least 32"),
    ],
)
def test_bad_arguments_of_the_other_commands(capsys, tmp_path, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    assert words in error_of(capsys, *args)
    assert not list(tmp_path.iterdir())


def test_bad_config_files(capsys, photo, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text("kernel_sise = 9")
    line = error_of(capsys, "deblur", photo, "--config", config)
    assert "c.toml" in line and "'kernel_size'" in line
    config.write_text("steps = ")
    assert "TOML" in error_of(capsys, "deblur", photo, "--config", config)


def test_a_folder_that_cannot_be_written_to(capsys, photo, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write" in error_of(capsys, "deblur", photo, "--out", tmp_path / "file" / "out")


@pytest.mark.parametrize("sign", ["=", " "])
@pytest.mark.parametrize("old, new, value", OLD)
def test_old_spellings_work_with_a_hint(capsys, tmp_path, old, new, value, sign):
    # the missing file shows that the arguments were accepted
    network = [] if new != "--no-deconvolve" else ["--method=selfdeblur"]
    flags = f"{old}{sign}{value}".split(" ") if value else [old]
    assert main(["deblur", str(tmp_path / "missing.png"), *flags, *network]) == 2
    note, error = capsys.readouterr().err.splitlines()
    assert note.startswith(f"jbid: note: {old} is now {new};") and "no such file" in error


def test_every_renamed_flag_has_an_old_spelling():
    assert sorted(new for _, new, _ in OLD) == sorted(VALUES)


def test_an_old_spelling_has_the_effect_of_the_new_one(capsys, photo):
    assert main(["deblur", str(photo), "--no-finish"]) == 2
    note, error = capsys.readouterr().err.splitlines()
    assert "--no-finish is now --no-deconvolve" in note and "--deconvolve = False does not apply" in error


def test_old_words_in_values_and_files_work_with_a_hint(capsys, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('method = "selfdeblur"\nseeds = 2\n')
    args = ["deblur", str(tmp_path / "missing.png"), "--config", str(config), "--set=start=encoder"]
    assert main(args) == 2
    *notes, error = capsys.readouterr().err.splitlines()
    assert "no such file" in error and all(note.startswith("jbid: note: ") for note in notes)
    text = " ".join(notes)
    assert "'seeds' is now 'n_seeds'" in text and "'start' is now 'init'" in text and "is now 'learned'" in text


def test_values_and_file_names_are_no_old_spellings(capsys):
    assert commandline._modernize(["deblur", "--", "--start"], commandline.RENAMED) == ["deblur", "--", "--start"]
    assert commandline._modernize(["--out=--start"], commandline.RENAMED) == ["--out=--start"]
    assert not capsys.readouterr().err


@pytest.mark.parametrize("rest", [[], ["--linear"], ["--out", "x"]])
def test_distributed_without_a_value_means_detection(rest):
    tokens = commandline._modernize(["a.png", "--distributed", *rest], commandline.RENAMED)
    assert tokens == ["a.png", "--distributed=", *rest]
    address = ["--distributed", "localhost:1234,2,0"]
    assert commandline._modernize(address, commandline.RENAMED) == address


@pytest.mark.parametrize("address", ["host", "host:1", "host:1,2", "host:1,2,2", "host:1,2,-1", "host:1,two,0"])
def test_bad_addresses_of_a_distributed_run(capsys, photo, address):
    assert "--distributed must be HOST:PORT,N,I" in error_of(capsys, "deblur", photo, f"--distributed={address}")


def small_app(command):
    """An application with one command."""
    small = create_app("jbid", "A test.")
    small.command(command, name="work")
    return small


@pytest.mark.parametrize(
    "error, code, words",
    [
        (ValueError("`n_seeds` must be\nsmall"), 2, "--seeds must be small"),
        (OSError("disk full"), 2, "disk full"),
        (KeyboardInterrupt(), 130, None),
    ],
)
def test_exit_codes(capsys, error, code, words):
    def work(seeds: int = 1) -> int:
        raise error

    assert run(small_app(work), ["work"]) == code
    assert capsys.readouterr().err == (f"jbid: error: {words}\n" if words else "")


def test_a_defect_of_the_program_shows_its_traceback():
    def work() -> int:
        raise RuntimeError("defect")

    with pytest.raises(RuntimeError, match="defect"):
        run(small_app(work), ["work"])


def test_other_warnings_are_not_changed():
    def work() -> int:
        warnings.warn("from another library", FutureWarning, stacklevel=1)
        return 0

    with pytest.warns(FutureWarning, match="another library"):
        assert run(small_app(work), ["work"]) == 0


def test_errors_have_the_flags_of_the_running_command(capsys):
    def work(*, kernel_size: int = 1, distributed: str = "") -> int:
        raise ValueError("`kernel_size` and `channels` = 3 and `distributed`")

    assert run(small_app(work), ["work"]) == 2
    assert capsys.readouterr().err == "jbid: error: --kernel-size and --set channels=3 and --distributed\n"


def test_commands_are_complete():
    assert set(COMMANDS) == {name for name in app if not name.startswith("-")}


def test_remaining_time_of_tiles_leaves_out_the_first(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    rates = []
    with tile_bar("photo", Interrupt()) as on_tile:
        (bar,) = tqdm._instances
        for done in range(1, 6):
            # the first one compiles programs
            now[0] += 20 if done == 1 else 4
            on_tile(done, 10)
            rates.append(bar.format_dict["rate"])
    assert rates[0] is None and rates[1:] == pytest.approx([0.25] * 4)
