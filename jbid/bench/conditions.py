"""Benchmarks that vary one thing about known images: the kernel size that is given, or the noise.

The experiments of Zhuang et al., Blind Image Deblurring with Unknown Kernel Size and Substantial Noise, sections 4.2.1
to 4.2.3, on any method. Pictures are made from the sharp images and kernels of a set: y = k * x, of the part that saw
the whole kernel, with noise where asked for, rounded to 8 bits.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jbid.bench import report
from jbid.bench.table import SETS, Case, Scoring, facts, finished, loaded, mean, run_cases, scoring, strips_of
from jbid.cli.main import settings_from
from jbid.data.levin import Item
from jbid.data.synthetic import synthesize
from jbid.io.files import atomic_write
from jbid.pipeline.config import Config
from jbid.runtime.environment import versions_and_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure


LEVELS = 5


def level_size(kernel: Sequence[int], picture: Sequence[int], level: int) -> int:
    """The odd kernel size of a level of overspecification: 1 the true size, 5 half the picture, evenly in between.

    Of a picture that is not square, the shorter side counts.
    """
    true, half = max(kernel), min(picture) / 2
    return round((true + (half - true) * (level - 1) / (LEVELS - 1) - 1) / 2) * 2 + 1


def _cases(args: argparse.Namespace, items: Sequence[Item], settings: dict[str, Config]) -> list[tuple[str, str, Case]]:
    """(method, condition, case) for all that is asked for; each item's pictures are the same for all methods."""
    found = []
    # of the pictures' noise too, and one for all methods
    seed = next(iter(settings.values())).seed
    # where a method looks at a part alone, that part is what the kernel may be half of, for all methods alike
    patch = min((own.patch for own in settings.values() if own.patch), default=None)
    for item in items:
        assert item.kernel is not None
        for condition in args.levels if args.command == "oversize" else args.noises:
            if args.command == "oversize":
                given, level, label = synthesize(item, args.noise, seed), condition, f"level {condition}"
            else:
                given = synthesize(item, condition, seed, blurred=args.command == "noise")
                level, label = args.size_level, condition
            for method, own in settings.items():
                name = f"{item.name}_{method}_{label.replace(' ', '').replace(':', '_')}"
                case = Case(given._replace(name=name), own)
                if method == "dip":
                    # the image network alone, told that there is no blur
                    alone = own._replace(kernel_size=1, finish=False, patch=0)
                    case = case._replace(settings=alone, kernel=np.ones((1, 1), np.float32))
                elif level is not None:
                    sides = [min(n, patch or n) for n in given.blurred.shape[:2]]
                    size = level_size(item.kernel.shape, sides, level)
                    case = case._replace(settings=own._replace(kernel_size=size))
                found.append((method, label, case))
    return found


def _settings(args: argparse.Namespace, method: str) -> Config:
    return settings_from(argparse.Namespace(**vars(args) | {"method": "robust" if method == "dip" else method}))


def main(args: argparse.Namespace) -> int:
    """`python -m jbid.bench oversize`, `noise` and `noise-only`."""
    if args.method:
        raise ValueError(f"got --method {args.method}: {args.command} compares methods, give --methods {args.method}")
    if args.command == "oversize" and not all(1 <= level <= LEVELS for level in args.levels):
        raise ValueError(f"got --levels {args.levels}, expected numbers from 1 to {LEVELS}")
    how = scoring(args)
    items = loaded(args, SETS[args.set_name])
    settings = {method: _settings(args, method) for method in args.methods}
    labeled = _cases(args, items, settings)
    out = args.out or Path(f"{args.command}_{args.set_name}.json")
    rows, complete = run_cases([case for _, _, case in labeled], out, args, how)
    by_name = {row["name"]: row for row in rows}
    told = [
        {"method": method, "condition": condition, **by_name[case.item.name]}
        for method, condition, case in labeled
        if case.item.name in by_name
    ]
    if told and jax.process_index() == 0:
        _report(told, args, settings, how, [case for _, _, case in labeled], out)
    return finished(complete, out)


COLUMNS = ("psnr", "ssim", "vif", "lpips", "kernel_similarity", "psnr_network", "seconds")


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the images for each condition, of what was given and of each method."""
    means = []
    for condition in dict.fromkeys(row["condition"] for row in rows):
        here = [row for row in rows if row["condition"] == condition]
        given = {key: mean(here, f"{key}_blurred") for key in ("psnr", "ssim", "vif", "lpips")}
        means.append({"condition": condition, "method": "input", "images": None, **given})
        known = {"psnr": mean(here, "psnr_true_kernel")}
        means.append({"condition": condition, "method": "finish, true kernel", "images": None, **known})
        for method in dict.fromkeys(row["method"] for row in here):
            own = [row for row in here if row["method"] == method]
            values = {key: mean(own, key) for key in COLUMNS}
            means.append({"condition": condition, "method": method, "images": len(own), **values})
    return means


def _report(
    rows: Sequence[dict[str, Any]],
    args: argparse.Namespace,
    settings: dict[str, Config],
    how: Scoring,
    cases: Sequence[Case],
    out: Path,
) -> None:
    means = summary(rows)
    keys = ["condition", "method", "images", *(c for c in COLUMNS if any(row.get(c) is not None for row in means))]
    table = report.Table("Means", keys, [[row.get(key) for key in keys] for row in means], "Pictures are synthesized.")
    print(report.markdown(table))
    header = {"benchmark": args.command, "set": args.set_name, "protocol": how.protocols[0].told()}
    header |= versions_and_device()
    print(f"pictures synthesized; {facts(header)}")
    header |= {"settings": {method: own._asdict() for method, own in settings.items()}}
    header |= {key: getattr(args, key, None) for key in ("noise", "size_level", "kernel_size")}
    plots = []
    if report.drawable():
        figure = plot(means, args.command)
        with atomic_write(out.with_suffix(".png")) as temporary:
            figure.savefig(temporary, dpi=110)
        print(f"-> {out.with_suffix('.png')}")
        plots = [("By condition", figure)]
    strips = strips_of(cases, rows, out.parent / out.stem)
    content = {"means": means, "images": list(rows)}
    report.write_report(out, f"{args.command}, {args.set_name}", header, content, [table], plots, strips)


def plot(means: Sequence[dict[str, Any]], title: str) -> Figure:
    """PSNR, SSIM and VIF by condition, a line for each method through the levels of one kind, dashed for the input."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    conditions = list(dict.fromkeys(row["condition"] for row in means))
    for axis, key in zip(figure.subplots(1, 3), ("psnr", "ssim", "vif")):
        # a method has one color in all panels, also where another has no value
        for i, method in enumerate(dict.fromkeys(row["method"] for row in means)):
            found = {row["condition"]: row.get(key) for row in means if row["method"] == method}
            # rings of several sizes, as values often coincide
            look = {"color": f"C{i}", "marker": "o", "fillstyle": "none", "markersize": 4 + 2 * i}
            if method == "input":
                look = {"color": "black", "marker": "x", "ls": "--"}
            for _, group in itertools.groupby(range(len(conditions)), lambda j: conditions[j].rpartition(":")[0]):
                at = [j for j in group if found.get(conditions[j]) is not None]
                axis.plot(at, [found[conditions[j]] for j in at], label=method, **look)
        axis.set_xticks(range(len(conditions)), conditions)
        axis.set_title("PSNR, dB" if key == "psnr" else key.upper())
        axis.tick_params(axis="x", rotation=20)
        axis.grid(alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    by_label = dict(zip(labels, handles))
    figure.axes[0].legend(by_label.values(), by_label, fontsize=8)
    figure.suptitle(title)
    return figure
