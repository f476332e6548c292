"""`python -m jbid`: arguments, files, progress. What is computed is in `jbid.deblur`."""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

import jbid
from jbid.settings import Settings, parse_assignment, read_config, resolve, start_words

if TYPE_CHECKING:
    from jbid.auto import Candidate
    from jbid.deblur import Deblurred, Task

INTERRUPTED = 130


def _flag_values(args: argparse.Namespace) -> dict[str, Any]:
    names = [name for name in Settings._fields if name != "options"]
    return {name: value for name in names if (value := getattr(args, name, None)) is not None}


def settings_from(
    args: argparse.Namespace, extra: Sequence[tuple[str, dict]] = (), *, known_kernel: bool = False
) -> Settings:
    """Preset, then `extra`, then --config, then --set, then the other flags."""
    sources = list(extra)
    if args.config:
        sources.append((str(args.config), read_config(args.config)))
    sources += [("--set", dict([parse_assignment(text)])) for text in args.set]
    return resolve([*sources, ("command line", _flag_values(args))], known_kernel=known_kernel)


METHOD_HELP = "selfdeblur (default), gkpile, explore (learned blur), or robust, for noise and kernels of unknown size"


def add_method_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that `deblur` and the benchmarks share."""
    add = parser.add_argument
    add("--method", help=METHOD_HELP)
    add("--preset", help="instant: seconds, no network; quick (default): about a minute; paper: the published settings")
    add(
        "--start",
        metavar="START",
        help="random, uniform, edges, encoder or the file of a kernel; edges+uniform: in turn",
    )
    add("--patch", type=int, metavar="N", help="estimate from the most informative N x N pixels; 0: from all")
    add("--seeds", type=int, metavar="S", help="run S initialisations at once, keep the one that looks best")
    add("--seed", type=int, metavar="K", help="first seed (default 0)")
    add("--steps", type=int, metavar="N", help="optimisation steps (default: the preset's)")
    add(
        "--finish",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="deconvolve with the kernel at the end (default: unless noise is very high and the method stops early)",
    )
    add("--config", type=Path, metavar="FILE.toml", help="options from a file; see configs/")
    add("--checkpoint-every", type=float, default=30, metavar="SECONDS", help="how often to save for --resume")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="one option of the method, e.g. channels=64")
    add(
        "--memory", type=memory, metavar="SIZE", help="that a launch may take on each device, e.g. 6GiB (default: free)"
    )
    add(
        "--distributed",
        nargs="?",
        const="",
        metavar="HOST:PORT,N,I",
        help="this is process I of N, whose first listens at HOST:PORT; without a value as a TPU pod or Slurm says",
    )


def memory(text: str) -> int:
    """The argument of --memory, in bytes."""
    from jbid.scale import parse_memory

    try:
        return parse_memory(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def join_processes(given: str | None) -> None:
    """Connect with the other processes of a run over several hosts, as --distributed says. Raises ValueError."""
    if given is None:
        return
    import jax

    # else SIGTERM would be taken for a notice and not end the process
    jax.config.update("jax_enable_preemption_service", False)
    parts: tuple[Any, ...] = ()
    if given:
        address, _, numbers = given.partition(",")
        try:
            count, index = (int(part) for part in numbers.split(","))
        except ValueError:
            count = index = -1
        if ":" not in address or not 0 <= index < count:
            raise ValueError(f"got --distributed {given}, expected HOST:PORT,N,I with I from 0 to N - 1")
        parts = address, count, index
    try:
        jax.distributed.initialize(*parts)
    except (RuntimeError, ValueError) as error:
        hint = "" if given else "; it is neither a TPU pod nor Slurm, give HOST:PORT,N,I"
        raise ValueError(f"--distributed {given}: {str(error).splitlines()[0]}{hint}") from None


def my_share(work: Sequence[Any]) -> Sequence[Any]:
    """The consecutive part of the work that is this process's, all of it where there is but one."""
    import jax

    count, index = jax.process_count(), jax.process_index()
    return work[len(work) * index // count : len(work) * (index + 1) // count]


def kernel_size(text: str) -> int | str:
    """The argument of --kernel-size."""
    if text not in ("auto", "half") and not text.lstrip("-").isdecimal():
        raise argparse.ArgumentTypeError(f"got {text}, expected an odd number of pixels, auto or half")
    return text if text in ("auto", "half") else int(text)


def region(text: str) -> tuple[int, ...]:
    """The argument of --region."""
    parts = tuple(int(part) for part in text.split(","))
    if len(parts) != 4:
        raise argparse.ArgumentTypeError(f"{text!r}: expected x,y,width,height")
    return parts


def _commit() -> str | None:
    """The commit of the source tree that runs, with a plus where it was changed; None outside of one."""
    try:
        git = ["git", "-C", str(Path(__file__).parent)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = [*git, "status", "--porcelain", "--untracked-files=no"]
        return head + "+" * bool(subprocess.run(status, capture_output=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError):
        return None


def positive(text: str) -> int:
    """An argument that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected a number of at least 1")
    return int(text)


def json_file(text: str) -> Path:
    """The argument of an --out that names a report: what else is written gets its name without the suffix."""
    if not text.endswith(".json"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a name that ends in .json")
    return Path(text)


class Parser(argparse.ArgumentParser):
    """Argument parsing with errors of one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"jbid: error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    top = Parser("python -m jbid", description=jbid.__doc__)
    top.add_argument("--version", action="version", version=jbid.__version__)
    commands = top.add_subparsers(dest="command", required=True)

    command = commands.add_parser("deblur", help="restore blurred pictures", description=_deblur.__doc__)
    add = command.add_argument
    add("images", nargs="+", metavar="IMAGE", help="files, folders or patterns such as 'photos/*.jpg'")
    add_method_arguments(command)
    add(
        "--kernel-size",
        type=kernel_size,
        metavar="N",
        help="odd, in pixels; auto (default): found; half: half the picture",
    )
    add("--region", type=region, metavar="X,Y,W,H", help="estimate from this part (pixels)")
    add("--linear", action="store_true", default=None, help="restore in linear light, for pictures in sRGB")
    add("--colour", choices=("luma", "rgb"), help="estimate from luma (default) or from all three channels")
    add("--kernel", type=Path, metavar="FILE", help="a known kernel: restore the image only")
    add("--out", type=Path, default=Path("deblurred"), metavar="DIR", help="default: ./deblurred")
    add("--batch", type=positive, metavar="B", help="pictures of one size per launch (default: 1 on CPU, else 8)")
    add("--resume", action="store_true", help="go on where an earlier run with the same arguments stopped")
    command.set_defaults(run=_deblur)

    command = commands.add_parser("blur", help="the forward model", description=_blur.__doc__)
    command.add_argument("images", nargs="+", type=Path, metavar="SHARP")
    command.add_argument("--kernel", type=Path, required=True, metavar="FILE")
    noise = "gaussian:SIGMA, impulse:PROBABILITY, shot:RATE (levels in [0, 1], or low or high) or saturation"
    command.add_argument("--noise", metavar="MODEL:LEVEL", help=noise)
    command.add_argument("--seed", type=int, default=0, metavar="K", help="of the noise (default 0)")
    command.add_argument("--out", type=Path, default=Path("blurred"), metavar="DIR", help="default: ./blurred")
    command.set_defaults(run=_blur)

    command = commands.add_parser("kernels", help="simulated blur kernels", description=_kernels.__doc__)
    command.add_argument("--model", default="camera", help="camera (default), trajectory or gaussian_process")
    command.add_argument("--size", type=int, default=31, metavar="N", help="odd, in pixels (default 31)")
    command.add_argument("--count", type=positive, default=64, metavar="N", help="default 64")
    command.add_argument("--seed", type=int, default=0, metavar="K", help="default 0")
    command.add_argument(
        "--out", type=Path, default=Path("kernels.png"), metavar="FILE.png", help="default: kernels.png"
    )
    command.set_defaults(run=_kernels)

    command = commands.add_parser("pretrain", help="train a method's networks", description=_pretrain.__doc__)
    add = command.add_argument
    add("network", choices=("generator", "initializer", "operator", "lines"), help="two of gkpile, two of explore")
    add("--config", type=Path, required=True, metavar="FILE.toml", help="settings; see configs/pretrain/")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, e.g. steps=100")
    add("--workdir", type=Path, required=True, metavar="DIR", help="for metrics, samples, checkpoint and weights")
    add("--resume", action="store_true", help="go on where an earlier run stopped or was killed")
    add("--checkpoint-every", type=float, default=60, metavar="SECONDS", help="how often to save for --resume")
    add("--measure-every", type=int, default=500, metavar="N", help="steps between figures and samples (default 500)")
    add("--export", type=Path, metavar="DIR", help="add the weights to this folder too")
    command.set_defaults(run=_pretrain)

    command = commands.add_parser("transfer", help="a blur put on other pictures", description=_transfer.__doc__)
    add = command.add_argument
    add("--sharp", type=Path, metavar="FILE", help="a sharp picture, and")
    add("--blurry", type=Path, metavar="FILE", help="the same one with the blur that is to be transferred")
    add("--sample", action="store_true", help="draw a blur for each target in place of transferring one")
    add("--target", nargs="+", required=True, metavar="IMAGE", help="files, folders or patterns to be blurred")
    add("--weights", type=Path, metavar="DIR", help="a folder of trained operators (default: the shipped ones)")
    add("--seed", type=int, default=0, metavar="K", help="of --sample (default 0)")
    add("--out", type=Path, default=Path("transferred"), metavar="DIR", help="default: ./transferred")
    command.set_defaults(run=_transfer)

    command = commands.add_parser("augment", help="training pairs made by transfer", description=_augment.__doc__)
    add = command.add_argument
    add("--pairs", metavar="DIR", help="pairs to take blurs from: sharp/NAME and blur/NAME, or X_sharp and X_blur")
    add("--frames", metavar="DIR", help="or clips of sharp frames, 5 to 15 of which are averaged")
    add("--sample", action="store_true", help="or draw the blurs")
    add("--target", required=True, metavar="DIR", help="folder (or TFDS data set) of sharp pictures to be blurred")
    add("--count", type=int, default=1000, metavar="N", help="pairs in all (default 1000)")
    add("--crop", type=int, default=256, metavar="N", help="their side in pixels (default 256)")
    add("--weights", type=Path, metavar="DIR", help="a folder of trained operators (default: the shipped ones)")
    add("--seed", type=int, default=0, metavar="K", help="default 0")
    add("--out", type=Path, default=Path("augmented"), metavar="DIR", help="default: ./augmented")
    command.set_defaults(run=_augment)

    command = commands.add_parser("demo", help="blur and restore a sample photo", description=_demo.__doc__)
    command.add_argument("--method", help=METHOD_HELP)
    command.add_argument("--preset", default="instant", help="instant (default) or quick")
    command.add_argument("--noise", default="gaussian:0.005", metavar="MODEL:LEVEL", help="as of blur")
    command.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="default: ./demo")
    command.set_defaults(run=_demo)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0, 2 for bad input (one line says what), 130 where Ctrl-C stopped it."""
    args = parser().parse_args(argv)
    return started(args)


def wait_for_others(what: str, seconds: int = 30 * 86400) -> None:
    """Return when all processes of the run have come as far, however long that takes; at once where there is one.

    Raises jax.errors.JaxRuntimeError where they have not after so many seconds.
    """
    import jax

    if jax.process_count() == 1:
        return
    from orbax.checkpoint.multihost import sync_global_processes

    sys.stdout.flush()
    # Ctrl-C is the system's matter meanwhile, as no Python runs; all that was made is kept
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        # with their numbers given, by the coordinator and not by a collective, which gives up after half a minute
        sync_global_processes(what, timeout=seconds, processes=set(range(jax.process_count())))
    finally:
        signal.signal(signal.SIGINT, before)


def _left(code: int) -> int:
    """The exit code of a process of several that ends before its time; it may not return.

    Those that end for the same reason, as for a wrong option, end together and in order. Else JAX would wait for
    the others at the end, for minutes, and then abort.
    """
    import jax

    try:
        wait_for_others("leaving", seconds=5)
    except jax.errors.JaxRuntimeError:
        print("jbid: ends without the other processes, whose run ends with this one's", file=sys.stderr)
        sys.stderr.flush()
        os._exit(code)
    return code


def started(args: argparse.Namespace) -> int:
    """The exit code of the command that the arguments chose, in one process or as one of several."""
    early = False

    def command():
        nonlocal early
        given = getattr(args, "distributed", None)
        join_processes(given)
        early = given is not None
        code = args.run(args)
        early = False
        return code

    code = guarded(command)
    return _left(code) if early else code


def keep_compilations() -> None:
    """Keep compiled programs in the user's cache folder: the next start with the same sizes compiles nothing."""
    import jax
    from platformdirs import user_cache_path

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        # programs are made for the instructions of one processor, and home folders are shared between machines
        processor = hashlib.sha256((_cpuinfo("model name") + _cpuinfo("flags")).encode()).hexdigest()[:8]
        jax.config.update("jax_compilation_cache_dir", str(user_cache_path("jbid") / processor))


def _cpuinfo(field: str) -> str:
    """A line of Linux's /proc/cpuinfo; elsewhere what Python knows of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(field))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def guarded(command) -> int:
    """`command()`, with errors that a user can mend told in one line."""
    keep_compilations()
    try:
        return command() or 0
    except (ValueError, OSError) as error:
        complain(str(error))
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def out_dir(path: Path) -> Path:
    """The folder, made if need be. Raises OSError in words where it cannot be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(f"{path}: cannot write there ({error.strerror}); choose another folder") from None
    return path


@contextmanager
def interruptible() -> Iterator[list[bool]]:
    """A list that becomes non-empty at Ctrl-C; the second Ctrl-C stops at once."""
    asked: list[bool] = []

    def on_signal(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(True)
        print("\njbid: stopping and saving; once more to stop at once", file=sys.stderr)

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def progress(description: str, steps: int, asked: list[bool]) -> Iterator:
    """A progress bar as an `on_chunk` for `run`."""
    from tqdm import tqdm

    from jbid.run import CHUNK

    with tqdm(total=steps, desc=description, unit="step", dynamic_ncols=True) as bar:

        def on_chunk(now):
            if bar.n == 0 and now.step > CHUNK:
                # resumed: what an earlier run did must not count as speed
                bar.initial = bar.n = now.step - CHUNK
            bar.set_postfix_str(f"loss {np.nanmin(now.loss):.5f}", refresh=False)
            bar.update(now.step - bar.n)
            return bool(asked)

        yield on_chunk


def told_of_fewer(name: str) -> Callable[[int, int], None]:
    """An `on_fewer` for `run_in_parts`: a line above the progress bars."""
    from tqdm import tqdm

    def on_fewer(before, now):
        tqdm.write(f"{name}: out of memory with {before} images and seeds at once, goes on with {now}")

    return on_fewer


def versions_and_device() -> dict[str, Any]:
    """What a result should be read with: versions, backend, device name."""
    import flax
    import jax
    import optax

    device = jax.local_devices()[0]
    return {
        "versions": {
            "jbid": jbid.__version__,
            "jax": jax.__version__,
            "flax": flax.__version__,
            "optax": optax.__version__,
        },
        "device": device_name(device),
        "devices": jax.device_count(),
        "processes": jax.process_count(),
    }


def device_name(device) -> str:
    """The accelerator's name, or on CPU the processor's and how many cores this process may use."""
    if device.platform != "cpu":
        return device.device_kind
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_cpuinfo('model name')}, {cores} cores"


def write_json(path: Path, content: dict[str, Any]) -> None:
    from jbid.images import replacing

    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file of ours; empty where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def resumed(path: Path, settings: dict[str, Any], resume: bool) -> dict[str, Any]:
    """What a report holds of an earlier run with `settings`, to go on with; empty without `resume` or where none is.

    Raises ValueError for a report with other settings.
    """
    told = read_json(path) if resume else {}
    # as they are read back: tuples are lists there
    if told and told.get("settings") != json.loads(json.dumps(settings)):
        raise ValueError(f"{path}: made with other settings or weights; choose another --out or drop --resume")
    return told


# how the names of the files of weights begin that a method or a start reads
READS = {"gkpile": ("generator",), "explore": ("operator", "lines"), "encoder": ("corrector",)}


def identity(settings: Settings, *arrays: np.ndarray | None) -> str:
    """A name for a run by all that decides its result, so that only the same run is ever resumed."""
    from jbid.weights import SHIPPED, checksums, folder_of

    digest = hashlib.sha256(json.dumps(settings._asdict(), sort_keys=True, default=list).encode())
    read = tuple(part for word in (settings.method, *start_words(settings.start)) for part in READS.get(word, ()))
    # the shipped corrector serves folders that have none
    for folder in (folder_of(settings.options.get("weights", "")), SHIPPED) if read else ():
        known = {name: told for name, told in checksums(folder).items() if name.startswith(read)}
        digest.update(json.dumps(known).encode())
    for name in ("generator", "vgg"):
        if settings.options.get(name):
            digest.update(hashlib.sha256(Path(settings.options[name]).read_bytes()).digest())
    for array in arrays:
        digest.update(b"-" if array is None else repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def launch(
    tasks: Sequence[Task],
    settings: Settings,
    *,
    name: str,
    folder: Path,
    resume: bool,
    seconds: float,
    asked: list[bool],
    memory: int | None = None,
) -> tuple[list[Deblurred], bool]:
    """`jbid.deblur.solve` with progress bars, checkpointed in `folder` every `seconds`.

    Returns the answers and whether they are complete.
    """
    from tqdm import tqdm

    from jbid.checkpoint import Checkpoint
    from jbid.deblur import solve

    def on_tile(done, total):
        if done == 1:
            tiles.reset(total)
        tiles.update()
        if asked:
            raise KeyboardInterrupt

    if folder.exists() and not resume:
        shutil.rmtree(folder)
    checkpoint = Checkpoint(folder, seconds=seconds)
    try:
        # only pictures that need more than one tile show the second bar
        with tqdm(desc=f"{name} tiles", unit="tile", dynamic_ncols=True, delay=1, leave=False) as tiles:
            if not settings.steps:
                return solve(tasks, settings, on_tile=on_tile), True
            with progress(name, settings.steps, asked) as on_chunk:
                told = {"on_chunk": on_chunk, "on_fewer": told_of_fewer(name), "on_tile": on_tile}
                answers = solve(tasks, settings, memory=memory, checkpoint=checkpoint, **told)
    finally:
        checkpoint.close()
    return answers, answers[0].complete


def _lossless(path: Path) -> str:
    """The suffix of what is made of a picture: TIFF stays TIFF, all else becomes PNG."""
    return ".tif" if path.suffix.lower() in (".tif", ".tiff") else ".png"


def _pictures(arguments: Sequence[str], out: Path, *ours: str) -> tuple[list[Path], list[str]]:
    """The files that arguments stand for, in order and each once; and what was wrong with some.

    Stems of what is written to `out` end in one of `ours`; in that folder such files are not taken.
    """
    from jbid.images import pictures_in

    files: dict[Path, None] = {}
    wrong = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            found = pictures_in(path)
            if path.resolve() == out.resolve():
                found = [p for p in found if not p.stem.endswith(ours)]
        elif path.exists() or not glob.has_magic(argument):
            found = [path]
        else:
            found = [Path(p) for p in sorted(glob.glob(argument, recursive=True)) if Path(p).is_file()]
        if not found:
            wrong.append(f"{argument}: no pictures there")
        files |= dict.fromkeys(found)
    stems: dict[str, Path] = {}
    for path in list(files):
        if path.stem in stems:
            del files[path]
            wrong.append(f"{path} and {stems[path.stem]} would both be written as {path.stem}{ours[0]}; rename one")
        stems.setdefault(path.stem, path)
    return list(files), wrong


def _deblur(args: argparse.Namespace) -> int:
    """Write <stem>_sharp, <stem>_kernel and <stem>.json for each picture, knowing neither image nor kernel.

    With several seeds also <stem>_spread, the standard deviation over them. A file that cannot be used is named, and
    the others are restored all the same.
    """
    from jbid import images as im

    kernel = None
    extra: list[tuple[str, dict]] = []
    if args.kernel:
        kernel = im.read_kernel(args.kernel)
        side = max(kernel.shape) | 1
        rows, columns = side - kernel.shape[0], side - kernel.shape[1]
        kernel = np.pad(kernel, ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)))
        if args.kernel_size not in (None, "auto", side):
            raise ValueError(
                f"--kernel-size {args.kernel_size} contradicts {args.kernel}, whose kernel has size {side}"
            )
        extra = [("--kernel", {"kernel_size": side})]
        args.kernel_size = None
    settings = settings_from(args, extra, known_kernel=kernel is not None)

    # what can be wrong with the input and does not need the pictures themselves is found before the first step
    from jbid.deblur import check_finish, check_size, prepare, report, start_file

    begins = start_file(settings.start)
    given = im.read_kernel(begins) if begins else None
    files, wrong = _pictures(args.images, args.out, "_sharp", "_kernel", "_spread")
    sizes: dict[Path, tuple[int, int]] = {}
    for path in files:
        try:
            width, height = im.size(path)
            check_size((height, width), settings.kernel_size)
            check_finish(settings, (height, width))
            sizes[path] = (height, width)
        except (ValueError, OSError) as error:
            wrong.append(str(error) if str(path) in str(error) else f"{path}: {error}")
    if not sizes:
        raise ValueError("; ".join(wrong))
    out = out_dir(args.out)
    for line in wrong:
        complain(line)

    import jax

    batch = args.batch or (1 if jax.default_backend() == "cpu" else 8) * jax.local_device_count()
    by_shape: dict[tuple, list[Path]] = {}
    for path, shape in my_share(list(sizes.items())):
        by_shape.setdefault(shape, []).append(path)
    groups = [paths[i : i + batch] for paths in by_shape.values() for i in range(0, len(paths), batch)]

    def write(path, photo, task, answer, complete, name):
        sharp = out / f"{path.stem}_sharp{_lossless(path)}"
        im.write_photo(sharp, photo._replace(image=answer.image))
        im.write_kernel(out / f"{path.stem}_kernel.png", answer.kernel)
        told = report(answer, task)
        if answer.spread is not None:
            # white is a tenth of the range
            im.write(out / f"{path.stem}_spread.png", np.clip(answer.spread * 10, 0, 1)[..., None])
        content = {"input": path.name, "settings": settings._asdict()}
        content |= {"known_kernel": args.kernel.name if args.kernel else None, **versions_and_device(), **told}
        content |= {"notes": list(photo.notes), "complete": complete, "identity": name}
        write_json(out / f"{path.stem}.json", content)
        for note in photo.notes:
            print(f"{path.stem}: {note}")
        if settings.seeds > 1:
            print(candidate_table(answer.candidates))
        for warning in answer.warnings:
            print(f"jbid: warning: {path.name}: {warning}", file=sys.stderr)
        size = "kernel {}x{}".format(*reversed(task.kernel_shape))
        print(f"{path.stem}: {size}, {told['steps_done']} steps, {answer.seconds:.0f} s, {answer.chosen} -> {sharp}")

    with interruptible() as asked:
        for group in groups:
            ready = {}
            for path in group:
                try:
                    photo = im.read_photo(path)
                    name = identity(settings, photo.image, kernel, given)
                    before = read_json(out / f"{path.stem}.json")
                    if args.resume and before.get("identity") == name and before.get("complete"):
                        print(f"{path.stem}: done before, skipped")
                        continue
                    print(f"{path.stem}: making ready", flush=True)
                    task = prepare(photo.image, settings, kernel=kernel)
                except (ValueError, OSError, MemoryError) as error:
                    wrong.append(str(error))
                    complain(str(error) if str(path) in str(error) else f"{path}: {error}")
                    continue
                # the task holds the picture from here on
                ready[path] = (photo._replace(image=np.zeros((0, 0, 1), np.float32)), task, name)
                if asked:
                    print("stopped early; --resume with the same arguments goes on from here")
                    raise KeyboardInterrupt
            alike: dict[tuple, list[Path]] = {}
            for path, (_, task, _) in ready.items():
                alike.setdefault((task.room, task.observed.shape[2], task.kernel_shape), []).append(path)
            for paths in alike.values():
                names = "".join(ready[p][2] for p in paths)
                folder = out / ".jbid" / hashlib.sha256(names.encode()).hexdigest()[:16]
                try:
                    answers, complete = launch(
                        [ready[p][1] for p in paths],
                        settings,
                        name=paths[0].stem if len(paths) == 1 else f"{paths[0].stem} and {len(paths) - 1} more",
                        folder=folder,
                        resume=args.resume,
                        seconds=args.checkpoint_every,
                        asked=asked,
                        memory=args.memory,
                    )
                except ValueError as error:
                    # a size that this method's networks cannot make
                    for path in paths:
                        wrong.append(str(error))
                        complain(f"{path}: {error}")
                    continue
                for path, answer in zip(paths, answers):
                    photo, task, name = ready[path]
                    write(path, photo, task, answer, complete, name)
                if not complete:
                    print("stopped early; --resume with the same arguments goes on from here")
                    raise KeyboardInterrupt
                shutil.rmtree(folder, ignore_errors=True)
                if asked:
                    print("stopped early; --resume with the same arguments goes on from here")
                    raise KeyboardInterrupt
    # who leaves ends the run of the others, and what they go on from lies there too
    wait_for_others("pictures")
    if jax.process_index() == 0:
        shutil.rmtree(out / ".jbid", ignore_errors=True)
    return 2 if wrong else 0


def complain(text: str) -> None:
    """One line of error."""
    print(f"jbid: error: {' '.join(text.split())}", file=sys.stderr)


def candidate_table(candidates: Sequence[Candidate]) -> str:
    """What was chosen from, the chosen one first."""
    from tabulate import tabulate

    rows = [
        [c.name, c.failure or round(c.terms.score, 2), c.loss, c.terms.whiteness, c.terms.flatness] for c in candidates
    ]
    return tabulate(rows, ["answer", "score (lower is better)", "loss", "whiteness", "flatness"], floatfmt=".5g")


def _blur(args: argparse.Namespace) -> int:
    """Write <stem>_blurred.png: y = k * x + n where the kernel fits, so smaller than x by its size less one."""
    import jax
    import jax.numpy as jnp

    from jbid import images as im
    from jbid.blur import blur
    from jbid.noise import MODELS, parse_noise

    noise = parse_noise(args.noise) if args.noise else None
    kernel = im.read_kernel(args.kernel)
    pictures = {path: im.read(path) for path in args.images}
    for path, picture in pictures.items():
        if kernel.shape[0] > picture.shape[0] or kernel.shape[1] > picture.shape[1]:
            raise ValueError(f"{args.kernel}: the kernel {kernel.shape} is larger than {path}, {picture.shape[:2]}")
        if noise and noise[0] == "saturation" and picture.shape[-1] != 3:
            raise ValueError(f"{path}: --noise saturation needs a picture in colour")
    out = out_dir(args.out)
    for i, (path, picture) in enumerate(pictures.items()):
        blurred = blur(jnp.asarray(picture), jnp.asarray(kernel))
        if noise:
            key = jax.random.fold_in(jax.random.key(args.seed), i)
            blurred = MODELS[noise[0]](key, blurred, noise[1])
        im.write(out / f"{path.stem}_blurred.png", np.asarray(blurred))
        print(f"-> {out / f'{path.stem}_blurred.png'}")
    return 0


def _kernels(args: argparse.Namespace) -> int:
    """Draw a grid of simulated motion-blur kernels, each scaled by its maximum."""
    import jax

    from jbid import images as im
    from jbid import motion
    from jbid.pretrain.loop import grid

    if args.out.suffix.lower() != ".png":
        raise ValueError(f"got --out {args.out}, expected a name that ends in .png")
    kernels = np.asarray(motion.kernels(jax.random.key(args.seed), args.size, args.count, args.model))
    out_dir(args.out.parent)
    im.write(args.out, grid(kernels))
    print(f"{args.count} kernels of {args.size}x{args.size} pixels, {args.model} -> {args.out}")
    return 0


def _pretrain(args: argparse.Namespace) -> int:
    """Train a network on simulated blur: kernels and blurred pictures are made on the fly, nothing is stored."""
    from importlib import import_module

    from jbid.pretrain import loop
    from jbid.settings import record

    kind = import_module(f"jbid.pretrain.{args.network}")
    values = read_config(args.config)
    changed = dict(parse_assignment(text) for text in args.set)
    for source, part in ((str(args.config), values), ("--set", changed)):
        record(kind.Settings, part, source)
    settings = kind.Settings(**(values | changed))
    if args.measure_every < 1:
        raise ValueError(f"got --measure-every {args.measure_every}, expected at least 1")
    folder = out_dir(args.workdir)
    training = kind.training(settings, folder)

    # what ships says nothing of the folders of whoever trained it
    def named(value):
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    config = f"{args.config.parent.name}/{args.config.name}" if args.config.is_absolute() else args.config
    options = "".join(f" --set {name}={named(value)}" for name, value in changed.items())
    about = {
        "settings": {name: named(value) for name, value in settings._asdict().items()},
        "command": f"python -m jbid pretrain {args.network} --config {config}{options}",
        "commit": _commit(),
        **versions_and_device(),
    }
    with interruptible() as asked, progress(training.name, settings.steps, asked) as on_chunk:
        complete = loop.train(
            training,
            settings.steps,
            folder,
            seed=settings.seed,
            resume=args.resume,
            seconds=args.checkpoint_every,
            every=args.measure_every,
            settings=settings._asdict(),
            about=about,
            on_chunk=on_chunk,
        )
    if not complete:
        print("stopped early; --resume with the same arguments goes on from here")
        return INTERRUPTED
    print(f"{training.name}: {settings.steps} steps -> {folder / 'weights'}")
    if args.export:
        loop.export(folder / "weights", out_dir(args.export), training.name)
        print(f"added to {args.export}")
    return 0


def _operator(args: argparse.Namespace):
    """The operator that the arguments ask for: one with a VAE where blurs are to be drawn."""
    from jbid.operators import operator
    from jbid.weights import SHIPPED

    return operator("operator_vae" if args.sample else "operator", args.weights or SHIPPED)


def _transfer(args: argparse.Namespace) -> int:
    """Write <stem>_blurred for each target: the target with the blur between --sharp and --blurry, F(T, G(X, Y)).

    Or, with --sample, with a blur that is drawn. A target that cannot be used is named, and the others are made.
    """
    import jax
    from tqdm import tqdm

    from jbid import images as im
    from jbid import operators
    from jbid.metrics import psnr
    from jbid.transfer import code_of, with_code

    if args.sample == bool(args.sharp or args.blurry) or bool(args.sharp) != bool(args.blurry):
        raise ValueError("expected both --sharp and --blurry, or --sample without them")
    of = _operator(args)
    code = None
    if args.sharp:
        sharp, blurred = im.read(args.sharp), im.read(args.blurry)
        code = code_of(of, sharp, blurred)
        again = with_code(of, sharp, code)
        told = psnr(again, blurred), psnr(sharp, blurred)
        print("the pair itself, blurred again: {:.2f} dB (sharp against blurred: {:.2f} dB)".format(*told))
    files, wrong = _pictures(args.target, args.out, "_blurred")
    out, done = out_dir(args.out), 0
    for i, path in enumerate(tqdm(files, unit="picture", dynamic_ncols=True)):
        try:
            photo = im.read_photo(path)
        except (ValueError, OSError) as error:
            wrong.append(str(error))
            continue
        key = jax.random.fold_in(jax.random.key(args.seed), i)
        put_on = np.asarray(operators.drawn(of, key, photo.image.shape)) if code is None else code
        made = with_code(of, photo.image, put_on)
        im.write_photo(out / f"{path.stem}_blurred{_lossless(path)}", photo._replace(image=made))
        done += 1
    for line in wrong:
        complain(line)
    print(f"{done} pictures -> {out}")
    return 2 if wrong else 0


def _augment(args: argparse.Namespace) -> int:
    """Write sharp/000000.png .. and blur/000000.png ..: crops of --target with blurs of --pairs, or drawn ones.

    pairs.csv tells how well the operator gives each source's own blur. Run again, it goes on where it stopped.
    """
    from tqdm import tqdm

    from jbid.data.crops import crops
    from jbid.data.pairs import pairs
    from jbid.transfer import write_pairs
    from jbid.weights import SHIPPED, checksums

    if args.count < 1 or args.crop < 32:
        raise ValueError(f"got --count {args.count} and --crop {args.crop}, expected at least 1 and 32")
    if [bool(args.pairs), bool(args.frames), args.sample].count(True) != 1:
        raise ValueError("expected one of --pairs, --frames and --sample")
    of = _operator(args)
    sources = None
    if not args.sample:
        sources = pairs(args.crop, args.seed, folder=args.pairs or "", frames=args.frames or "", held_out=None)
    targets = crops(args.target, args.crop, args.seed + 1, held_out=None, colour=True)
    out = out_dir(args.out)
    what = {name: str(value) for name, value in sorted(vars(args).items()) if name not in ("count", "out", "run")}
    what["weights"] = json.dumps(checksums(args.weights or SHIPPED))
    mark = {"identity": hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]}
    known = read_json(out / "augment.json")
    if known and known != mark:
        raise ValueError(f"{out}: holds pairs made with other arguments; choose another --out")
    write_json(out / "augment.json", mark)
    with interruptible() as asked, tqdm(total=args.count, unit="pair", dynamic_ncols=True) as bar:
        for done in write_pairs(of, targets, args.count, out, sources=sources, seed=args.seed):
            bar.update(done - bar.n)
            if asked:
                print("stopped early; the same command goes on from here")
                return INTERRUPTED
    print(f"{args.count} pairs -> {out}")
    return 0


def _demo(args: argparse.Namespace) -> int:
    """Blur a photo that ships with scikit-image, restore it blindly, print the gain and draw a panel."""
    from jbid.demo import demo

    settings = resolve([("command line", _flag_values(args))])
    return demo(out_dir(args.out), settings, args.noise)
