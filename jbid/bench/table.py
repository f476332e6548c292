"""Benchmarks on sets of blurred images with ground truth: `levin`, `lai` and `synthetic`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from jbid.bench.options import SyntheticConfig, TableConfig
from jbid.bench.results import image_path, make_strip, make_strips, score_files
from jbid.bench.runner import check_report, finish_run, report_path, run_cases
from jbid.bench.scoring import Scoring, make_scoring
from jbid.bench.sets import SETS, Case, ImageSet, load_items, make_synthetic_set, select_names
from jbid.bench.tables import write_set_report
from jbid.bench.tensorboard import event_log
from jbid.data.levin import Item
from jbid.data.synthetic import Synthetic
from jbid.pipeline.config import Config
from jbid.runtime.distributed import wait_for_all
from jbid.runtime.environment import versions_and_device


def run(config: TableConfig) -> int:
    """Restore and score the images of a set, or score existing results, and write the report.

    Returns:
        Exit code: 0, or 130 if Ctrl-C stopped the run.

    Raises:
        ValueError: for options out of range, missing data, and results of other settings when resuming.
    """
    # for large images that were restored elsewhere the full scores would take minutes
    scoring = make_scoring(config, is_full=not (config.score and config.set_name == "lai"))
    image_set = get_set(config)
    names = select_names(image_set, only=config.only, limit=config.limit, subset=config.subset)
    items = load_items(image_set, config.data, names, config.scale)
    header = _make_header(config, image_set, scoring)
    if config.score:
        return _score_folder(config, config.score, image_set, items, header, scoring)
    is_published = config.kernel_size == "published"
    run_config = config.resolve(kernel_size="auto") if is_published else config.resolve()
    out = report_path(config.out, f"{config.set_name}_{name_run(run_config)}.json")
    settings = run_config._asdict() | ({"kernel_size": "published"} if is_published else {})
    header["settings"] = settings
    check_report(out, settings, config)
    cases = [
        Case(item, run_config._replace(kernel_size=item.kernel_size) if is_published else run_config) for item in items
    ]
    rows, is_complete = run_cases(cases, out, config, scoring)
    if rows and jax.process_index() == 0:
        title = config.set_name, label_run(run_config, config.scale)
        folder = out.parent / out.stem
        write_set_report(out, title, image_set, rows, header, scoring, lambda: make_strips(items, rows, folder))
    return finish_run(is_complete, out)


def get_set(config: TableConfig) -> ImageSet:
    """The image set of a configuration.

    Raises:
        ValueError: for an unknown name.
    """
    if isinstance(config, SyntheticConfig):
        return make_synthetic_set(config)
    if config.set_name not in SETS:
        raise ValueError(f"`set_name` must be one of {', '.join(SETS)}, got {config.set_name!r}")
    return SETS[config.set_name]


def name_run(config: Config) -> str:
    """Method and preset for a file name; a method without an optimization has no presets."""
    return f"{config.method}_{config.preset}" if config.is_optimized else config.method


def label_run(config: Config, scale: float = 1.0) -> str:
    """Method, preset, seeds and scale for a report."""
    label = f"jbid {config.method}"
    if config.is_optimized:
        last = f" to {config.seed + config.n_seeds - 1}" if config.n_seeds > 1 else ""
        label += f", {config.preset}, seed {config.seed}{last}"
    return label + (f", scale {scale:g}" if scale != 1 else "")


def _make_header(config: TableConfig, image_set: ImageSet, scoring: Scoring) -> dict[str, Any]:
    first, *others = scoring.protocols
    header: dict[str, Any] = {"benchmark": config.set_name, "protocol": first.to_dict(), "scale": config.scale}
    header |= {"other protocols": [protocol.name for protocol in others], **versions_and_device()}
    if isinstance(image_set, Synthetic):
        header["data"] = {**image_set._asdict(), "folder": image_set.folder.name}
    return header


def _score_folder(
    config: TableConfig,
    folder: Path,
    image_set: ImageSet,
    items: Sequence[Item],
    header: dict[str, Any],
    scoring: Scoring,
) -> int:
    """Score existing results and write the report."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder. `score` must hold results, <name>_x.png or <name>.png.")
    missing = [item.name for item in items if not image_path(folder, item.name).is_file()]
    if missing:
        raise ValueError(
            f"{folder}: {len(missing)} results are missing, the first is {missing[0]}_x.png. Set `limit` or `only`."
        )
    out = report_path(config.out, "") if config.out else None
    if jax.process_index() > 0:
        # one process scores everything, as that takes minutes
        wait_for_all("report")
        return 0
    rows: list[dict[str, Any]] = []
    with event_log(config.tensorboard) as events:
        for i, item in enumerate(tqdm(items, desc="scoring", unit="image")):
            rows.append({"name": item.name, **score_files(item, folder, scoring)})
            if config.tensorboard:
                events.add_row("images", i, rows[-1], make_strip(item, rows[-1], folder).panels)
    header["scored"] = folder.name
    title = config.set_name, folder.name
    write_set_report(out, title, image_set, rows, header, scoring, lambda: make_strips(items, rows, folder))
    wait_for_all("report")
    return 0
