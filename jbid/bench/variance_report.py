"""Report and plots of the variance benchmark."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jbid.bench import report
from jbid.bench.cells import FAILED, CellFiles
from jbid.bench.options import VarianceConfig
from jbid.bench.protocols import Protocol
from jbid.bench.variance_statistics import (
    COLUMNS,
    COUNTS,
    Row,
    compare_kernels,
    gains_by_count,
    has_rule,
    mean_regret,
    summarize_cell,
)
from jbid.io.files import atomic_write
from jbid.runtime.environment import versions_and_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STRIP_LENGTH = 12  # kernels of a cell in the report
NOTE = (
    "PSNR of the deconvolution with each seed's kernel. failed: share of seeds with an error ratio above "
    f"{FAILED:g} (Levin et al. 2009). agreement: mean similarity of two seeds' kernels. loss, score to psnr: rank "
    "correlation over seeds. regret: PSNR of the best seed minus that of the seed selected without the ground truth by "
    "the score, by the last loss, by the rank (samples of the edge-based estimate only), or at random."
)
COUNT_NOTE = (
    "Mean PSNR minus that of the blurred image, and its standard deviation over random sets of this many seeds, mean "
    "over the images: of the best seed, and of the one that is selected without the ground truth, by the rank for "
    "samples of the edge-based estimate and by the score for others. Samples are scored at the scale at which they are "
    "drawn."
)


def write_variance_report(
    rows: Sequence[dict[str, Any]],
    files: CellFiles,
    settings: Mapping[str, Any],
    protocol: Protocol,
    config: VarianceConfig,
    out: Path,
) -> None:
    """Write the report, a CSV file with one line for each seed, and the plots.

    Args:
        rows: of the cells.
        files: kernels of the cells.
        settings: configurations by method and initial kernel.
        protocol: of the scores.
        config: of the benchmark.
        out: path of the JSON file.
    """
    kernels = {row["name"]: np.load(files.kernels_path(row["name"]))["kernels"] for row in rows}
    similarities = {name: compare_kernels(stack) for name, stack in kernels.items()}
    summaries = [summarize_cell(row, similarities[row["name"]]) for row in rows]
    table = report.Table("Seeds", COLUMNS, [[line[c] for c in COLUMNS] for line in summaries], NOTE)
    gains = gains_by_count(rows, similarities)
    lines = [
        [name, count, *values[[0, 2, 1, 3]].tolist()] for name, own in gains.items() for count, values in own.items()
    ]
    columns = ("method, init", "seeds", "best, dB", "deviation", "selected, dB", "deviation ")
    tables = [table, report.Table("Gain by the number of seeds", columns, lines, COUNT_NOTE)]
    print("\n".join(report.to_markdown(table) for table in tables))
    header: dict[str, Any] = {"benchmark": "variance", "set": config.set_name, "protocol": protocol.to_dict()}
    header |= versions_and_device()
    print(report.summarize_header(header))
    header |= {"settings": dict(settings), "crop": config.crop, "perturb": config.perturb}
    write_csv(out.with_suffix(".csv"), rows)
    print(f"-> {out.with_suffix('.csv')}")
    plots = []
    if report.is_drawable():
        plots = [("PSNR of the seeds", _plot_distributions(rows)), ("Loss, score and PSNR", _plot_correlations(rows))]
        plots.append(("Regret of the selection", _plot_regrets(rows, similarities)))
        plots.append(("Gain by the number of seeds", _plot_gains(gains)))
        for (_, figure), suffix in zip(plots, ("", "_loss", "_regret", "_seeds")):
            report.save_plot(out.with_name(f"{out.stem}{suffix}.png"), figure)
    strips = [_make_strip(row, kernels[row["name"]]) for row in rows]
    title = f"Initial kernels: {len(rows[0]['seeds'])} seeds, {config.set_name}"
    report.write_report(out, title, header, {"summary": summaries, "cells": list(rows)}, tables, plots, strips)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write one line for each seed."""
    shared = ("image", "method", "init", "kernel_size", "steps", "psnr_blurred", "psnr_true_kernel")
    lines = []
    for row in rows:
        for seed in row["seeds"]:
            values = {key: value for key, value in seed.items() if key != "terms"} | seed["terms"]
            lines.append({key: row[key] for key in shared} | values)
    names = list(dict.fromkeys(name for line in lines for name in line))
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(lines)


def _make_strip(row: Row, kernels: NDArray) -> report.Strip:
    """Kernels of a cell, in the order of their seeds' PSNR."""
    order = sorted(range(len(kernels)), key=lambda s: -row["seeds"][s]["psnr"])
    indices = [order[round(i)] for i in np.linspace(0, len(order) - 1, min(STRIP_LENGTH, len(order)))]
    finite = [s for s in indices if np.isfinite(kernels[s]).all()]
    panels = [(f"kernel, {row['seeds'][s]['psnr']:.1f} dB", report.kernel_panel(kernels[s])) for s in finite]
    return report.Strip(f"{row['image']}, {row['method']}, {row['init']}", "from the best to the worst seed", panels)


def _plot_distributions(rows: Sequence[Row]) -> Figure:
    """PSNR of the seeds by initial kernel, one panel for each image and method."""
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        panels.setdefault((row["image"], row["method"]), []).append(row)
    columns = min(3, len(panels))
    height = -(-len(panels) // columns)
    figure = Figure(figsize=(1.5 + 4.2 * columns, 3.6 * height), layout="constrained")
    rng = np.random.default_rng(0)
    for axis, ((image, method), part) in zip(figure.subplots(height, columns, squeeze=False).ravel(), panels.items()):
        values = [[seed["psnr"] for seed in row["seeds"]] for row in part]
        axis.boxplot(values, showfliers=False, widths=0.6)
        for i, (row, psnr) in enumerate(zip(part, values)):
            failed = np.array([seed["failed"] for seed in row["seeds"]])
            x = i + 1 + 0.3 * (rng.random(len(psnr)) - 0.5)
            for mask, color in ((~failed, "C0"), (failed, "C3")):
                axis.plot(x[mask], np.array(psnr)[mask], "o", color=color, ms=3, alpha=0.6)
        axis.axhline(part[0]["psnr_true_kernel"], color="black", lw=0.8, ls="--")
        axis.axhline(part[0]["psnr_blurred"], color="gray", lw=0.8, ls=":")
        axis.set_xticks(range(1, len(part) + 1), [row["init"] for row in part])
        axis.set_title(f"{image}, {method}", fontsize=9)
        axis.set_ylabel("PSNR, dB")
    figure.suptitle("red: failed; dashed: true kernel; dotted: blurred", fontsize=9)
    return figure


def _plot_correlations(rows: Sequence[Row]) -> Figure:
    """PSNR against the last loss and against the no-reference score."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    for axis, key in zip(figure.subplots(1, 2), ("loss", "score")):
        for i, row in enumerate(rows):
            pairs = [(seed[key], seed["psnr"]) for seed in row["seeds"] if seed[key] is not None]
            if not pairs:
                continue
            label = f"{row['image']}, {row['method']}, {row['init']}"
            axis.plot(*zip(*pairs), "o", ms=3, alpha=0.6, color=f"C{i % 10}", label=label)
        axis.set_xlabel(f"{key} (lower is better)")
        axis.set_ylabel("PSNR, dB")
        axis.grid(alpha=0.3)
    figure.axes[1].legend(fontsize=7)
    return figure


def _plot_gains(gains: Mapping[str, Mapping[int, NDArray]]) -> Figure:
    """Gain of the best and of the selected seed by the number of seeds, with its deviation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axis = figure.subplots()
    for i, (name, own) in enumerate(gains.items()):
        counts, values = list(own), np.array(list(own.values()))
        for column, style, label in ((0, "--", "best"), (1, "-", "selected")):
            x = np.multiply(counts, 1 + 0.04 * column)  # so that the bars do not cover each other
            mean, deviation = values[:, column], values[:, column + 2]
            axis.errorbar(
                x, mean, deviation, fmt=f"o{style}", color=f"C{i % 10}", ms=3, capsize=3, label=f"{name}: {label}"
            )
    ticks = sorted({count for own in gains.values() for count in own})
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [str(n) for n in ticks])
    axis.set_xlabel("seeds to select from")
    axis.set_ylabel("gain over the blurred image, dB")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def _plot_regrets(rows: Sequence[Row], similarities: Mapping[str, NDArray]) -> Figure:
    """Mean regret over cells by the number of seeds, for each rule, one panel for each initial kernel."""
    from matplotlib.figure import Figure

    largest = min(len(row["seeds"]) for row in rows)
    counts = [n for n in COUNTS if n < largest] + [largest]
    inits = list(dict.fromkeys(row["init"] for row in rows))
    figure = Figure(figsize=(5.5 * len(inits) ** 0.5 + 3, 3.8), layout="constrained")
    for axis, init in zip(figure.subplots(1, len(inits), squeeze=False, sharey=True)[0], inits):
        part = [row for row in rows if row["init"] == init]
        rules = {"score": "by score", "loss": "by loss", "rank": "by rank", "any": "at random"}
        for i, (rule, label) in enumerate(rules.items()):
            usable = [row for row in part if has_rule(row, rule)]
            if not usable:
                continue
            regrets = [[mean_regret(row, similarities[row["name"]], rule, n) for row in usable] for n in counts]
            axis.plot(counts, np.mean(np.array(regrets, float), 1), "o-", color=f"C{i}", label=label)
        axis.set_xscale("log", base=2)
        axis.set_xticks(counts, [str(n) for n in counts])
        axis.set_xlabel("seeds to select from")
        axis.set_title(init, fontsize=9)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.axes[0].set_ylabel("regret, dB")
    return figure
