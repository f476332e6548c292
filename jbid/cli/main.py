"""`python -m jbid`: arguments, files, progress. What is computed is in `jbid.deblur`."""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import jbid
from jbid.io.files import make_folder, read_json, write_json
from jbid.kernel_estimation.ranking import Candidate
from jbid.pipeline.config import Config, parse_assignment, read_config, resolve
from jbid.pipeline.launch import launch
from jbid.pipeline.resume import identity
from jbid.runtime.compile import enable_compilation_cache
from jbid.runtime.console import interruptible, print_error, progress_bar
from jbid.runtime.distributed import initialize_distributed, leave_early, local_share, wait_for_all
from jbid.runtime.environment import source_commit, versions_and_device

INTERRUPTED = 130


def _flag_values(args: argparse.Namespace) -> dict[str, Any]:
    names = [name for name in Config._fields if name != "options"]
    return {name: value for name in names if (value := getattr(args, name, None)) is not None}


def settings_from(
    args: argparse.Namespace, extra: Sequence[tuple[str, dict]] = (), *, known_kernel: bool = False
) -> Config:
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
    add("--seeds", type=int, metavar="S", help="run S initializations at once, keep the one that looks best")
    add("--seed", type=int, metavar="K", help="first seed (default 0)")
    add("--steps", type=int, metavar="N", help="optimization steps (default: the preset's)")
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
    from jbid.engine.batching import parse_memory

    try:
        return parse_memory(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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
    add("--color", choices=("luma", "rgb"), help="estimate from luma (default) or from all three channels")
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


def started(args: argparse.Namespace) -> int:
    """The exit code of the command that the arguments chose, in one process or as one of several."""
    early = False

    def command():
        nonlocal early
        given = getattr(args, "distributed", None)
        initialize_distributed(given)
        early = given is not None
        code = args.run(args)
        early = False
        return code

    code = guarded(command)
    return leave_early(code) if early else code


def guarded(command) -> int:
    """`command()`, with errors that a user can mend told in one line."""
    enable_compilation_cache()
    try:
        return command() or 0
    except (ValueError, OSError) as error:
        print_error(str(error))
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def _lossless(path: Path) -> str:
    """The suffix of what is made of a picture: TIFF stays TIFF, all else becomes PNG."""
    return ".tif" if path.suffix.lower() in (".tif", ".tiff") else ".png"


def _pictures(arguments: Sequence[str], out: Path, *ours: str) -> tuple[list[Path], list[str]]:
    """The files that arguments stand for, in order and each once; and what was wrong with some.

    Stems of what is written to `out` end in one of `ours`; in that folder such files are not taken.
    """
    from jbid.io.images import list_images

    files: dict[Path, None] = {}
    wrong = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            found = list_images(path)
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
    from jbid.io.images import image_size, read_kernel, read_photo, write_image, write_kernel, write_photo

    kernel = None
    extra: list[tuple[str, dict]] = []
    if args.kernel:
        kernel = read_kernel(args.kernel)
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
    from jbid.pipeline.prepare import check_deconvolve, check_size, init_file, prepare
    from jbid.pipeline.report import restoration_report

    begins = init_file(settings.start)
    given = read_kernel(begins) if begins else None
    files, wrong = _pictures(args.images, args.out, "_sharp", "_kernel", "_spread")
    sizes: dict[Path, tuple[int, int]] = {}
    for path in files:
        try:
            width, height = image_size(path)
            check_size((height, width), settings.kernel_size)
            check_deconvolve(settings, (height, width))
            sizes[path] = (height, width)
        except (ValueError, OSError) as error:
            wrong.append(str(error) if str(path) in str(error) else f"{path}: {error}")
    if not sizes:
        raise ValueError("; ".join(wrong))
    out = make_folder(args.out)
    for line in wrong:
        print_error(line)

    import jax

    batch = args.batch or (1 if jax.default_backend() == "cpu" else 8) * jax.local_device_count()
    by_shape: dict[tuple, list[Path]] = {}
    for path, shape in local_share(list(sizes.items())):
        by_shape.setdefault(shape, []).append(path)
    groups = [paths[i : i + batch] for paths in by_shape.values() for i in range(0, len(paths), batch)]

    def write(path, photo, task, answer, complete, name):
        sharp = out / f"{path.stem}_sharp{_lossless(path)}"
        write_photo(sharp, photo._replace(image=answer.image))
        write_kernel(out / f"{path.stem}_kernel.png", answer.kernel)
        told = restoration_report(answer, task)
        if answer.spread is not None:
            # white is a tenth of the range
            write_image(out / f"{path.stem}_spread.png", np.clip(answer.spread * 10, 0, 1)[..., None])
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
                    photo = read_photo(path)
                    name = identity(settings, photo.image, kernel, given)
                    before = read_json(out / f"{path.stem}.json")
                    if args.resume and before.get("identity") == name and before.get("complete"):
                        print(f"{path.stem}: done before, skipped")
                        continue
                    print(f"{path.stem}: making ready", flush=True)
                    task = prepare(photo.image, settings, kernel=kernel)
                except (ValueError, OSError, MemoryError) as error:
                    wrong.append(str(error))
                    print_error(str(error) if str(path) in str(error) else f"{path}: {error}")
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
                        print_error(f"{path}: {error}")
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
    wait_for_all("pictures")
    if jax.process_index() == 0:
        shutil.rmtree(out / ".jbid", ignore_errors=True)
    return 2 if wrong else 0


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

    from jbid.io.images import read_image, read_kernel, write_image
    from jbid.ops.conv import blur
    from jbid.ops.noise import NOISE_MODELS, parse_noise

    noise = parse_noise(args.noise) if args.noise else None
    kernel = read_kernel(args.kernel)
    pictures = {path: read_image(path) for path in args.images}
    for path, picture in pictures.items():
        if kernel.shape[0] > picture.shape[0] or kernel.shape[1] > picture.shape[1]:
            raise ValueError(f"{args.kernel}: the kernel {kernel.shape} is larger than {path}, {picture.shape[:2]}")
        if noise and noise[0] == "saturation" and picture.shape[-1] != 3:
            raise ValueError(f"{path}: --noise saturation needs a picture in color")
    out = make_folder(args.out)
    for i, (path, picture) in enumerate(pictures.items()):
        blurred = blur(jnp.asarray(picture), jnp.asarray(kernel))
        if noise:
            key = jax.random.fold_in(jax.random.key(args.seed), i)
            blurred = NOISE_MODELS[noise[0]](key, blurred, noise[1])
        write_image(out / f"{path.stem}_blurred.png", np.asarray(blurred))
        print(f"-> {out / f'{path.stem}_blurred.png'}")
    return 0


def _kernels(args: argparse.Namespace) -> int:
    """Draw a grid of simulated motion-blur kernels, each scaled by its maximum."""
    import jax

    from jbid.io.images import write_image
    from jbid.ops import motion
    from jbid.pretrain.loop import grid

    if args.out.suffix.lower() != ".png":
        raise ValueError(f"got --out {args.out}, expected a name that ends in .png")
    kernels = np.asarray(motion.motion_kernels(jax.random.key(args.seed), args.size, args.count, args.model))
    make_folder(args.out.parent)
    write_image(args.out, grid(kernels))
    print(f"{args.count} kernels of {args.size}x{args.size} pixels, {args.model} -> {args.out}")
    return 0


def _pretrain(args: argparse.Namespace) -> int:
    """Train a network on simulated blur: kernels and blurred pictures are made on the fly, nothing is stored."""
    from importlib import import_module

    from jbid.pipeline.config import record
    from jbid.pretrain import loop

    kind = import_module(f"jbid.pretrain.{args.network}")
    values = read_config(args.config)
    changed = dict(parse_assignment(text) for text in args.set)
    for source, part in ((str(args.config), values), ("--set", changed)):
        record(kind.Settings, part, source)
    settings = kind.Settings(**(values | changed))
    if args.measure_every < 1:
        raise ValueError(f"got --measure-every {args.measure_every}, expected at least 1")
    folder = make_folder(args.workdir)
    training = kind.training(settings, folder)

    # what ships says nothing of the folders of whoever trained it
    def named(value):
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    config = f"{args.config.parent.name}/{args.config.name}" if args.config.is_absolute() else args.config
    options = "".join(f" --set {name}={named(value)}" for name, value in changed.items())
    about = {
        "settings": {name: named(value) for name, value in settings._asdict().items()},
        "command": f"python -m jbid pretrain {args.network} --config {config}{options}",
        "commit": source_commit(),
        **versions_and_device(),
    }
    with interruptible() as asked, progress_bar(training.name, settings.steps, asked) as on_chunk:
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
        loop.export(folder / "weights", make_folder(args.export), training.name)
        print(f"added to {args.export}")
    return 0


def _operator(args: argparse.Namespace):
    """The operator that the arguments ask for: one with a VAE where blurs are to be drawn."""
    from jbid.io.weights import SHIPPED
    from jbid.methods.explore.blur_operator import operator

    return operator("operator_vae" if args.sample else "operator", args.weights or SHIPPED)


def _transfer(args: argparse.Namespace) -> int:
    """Write <stem>_blurred for each target: the target with the blur between --sharp and --blurry, F(T, G(X, Y)).

    Or, with --sample, with a blur that is drawn. A target that cannot be used is named, and the others are made.
    """
    import jax
    from tqdm import tqdm

    from jbid.io.images import read_image, read_photo, write_photo
    from jbid.methods.explore import blur_operator
    from jbid.methods.explore.transfer import apply_code, extract_code
    from jbid.metrics import psnr

    if args.sample == bool(args.sharp or args.blurry) or bool(args.sharp) != bool(args.blurry):
        raise ValueError("expected both --sharp and --blurry, or --sample without them")
    of = _operator(args)
    code = None
    if args.sharp:
        sharp, blurred = read_image(args.sharp), read_image(args.blurry)
        code = extract_code(of, sharp, blurred)
        again = apply_code(of, sharp, code)
        told = psnr(again, blurred), psnr(sharp, blurred)
        print("the pair itself, blurred again: {:.2f} dB (sharp against blurred: {:.2f} dB)".format(*told))
    files, wrong = _pictures(args.target, args.out, "_blurred")
    out, done = make_folder(args.out), 0
    for i, path in enumerate(tqdm(files, unit="picture", dynamic_ncols=True)):
        try:
            photo = read_photo(path)
        except (ValueError, OSError) as error:
            wrong.append(str(error))
            continue
        key = jax.random.fold_in(jax.random.key(args.seed), i)
        put_on = np.asarray(blur_operator.sample_code(of, key, photo.image.shape)) if code is None else code
        made = apply_code(of, photo.image, put_on)
        write_photo(out / f"{path.stem}_blurred{_lossless(path)}", photo._replace(image=made))
        done += 1
    for line in wrong:
        print_error(line)
    print(f"{done} pictures -> {out}")
    return 2 if wrong else 0


def _augment(args: argparse.Namespace) -> int:
    """Write sharp/000000.png .. and blur/000000.png ..: crops of --target with blurs of --pairs, or drawn ones.

    pairs.csv tells how well the operator gives each source's own blur. Run again, it goes on where it stopped.
    """
    from tqdm import tqdm

    from jbid.data.crops import crops
    from jbid.data.pairs import pairs
    from jbid.io.weights import SHIPPED, checksums
    from jbid.methods.explore.transfer import write_pairs

    if args.count < 1 or args.crop < 32:
        raise ValueError(f"got --count {args.count} and --crop {args.crop}, expected at least 1 and 32")
    if [bool(args.pairs), bool(args.frames), args.sample].count(True) != 1:
        raise ValueError("expected one of --pairs, --frames and --sample")
    of = _operator(args)
    sources = None
    if not args.sample:
        sources = pairs(args.crop, args.seed, folder=args.pairs or "", frames=args.frames or "", held_out=None)
    targets = crops(args.target, args.crop, args.seed + 1, held_out=None, color=True)
    out = make_folder(args.out)
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
    from jbid.cli.demo import demo

    settings = resolve([("command line", _flag_values(args))])
    return demo(make_folder(args.out), settings, args.noise)
