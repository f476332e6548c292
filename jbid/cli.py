"""`python -m jbid`: arguments, files, progress. What is computed is in `jbid.deblur`."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

import jbid
from jbid.settings import Settings, parse_assignment, read_config, resolve

if TYPE_CHECKING:
    from jbid.deblur import Deblurred

INTERRUPTED = 130


def _flag_values(args: argparse.Namespace) -> dict[str, Any]:
    names = ("method", "preset", "kernel_size", "seeds", "seed", "steps", "colour", "finish")
    return {name: value for name in names if (value := getattr(args, name, None)) is not None}


def settings_from(args: argparse.Namespace, extra: Sequence[tuple[str, dict]] = ()) -> Settings:
    """Preset, then `extra`, then --config, then --set, then the other flags."""
    sources = list(extra)
    if args.config:
        sources.append((str(args.config), read_config(args.config)))
    sources += [("--set", dict([parse_assignment(text)])) for text in args.set]
    return resolve([*sources, ("command line", _flag_values(args))])


def add_method_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that `deblur` and the benchmarks share."""
    add = parser.add_argument
    add("--method", help="default: selfdeblur")
    add("--preset", help="quick (default): tuned for two CPU cores, about a minute; paper: the published settings")
    add("--seeds", type=int, metavar="S", help="run S initialisations at once, keep the one with the smallest loss")
    add("--seed", type=int, metavar="K", help="first seed (default 0)")
    add("--steps", type=int, metavar="N", help="optimisation steps (default: the preset's)")
    add("--finish", action=argparse.BooleanOptionalAction, default=None, help="deconvolve with the kernel at the end")
    add("--config", type=Path, metavar="FILE.toml", help="options from a file; see configs/")
    add("--checkpoint-every", type=float, default=30, metavar="SECONDS", help="how often to save for --resume")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="one option of the method, e.g. channels=64")


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
    add("images", nargs="+", type=Path, metavar="IMAGE")
    add_method_arguments(command)
    add("--kernel-size", type=int, metavar="N", help="odd, in pixels, a little over the blur's extent (default 31)")
    add("--colour", choices=("luma", "rgb"), help="estimate from luma (default) or from all three channels")
    add("--kernel", type=Path, metavar="FILE", help="a known kernel: restore the image only")
    add("--out", type=Path, default=Path("deblurred"), metavar="DIR", help="default: ./deblurred")
    add("--batch", type=int, metavar="B", help="pictures of one size per launch (default: 1 on CPU, else 8)")
    add("--resume", action="store_true", help="go on where an earlier run with the same arguments stopped")
    command.set_defaults(run=_deblur)

    command = commands.add_parser("blur", help="the forward model", description=_blur.__doc__)
    command.add_argument("images", nargs="+", type=Path, metavar="SHARP")
    command.add_argument("--kernel", type=Path, required=True, metavar="FILE")
    command.add_argument("--out", type=Path, default=Path("blurred"), metavar="DIR", help="default: ./blurred")
    command.set_defaults(run=_blur)

    command = commands.add_parser("demo", help="blur and restore a sample photo", description=_demo.__doc__)
    command.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="default: ./demo")
    command.set_defaults(run=_demo)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0, 2 for bad input (one line says what), 130 where Ctrl-C stopped it."""
    args = parser().parse_args(argv)
    return guarded(lambda: args.run(args))


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
        print(f"jbid: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def out_dir(path: Path) -> Path:
    """The folder, made if need be. Raises OSError in words where it cannot be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(f"{path}: cannot write there ({error.strerror}); choose another folder with --out") from None
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


def versions_and_device() -> dict[str, Any]:
    """What a result should be read with: versions, backend, device name."""
    import flax
    import jax
    import optax

    device = jax.devices()[0]
    return {
        "versions": {
            "jbid": jbid.__version__,
            "jax": jax.__version__,
            "flax": flax.__version__,
            "optax": optax.__version__,
        },
        "device": device_name(device),
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


def identity(settings: Settings, *arrays: np.ndarray | None) -> str:
    """A name for a run by all that decides its result, so that only the same run is ever resumed."""
    digest = hashlib.sha256(json.dumps(settings._asdict(), sort_keys=True, default=list).encode())
    for array in arrays:
        digest.update(b"-" if array is None else repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def launch(
    pictures: list[np.ndarray],
    settings: Settings,
    *,
    kernel: np.ndarray | None,
    name: str,
    folder: Path,
    resume: bool,
    seconds: float,
    asked: list[bool],
) -> tuple[list[Deblurred], bool]:
    """`jbid.deblur.deblur` with a progress bar, checkpointed in `folder` every `seconds`.

    Returns the answers and whether they are complete.
    """
    from jbid.checkpoint import Checkpoint
    from jbid.deblur import deblur

    if folder.exists() and not resume:
        shutil.rmtree(folder)
    checkpoint = Checkpoint(folder, seconds=seconds)
    try:
        with progress(name, settings.steps, asked) as on_chunk:
            answers = deblur(pictures, settings, kernel=kernel, on_chunk=on_chunk, checkpoint=checkpoint)
    finally:
        checkpoint.close()
    return answers, len(answers[0].losses) == settings.steps


def _deblur(args: argparse.Namespace) -> int:
    """Write <stem>_sharp.png, <stem>_kernel.png and <stem>.json for each picture, knowing neither image nor kernel."""
    from jbid import images as im

    kernel = None
    extra: list[tuple[str, dict]] = []
    if args.kernel:
        kernel = im.read_kernel(args.kernel)
        side = max(kernel.shape) | 1
        rows, columns = side - kernel.shape[0], side - kernel.shape[1]
        kernel = np.pad(kernel, ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)))
        if args.kernel_size not in (None, side):
            raise ValueError(
                f"--kernel-size {args.kernel_size} contradicts {args.kernel}, whose kernel has size {side}"
            )
        extra = [("--kernel", {"kernel_size": side, "loss": "ssim"})]
    settings = settings_from(args, extra)
    if args.batch is not None and args.batch < 1:
        raise ValueError(f"got --batch {args.batch}, expected at least 1")

    # everything that can be wrong with the input is found before the first step
    from jbid.deblur import check_size

    stems: dict[str, Path] = {}
    pictures: dict[str, np.ndarray] = {}
    for path in args.images:
        if path.stem in stems:
            raise ValueError(
                f"{path} and {stems[path.stem]} would both be written as {path.stem}_sharp.png; rename one"
            )
        stems[path.stem] = path
        pictures[path.stem] = im.read(path)
        try:
            check_size(pictures[path.stem].shape, settings.kernel_size)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    out = out_dir(args.out)

    import jax

    batch = args.batch or (1 if jax.default_backend() == "cpu" else 8)
    by_shape: dict[tuple, list[str]] = {}
    for stem, picture in pictures.items():
        by_shape.setdefault(picture.shape, []).append(stem)
    groups = [stems[i : i + batch] for stems in by_shape.values() for i in range(0, len(stems), batch)]
    with interruptible() as asked:
        for group in groups:
            names = {stem: identity(settings, pictures[stem], kernel) for stem in group}
            reports = {stem: read_json(out / f"{stem}.json") for stem in group}
            if args.resume and all(
                reports[s].get("identity") == names[s] and reports[s].get("complete") for s in group
            ):
                print(f"{', '.join(group)}: done before, skipped")
                continue
            folder = out / ".jbid" / hashlib.sha256("".join(names.values()).encode()).hexdigest()[:16]
            answers, complete = launch(
                [pictures[s] for s in group],
                settings,
                kernel=kernel,
                name=group[0] if len(group) == 1 else f"{group[0]} and {len(group) - 1} more",
                folder=folder,
                resume=args.resume,
                seconds=args.checkpoint_every,
                asked=asked,
            )
            for stem, answer in zip(group, answers):
                im.write(out / f"{stem}_sharp.png", answer.image)
                im.write_kernel(out / f"{stem}_kernel.png", answer.kernel)
                write_json(
                    out / f"{stem}.json",
                    {
                        "input": stems[stem].name,
                        "settings": settings._asdict(),
                        "known_kernel": args.kernel.name if args.kernel else None,
                        **versions_and_device(),
                        "seconds": round(answer.seconds, 2),
                        "steps_done": len(answer.losses),
                        "complete": complete,
                        "loss": _last(answer.losses),
                        "seed": answer.seed,
                        "identity": names[stem],
                    },
                )
                done = f"{len(answer.losses)} steps, {answer.seconds:.0f} s, seed {answer.seed}"
                print(f"{stem}: {done} -> {out / stem}_sharp.png")
            if not complete:
                print("stopped early; --resume with the same arguments goes on from here")
                return INTERRUPTED
            shutil.rmtree(folder, ignore_errors=True)
            if asked:
                return INTERRUPTED
    shutil.rmtree(out / ".jbid", ignore_errors=True)
    return 0


def _last(losses: np.ndarray) -> list[float | None]:
    """The last loss of each seed; None for one that is not a number, which JSON has no word for."""
    return [float(v) if np.isfinite(v) else None for v in losses[-1]] if len(losses) else []


def _blur(args: argparse.Namespace) -> int:
    """Write <stem>_blurred.png: y = k * x where the kernel fits, so smaller than x by the kernel's size less one."""
    import jax.numpy as jnp

    from jbid import images as im
    from jbid.blur import blur

    kernel = im.read_kernel(args.kernel)
    pictures = {path: im.read(path) for path in args.images}
    for path, picture in pictures.items():
        if kernel.shape[0] > picture.shape[0] or kernel.shape[1] > picture.shape[1]:
            raise ValueError(f"{args.kernel}: the kernel {kernel.shape} is larger than {path}, {picture.shape[:2]}")
    out = out_dir(args.out)
    for path, picture in pictures.items():
        im.write(out / f"{path.stem}_blurred.png", np.asarray(blur(jnp.asarray(picture), jnp.asarray(kernel))))
    return 0


def _demo(args: argparse.Namespace) -> int:
    """Blur a photo that ships with scikit-image, restore it blindly, print the gain and draw a panel."""
    from jbid.demo import demo

    with interruptible() as asked:
        return demo(out_dir(args.out), asked)
