"""`python -m jbid.bench`: arguments of the benchmarks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import jbid
from jbid.cli.main import Parser, add_method_arguments, json_file, kernel_size, positive, started
from jbid.runtime.console import print_error

# Zhuang et al.'s levels, section 4.2.2, and without blur those of section 4.2.3
BLURRED = ("gaussian:0.001", "gaussian:0.05", "impulse:0.005", "impulse:0.08", "shot:90", "shot:25")
NOISE_ONLY = ("gaussian:0.1", "impulse:0.08", "shot:40")
# of jbid.bench.protocols, which takes a second to import
PROTOCOLS = ("sd_matlab", "sd_fullrange", "rgb_aligned", "rgb_raw")
GROUPS = {"levin": ("im2", "kernel4"), "lai": ("text", "kernel_03")}
METHODS = ("selfdeblur", "gkpile", "robust", "explore")
MODELS = ("mixed", "camera", "trajectory", "gaussian_process")
STARTS = ("random", "average", "edges", "encoder", "perturbed")
SETS = {"levin": "the 32 images of Levin et al. 2009", "lai": "the 100 uniformly blurred images of Lai et al. 2016"}

SYNTHETIC = "sharp photos blurred by simulated kernels"
CONDITIONS = {
    "oversize": "kernel sizes given too large, from the true one (level 1) to half the picture (level 5)",
    "noise": "blur with noise",
    "noise-only": "noise without blur",
}


def parser() -> argparse.ArgumentParser:
    top = Parser("python -m jbid.bench", description=jbid.bench.__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    for name, description in SETS.items():
        command = commands.add_parser(name, help=description, description=f"{description}: {_table.__doc__}")
        _add_table_arguments(command, name)
    for name, description in CONDITIONS.items():
        command = commands.add_parser(name, help=description, description=f"{description}: {_conditions.__doc__}")
        _add_condition_arguments(command, name)
    command = commands.add_parser("synthetic", help=SYNTHETIC, description=f"{SYNTHETIC}: {_table.__doc__}")
    _add_synthetic_arguments(command)
    command = commands.add_parser("real", help="photos without a known truth", description=_real.__doc__)
    _add_real_arguments(command)
    command = commands.add_parser("variance", help="many seeds of each start", description=_variance.__doc__)
    _add_variance_arguments(command)
    command = commands.add_parser("check", help="are the data there and whole?", description=_check.__doc__)
    command.add_argument("sets", nargs="*", metavar="SET", help=f"default: {' '.join(SETS)}")
    command.add_argument("--data", type=Path, metavar="DIR", help="holds the sets' folders (default: $JBID_DATA)")
    command.set_defaults(run=_check)
    return top


def _kernel_size(text: str) -> int | str:
    return text if text == "published" else kernel_size(text)


def _add_run_arguments(command: argparse.ArgumentParser, out: str) -> None:
    """What all benchmarks share."""
    add = command.add_argument
    add_method_arguments(command)
    some = command.add_mutually_exclusive_group()
    some.add_argument("--limit", type=positive, metavar="N", help="the first N images only")
    some.add_argument("--only", nargs="+", metavar="NAME", help="these images only, by their file names")
    add("--tensorboard", type=Path, metavar="DIR", help="write losses, scores and pictures there, too, as its events")
    add("--out", type=json_file, metavar="FILE.json", help=f"default: {out}.json; images beside it")
    add("--resume", action="store_true", help="keep what an earlier run with the same settings has finished")


def _add_batch(command: argparse.ArgumentParser) -> None:
    help = "images of one size per launch (default: 1 on CPU, else 4)"
    command.add_argument("--batch", type=positive, metavar="B", help=help)


def _add_maxshift(command: argparse.ArgumentParser) -> None:
    help = "of the alignment before scoring (default 10)"
    command.add_argument("--maxshift", type=int, default=10, metavar="PIXELS", help=help)


def _add_common_arguments(command: argparse.ArgumentParser, out: str) -> None:
    """What benchmarks that score images one by one share, with a known truth."""
    add = command.add_argument
    _add_run_arguments(command, out)
    _add_batch(command)
    add(
        "--protocol",
        nargs="+",
        choices=PROTOCOLS,
        default=["sd_matlab"],
        help="how to score; the first one leads (default sd_matlab)",
    )
    add("--full", action=argparse.BooleanOptionalAction, help="error ratio, VIF and what the true kernel gives, too")
    _add_maxshift(command)
    add("--lpips", type=Path, metavar="WEIGHTS.pth", help="add LPIPS, by torchvision's alexnet-owt-7be5be79.pth")
    add("--each-seed", action="store_true", help="score all candidates: what does choosing without the truth cost?")


def _add_table_arguments(command: argparse.ArgumentParser, name: str) -> None:
    add = command.add_argument
    add("--data", type=Path, metavar="DIR", help=f"the set's folder (default: {name} in $JBID_DATA)")
    _add_common_arguments(command, f"{name}_<method>_<preset>")
    sizes = "SelfDeblur's for each kernel" if name == "levin" else "the kernel files'"
    _add_set_arguments(command, " or ".join(GROUPS[name]), sizes)
    command.set_defaults(run=_table)


def _add_synthetic_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--data", type=Path, metavar="DIR", help="a folder of sharp photos (default: sharp/kodak24 in $JBID_DATA)")
    _add_common_arguments(command, "synthetic_<method>_<preset>")
    add("--sizes", nargs="+", type=int, default=[31], metavar="N", help="of the kernels, odd (default 31)")
    add("--kernels", type=int, default=1, metavar="K", help="for each photo and size (default 1)")
    add("--model", choices=MODELS, default="mixed", help="of the kernels (default mixed: mostly camera)")
    add("--noise", metavar="MODEL:LEVEL", help="for example gaussian:0.01 (default: 8 bits alone)")
    add("--crop", type=int, default=256, metavar="N", help="the middle of each photo, N pixels a side (default 256)")
    add("--data-seed", type=int, default=0, metavar="K", help="of kernels and noise (default 0)")
    _add_set_arguments(command, "size 31")
    command.set_defaults(run=_table)


def _add_set_arguments(command: argparse.ArgumentParser, groups: str, published: str = "the simulated ones'") -> None:
    add = command.add_argument
    help = f"auto (default), one size for all, or published: {published}"
    add("--kernel-size", type=_kernel_size, metavar="N", help=help)
    add("--score", type=Path, metavar="DIR", help="score the <name>_x.png or <name>.png (and <name>_k.png) files there")
    add("--subset", nargs="+", metavar="GROUP", help=f"these alone, such as {groups}")
    add("--scale", type=float, default=1.0, metavar="S", help="shrink images and kernels first, e.g. 0.5 (default 1)")


def _add_real_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--data", type=Path, metavar="DIR", help="a folder of photos (default: lai/real in $JBID_DATA)")
    _add_run_arguments(command, "real_<method>_<preset>")
    _add_batch(command)
    add("--kernel-size", type=kernel_size, metavar="N", help="odd; auto (default) or half the picture")
    command.set_defaults(run=_real, each_seed=False)


def _add_condition_arguments(command: argparse.ArgumentParser, name: str) -> None:
    add = command.add_argument
    add("--data", type=Path, metavar="DIR", help="the set's folder (default: its name in $JBID_DATA)")
    add("--set-name", choices=tuple(SETS), default="levin", help="which set (default: levin)")
    methods = ("robust", "selfdeblur") + (("dip",) if name == "noise-only" else ())
    more = "; dip: the image network alone" if name == "noise-only" else ""
    add("--methods", nargs="+", choices=methods, default=list(methods), help=f"default: {' '.join(methods)}{more}")
    _add_common_arguments(command, f"{name}_<set>")
    if name == "oversize":
        add("--levels", nargs="+", type=int, default=[1, 2, 3, 4, 5], help="default: 1 2 3 4 5")
        add("--noise", metavar="MODEL:LEVEL", help="noise on top, for example gaussian:0.05 (default: none)")
    else:
        default = BLURRED if name == "noise" else NOISE_ONLY
        add("--noises", nargs="+", default=list(default), metavar="MODEL:LEVEL", help=f"default: {' '.join(default)}")
        sizes = command.add_mutually_exclusive_group().add_argument
        sizes("--kernel-size", type=kernel_size, metavar="N", help="odd; auto (default) or half the picture")
        sizes("--size-level", type=int, choices=range(1, 6), help="the size that is level N of `oversize`")
    command.set_defaults(run=_conditions)


def _add_variance_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--data", type=Path, metavar="DIR", help="the set's folder (default: its name in $JBID_DATA)")
    add("--set-name", choices=tuple(SETS), default="levin", help="which set (default: levin)")
    add("--methods", nargs="+", choices=METHODS, default=["selfdeblur"], help="default: selfdeblur")
    starts = "average: of simulated kernels; perturbed: the encoder's mixed with a simulated one for each seed"
    add("--starts", nargs="+", choices=STARTS, default=list(STARTS[:4]), help=f"default: the first four; {starts}")
    add(
        "--perturb", type=float, default=0.3, metavar="SHARE", help="of the simulated kernel in perturbed (default 0.3)"
    )
    add("--crop", type=int, metavar="N", help="the middle N x N pixels of each image (default: all)")
    _add_run_arguments(command, "variance_<set>")
    add("--protocol", choices=PROTOCOLS, default="sd_matlab", help="how to score (default sd_matlab)")
    _add_maxshift(command)
    add("--kernel-size", type=kernel_size, metavar="N", help="odd; auto (default) or half the picture")
    command.set_defaults(run=_variance)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark; 0, 2 for bad input, 130 where Ctrl-C stopped it."""
    args = parser().parse_args(argv)
    return started(args)


def _table(args: argparse.Namespace) -> int:
    """PSNR, SSIM, error ratio and kernel similarity by SelfDeblur's protocol, after the best shift within maxshift."""
    from jbid.bench import table

    return table.main(args)


def _conditions(args: argparse.Namespace) -> int:
    """each method's PSNR, SSIM and VIF on pictures made from a set's sharp images and kernels, as table and plot."""
    from jbid.bench import conditions

    return conditions.main(args)


def _variance(args: argparse.Namespace) -> int:
    """how PSNR, loss and kernels differ between seeds, and what choosing among them without the truth costs.

    32 seeds on the first image, unless --seeds, --only or --limit say otherwise.
    """
    from jbid.bench import variance

    return variance.main(args)


def _real(args: argparse.Namespace) -> int:
    """Restore photos that are blurred by nature: a page to look at, and scores that need no truth."""
    from jbid.bench import real

    return real.main(args)


def _check(args: argparse.Namespace) -> int:
    """Compare each file of the data sets with the checksum of the one that jbid's figures were made with."""
    from importlib import import_module

    from tqdm import tqdm

    from jbid.data.tfds import FROM, checksums, wrong_files

    if unknown := set(args.sets) - set(SETS):
        raise ValueError(f"got {unknown.pop()}, expected some of: {', '.join(SETS)}")
    bad = 0
    for name in args.sets or SETS:
        try:
            root = import_module(f"jbid.data.{name}").root(args.data)
        except ValueError as error:
            print_error(f"{name}: {error}. It is published with {FROM[name]}")
            bad += 1
            continue
        told = list(tqdm(wrong_files(name, root), name, len(checksums(name)), unit="file", leave=False))
        wrong = [f"{path}: {what}" for path, what in told if what]
        print(f"{name}: {len(told) - len(wrong)} of {len(told)} files as they should be")
        for line in wrong:
            print_error(f"{name}/{line}")
        bad += len(wrong)
    return 2 if bad else 0
