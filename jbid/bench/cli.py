"""`python -m jbid.bench`: arguments of the benchmarks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import jbid.bench
from jbid.cli import Parser, add_method_arguments, guarded


def parser() -> argparse.ArgumentParser:
    top = Parser("python -m jbid.bench", description=jbid.bench.__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    command = commands.add_parser("levin", help="the 32 images of Levin et al. 2009", description=_levin.__doc__)
    add = command.add_argument
    add("--data", type=Path, metavar="DIR", help="the set's folder (default: levin in $JBID_DATA)")
    add_method_arguments(command)
    add("--kernel-size", type=int, metavar="N", help="one size for all (default: SelfDeblur's for each kernel)")
    some = command.add_mutually_exclusive_group()
    some.add_argument("--limit", type=int, metavar="N", help="the first N images only")
    some.add_argument("--only", nargs="+", metavar="NAME", help="these images only, e.g. im1_kernel1_img")
    add("--maxshift", type=int, default=10, metavar="PIXELS", help="of the alignment before scoring (default 10)")
    add("--batch", type=int, metavar="B", help="images of one kernel size per launch (default: 1 on CPU, else 4)")
    add("--score", type=Path, metavar="DIR", help="score the <name>_x.png (and _k.png) files there, compute nothing")
    add("--out", type=Path, metavar="FILE.json", help="default: levin_<method>_<preset>.json; images beside it")
    add("--resume", action="store_true", help="keep what an earlier run with the same settings has finished")
    command.set_defaults(run=_levin)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark; 0, 2 for bad input, 130 where Ctrl-C stopped it."""
    args = parser().parse_args(argv)
    return guarded(lambda: args.run(args))


def _levin(args: argparse.Namespace) -> int:
    """PSNR, SSIM, error ratio and kernel similarity by SelfDeblur's protocol, after the best shift within maxshift."""
    from jbid.bench import levin

    return levin.main(args)
