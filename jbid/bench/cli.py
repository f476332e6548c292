"""`python -m jbid.bench`: arguments of the benchmarks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import jbid.bench
from jbid.cli import Parser, add_method_arguments, guarded, kernel_size

SETS = {"levin": "the 32 images of Levin et al. 2009", "lai": "the 100 uniformly blurred images of Lai et al. 2016"}


def parser() -> argparse.ArgumentParser:
    top = Parser("python -m jbid.bench", description=jbid.bench.__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    for name, description in SETS.items():
        command = commands.add_parser(name, help=description, description=f"{description}: {_table.__doc__}")
        _add_table_arguments(command, name)
    return top


def _kernel_size(text: str) -> int | str:
    return text if text == "published" else kernel_size(text)


def _add_table_arguments(command: argparse.ArgumentParser, name: str) -> None:
    add = command.add_argument
    add("--data", type=Path, metavar="DIR", help=f"the set's folder (default: {name} in $JBID_DATA)")
    add_method_arguments(command)
    sizes = "SelfDeblur's for each kernel" if name == "levin" else "the kernel files'"
    add(
        "--kernel-size", type=_kernel_size, metavar="N", help=f"auto (default), one size for all, or published: {sizes}"
    )
    some = command.add_mutually_exclusive_group()
    some.add_argument("--limit", type=int, metavar="N", help="the first N images only")
    some.add_argument("--only", nargs="+", metavar="NAME", help="these images only, by their file names")
    add("--maxshift", type=int, default=10, metavar="PIXELS", help="of the alignment before scoring (default 10)")
    add("--each-seed", action="store_true", help="score all candidates: what does choosing without the truth cost?")
    add("--batch", type=int, metavar="B", help="images of one size per launch (default: 1 on CPU, else 4)")
    add("--score", type=Path, metavar="DIR", help="score the <name>_x.png (and _k.png) files there, compute nothing")
    add("--out", type=Path, metavar="FILE.json", help=f"default: {name}_<method>_<preset>.json; images beside it")
    add("--resume", action="store_true", help="keep what an earlier run with the same settings has finished")
    command.set_defaults(run=_table)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark; 0, 2 for bad input, 130 where Ctrl-C stopped it."""
    args = parser().parse_args(argv)
    return guarded(lambda: args.run(args))


def _table(args: argparse.Namespace) -> int:
    """PSNR, SSIM, error ratio and kernel similarity by SelfDeblur's protocol, after the best shift within maxshift."""
    from jbid.bench import table

    return table.main(args)
