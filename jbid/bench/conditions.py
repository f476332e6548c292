"""Benchmarks over conditions on images with ground truth: kernel sizes given too large, and noise.

They follow the experiments of Zhuang et al., Blind Image Deblurring with Unknown Kernel Size and Substantial Noise,
sections 4.2.1 to 4.2.3, for any method. The blurred images are synthesized from the sharp images and kernels of a set:
y = k * x on the valid part, plus noise, rounded to 8 bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jbid import methods
from jbid.bench import report
from jbid.bench.options import ConditionsConfig, NoiseConfig, OversizeConfig
from jbid.bench.results import make_strips
from jbid.bench.runner import check_report, finish_run, report_path, run_cases
from jbid.bench.scoring import Scoring, make_scoring
from jbid.bench.sets import SETS, Case, check_names, check_not_empty, load_items, select_names
from jbid.bench.tables import mean
from jbid.data.levin import Item
from jbid.data.synthetic import synthesize
from jbid.pipeline.config import Config
from jbid.runtime.environment import versions_and_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = 5
# the image network alone, with the kernel known to be a delta
BASELINE = "dip"
COLUMNS = ("psnr", "ssim", "vif", "lpips", "kernel_similarity", "psnr_network", "seconds")
Row = Mapping[str, Any]


class ConditionCase(NamedTuple):
    """Case of a method under a condition.

    Attributes:
        method: name, or "dip".
        condition: "level 3" or "gaussian:0.05".
        case: image and run.
    """

    method: str
    condition: str
    case: Case


def level_size(kernel: Sequence[int], image: Sequence[int], level: int) -> int:
    """Odd kernel size of a level of overspecification: 1 is the true size, LEVELS half the image, linear in between.

    Args:
        kernel: sides of the true kernel.
        image: sides of the image, of which the shorter one counts.
        level: 1 to LEVELS.
    """
    true, half = max(kernel), min(image) / 2
    return round((true + (half - true) * (level - 1) / (LEVELS - 1) - 1) / 2) * 2 + 1


def run(config: ConditionsConfig) -> int:
    """Compare methods under all conditions and write the report with a plot.

    Returns:
        Exit code: 0, or 130 if Ctrl-C stopped the run.

    Raises:
        ValueError: for options out of range, missing data, and results of other settings when resuming.
    """
    _check(config)
    scoring = make_scoring(config)
    image_set = SETS[config.set_name]
    items = load_items(image_set, config.data, select_names(image_set, only=config.only, limit=config.limit))
    configs = {method: _resolve(config, method) for method in config.methods}
    condition_cases = make_cases(config, items, configs)
    cases = [entry.case for entry in condition_cases]
    out = report_path(config.out, f"{config.name}_{config.set_name}.json")
    check_report(out, {method: own._asdict() for method, own in configs.items()}, config, is_keyed=True)
    rows, is_complete = run_cases(cases, out, config, scoring)
    by_name = {row["name"]: row for row in rows}
    labeled = [
        {"method": entry.method, "condition": entry.condition, **by_name[entry.case.item.name]}
        for entry in condition_cases
        if entry.case.item.name in by_name
    ]
    if labeled and jax.process_index() == 0:
        strips = make_strips([case.item for case in cases], labeled, out.parent / out.stem)
        _write_report(labeled, config, configs, scoring, strips, out)
    return finish_run(is_complete, out)


def _check(config: ConditionsConfig) -> None:
    config.reject_fixed({"method": "methods"})
    check_names(methods=(config.methods, (*methods.names(), BASELINE)))
    if isinstance(config, OversizeConfig):
        check_not_empty(levels=config.levels)
        if not all(1 <= level <= LEVELS for level in config.levels):
            raise ValueError(f"`levels` must be numbers from 1 to {LEVELS}, got {', '.join(map(str, config.levels))}")
    if isinstance(config, NoiseConfig):
        check_not_empty(noises=config.noises)
        if config.kernel_size is not None and config.size_level is not None:
            raise ValueError("`size_level` does not go together with `kernel_size`. Set one of them.")
    if BASELINE in config.methods and config.name != "noise-only":
        raise ValueError(f"`methods`: {BASELINE} is a baseline of noise-only, where there is no blur")


def _resolve(config: ConditionsConfig, method: str) -> Config:
    return config.resolve(method="robust" if method == BASELINE else method)


def make_cases(config: ConditionsConfig, items: Sequence[Item], configs: Mapping[str, Config]) -> list[ConditionCase]:
    """Cases of all images, conditions and methods; a synthesized image is the same for all methods."""
    # one seed of the noise for all methods
    seed = next(iter(configs.values())).seed
    # the smallest part that a method sees bounds the kernel size of all methods
    patch = min((own.patch for own in configs.values() if own.patch), default=None)
    cases = []
    for item in items:
        assert item.kernel is not None
        for label, level, blurred in _synthesize(config, item, seed):
            for method, own in configs.items():
                name = f"{item.name}_{method}_{label.replace(' ', '').replace(':', '_')}"
                case = Case(blurred._replace(name=name), own)
                if method == BASELINE:
                    alone = own._replace(kernel_size=1, deconvolve=False, patch=0)
                    case = case._replace(config=alone, kernel=np.ones((1, 1), np.float32))
                elif level is not None:
                    sides = [min(n, patch or n) for n in blurred.blurred.shape[:2]]
                    size = level_size(item.kernel.shape, sides, level)
                    case = case._replace(config=own._replace(kernel_size=size))
                cases.append(ConditionCase(method, label, case))
    return cases


def _synthesize(config: ConditionsConfig, item: Item, seed: int) -> list[tuple[str, int | None, Item]]:
    """Label, level of the kernel size (None: as configured) and synthesized image of each condition."""
    if isinstance(config, OversizeConfig):
        blurred = synthesize(item, config.noise, seed)
        return [(f"level {level}", level, blurred) for level in config.levels]
    assert isinstance(config, NoiseConfig)
    is_blurred = config.name == "noise"
    return [(noise, config.size_level, synthesize(item, noise, seed, blurred=is_blurred)) for noise in config.noises]


def summarize(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Means over the images by condition: of the input, of the true kernel and of each method."""
    means: list[dict[str, Any]] = []
    for condition in dict.fromkeys(row["condition"] for row in rows):
        part = [row for row in rows if row["condition"] == condition]
        blurred = {key: mean(part, f"{key}_blurred") for key in ("psnr", "ssim", "vif", "lpips")}
        means.append({"condition": condition, "method": "input", "images": None, **blurred})
        true_kernel = {"psnr": mean(part, "psnr_true_kernel")}
        means.append({"condition": condition, "method": "deconvolution, true kernel", "images": None, **true_kernel})
        for method in dict.fromkeys(row["method"] for row in part):
            own = [row for row in part if row["method"] == method]
            values = {key: mean(own, key) for key in COLUMNS}
            means.append({"condition": condition, "method": method, "images": len(own), **values})
    return means


def _write_report(
    rows: Sequence[Row],
    config: ConditionsConfig,
    configs: Mapping[str, Config],
    scoring: Scoring,
    strips: Iterable[report.Strip],
    out: Path,
) -> None:
    """Print the means and write the report with its plot."""
    means = summarize(rows)
    keys = ["condition", "method", "images", *(c for c in COLUMNS if any(row.get(c) is not None for row in means))]
    lines = [[row.get(key) for key in keys] for row in means]
    table = report.Table("Means", keys, lines, "The blurred images are synthesized.")
    print(report.to_markdown(table))
    header: dict[str, Any] = {"benchmark": config.name, "set": config.set_name}
    header |= {"protocol": scoring.protocols[0].to_dict(), **versions_and_device()}
    print(f"synthesized images; {report.summarize_header(header)}")
    header |= {"settings": {method: own._asdict() for method, own in configs.items()}}
    header |= {key: getattr(config, key, None) for key in ("noise", "size_level", "kernel_size")}
    plots = []
    if report.is_drawable():
        figure = plot_means(means, config.name)
        report.save_plot(out.with_suffix(".png"), figure)
        print(f"-> {out.with_suffix('.png')}")
        plots = [("By condition", figure)]
    content = {"means": means, "images": list(rows)}
    report.write_report(out, f"{config.name}, {config.set_name}", header, content, [table], plots, strips)


def plot_means(means: Sequence[Row], title: str) -> Figure:
    """PSNR, SSIM and VIF by condition, one line for each method and kind of condition; dashed: input."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    conditions = list(dict.fromkeys(row["condition"] for row in means))
    for axis, key in zip(figure.subplots(1, 3), ("psnr", "ssim", "vif")):
        # one color per method in all panels, also if another method has no value there
        for i, method in enumerate(dict.fromkeys(row["method"] for row in means)):
            values = {row["condition"]: row.get(key) for row in means if row["method"] == method}
            # rings of several sizes, as values often coincide
            style: dict[str, Any] = {"color": f"C{i}", "marker": "o", "fillstyle": "none", "markersize": 4 + 2 * i}
            if method == "input":
                style = {"color": "black", "marker": "x", "ls": "--"}
            for _, group in itertools.groupby(range(len(conditions)), lambda j: conditions[j].rpartition(":")[0]):
                x = [j for j in group if values.get(conditions[j]) is not None]
                axis.plot(x, [values[conditions[j]] for j in x], label=method, **style)
        axis.set_xticks(range(len(conditions)), conditions)
        axis.set_title("PSNR, dB" if key == "psnr" else key.upper())
        axis.tick_params(axis="x", rotation=20)
        axis.grid(alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    by_label = dict(zip(labels, handles))
    figure.axes[0].legend(by_label.values(), by_label, fontsize=8)
    figure.suptitle(title)
    return figure
