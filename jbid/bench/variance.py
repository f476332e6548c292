"""Benchmark of the variance over random seeds: PSNR, loss and kernels for each initial kernel, method and image."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jbid import methods
from jbid.bench.cells import Cell, CellFiles, run_cell
from jbid.bench.estimates import run_samples
from jbid.bench.options import INITS, VarianceConfig
from jbid.bench.protocols import Protocol, get_protocol
from jbid.bench.runner import check_report, check_rows, finish_run, report_path
from jbid.bench.sets import SETS, SMALLEST_CROP, check_names, load_items, select_names
from jbid.bench.tensorboard import EventLog, event_log
from jbid.bench.variance_report import write_variance_report
from jbid.data.levin import Item
from jbid.data.synthetic import crop_center_square
from jbid.engine.checkpoint import Checkpoint
from jbid.engine.driver import RunContext
from jbid.io.files import make_folder
from jbid.pipeline.config import Config
from jbid.runtime.compile import clear_programs
from jbid.runtime.console import Interrupt, interruptible, report_smaller_batch, step_bar
from jbid.runtime.distributed import local_share, wait_for_all

SEEDS = 32  # of each cell, without another number
# initial kernel of `Config` for those that only this benchmark has
CONFIG_INITS = {"average": "uniform", "perturbed": "learned"}


def run(config: VarianceConfig) -> int:
    """Run many seeds of each initial kernel, method and image, and write the report.

    Returns:
        Exit code: 0, or 130 if Ctrl-C stopped the run.

    Raises:
        ValueError: for options out of range, missing data, and results of other settings when resuming.
    """
    protocol = get_protocol(config.protocol, config.maxshift)
    cells = make_cells(config)
    out = report_path(config.out, f"variance_{config.set_name}.json")
    settings = {f"{cell.config.method}, {cell.init}": cell.config._asdict() for cell in cells}
    check_report(out, settings, config, is_keyed=True)
    files = CellFiles(make_folder(out.parent / out.stem))
    check_rows({files.row_path(cell): cell.identity() for cell in cells}, config)
    own = local_share(cells)
    rows: dict[str, dict[str, Any]] = {}
    with (
        interruptible() as interrupt,
        event_log(config.tensorboard) as events,
        tqdm(total=len(own), desc=out.stem, unit="cell", dynamic_ncols=True) as bar,
    ):
        for cell in own:
            row = files.read(cell, protocol) if config.resume else None
            if row is None and not interrupt.is_set():
                row = _run_and_save(cell, files, protocol, config, interrupt, events)
            if row:
                rows[cell.name] = row
                for seed in row["seeds"]:
                    events.add_row(cell.name, seed["seed"], seed)
                bar.update()
    if jax.process_count() > 1:
        wait_for_all("rows")
        rows = {cell.name: row for cell in cells if (row := files.read(cell, protocol))}
    ordered = [rows[cell.name] for cell in cells if cell.name in rows]
    if ordered and jax.process_index() == 0:
        write_variance_report(ordered, files, settings, protocol, config, out)
    return finish_run(len(ordered) == len(cells), out)


def _run_and_save(
    cell: Cell, files: CellFiles, protocol: Protocol, config: VarianceConfig, interrupt: Interrupt, events: EventLog
) -> dict[str, Any] | None:
    """Row of a cell, with its files written; None after an interrupt."""
    if not cell.config.is_optimized:
        result = run_samples(cell, protocol, interrupt.is_set)
        if result is None:
            return None
        files.write(cell, *result[:2])
        return result[0]
    clear_programs()
    folder = files.checkpoint_path(cell)
    if not config.resume:
        shutil.rmtree(folder, ignore_errors=True)
    checkpoint = Checkpoint(folder, seconds=config.checkpoint_every)
    try:
        with step_bar(cell.name, cell.config.steps) as on_progress:
            context = RunContext(
                memory=config.memory,
                checkpoint=checkpoint,
                on_progress=on_progress,
                on_smaller_batch=report_smaller_batch(cell.name),
                is_cancelled=interrupt.is_set,
            )
            result = run_cell(cell, protocol, context)
    finally:
        checkpoint.close()
    if result is None:
        return None
    row, kernels, losses = result
    events.add_losses(cell.name, losses)
    files.write(cell, row, kernels)
    shutil.rmtree(folder, ignore_errors=True)
    return row


def make_cells(config: VarianceConfig) -> list[Cell]:
    """Cells of all methods, initial kernels and images.

    Raises:
        ValueError: for options out of range and missing data.
    """
    config.reject_fixed({"method": "methods", "init": "inits", "deconvolve": ""})
    check_names(inits=(config.inits, INITS), methods=(config.methods, methods.names()))
    if not 0 <= config.perturb <= 1:
        raise ValueError(f"`perturb` must be a share from 0 to 1, got {config.perturb}")
    items = _load(config)
    cells = []
    for method in config.methods:
        # the seeds of an estimate are its samples, whatever the initial kernels of the others
        inits = config.inits if methods.get(method).build else ("edges",)
        for init in inits:
            cell_config = _resolve(config, method, init)
            cells += [Cell(item, init, cell_config, config.perturb) for item in items]
    return cells


def _resolve(config: VarianceConfig, method: str, init: str) -> Config:
    if methods.get(method).build is None:
        given = [values["n_seeds"] for _, values in config.sources() if "n_seeds" in values]
        return config.resolve(method=method, init=init, n_seeds=1)._replace(n_seeds=given[-1] if given else SEEDS)
    resolved = config.resolve(defaults={"n_seeds": SEEDS}, method=method, init=CONFIG_INITS.get(init, init))
    if init == "average" and "kernel_hold" in resolved.options:
        # an average is no estimate to be kept
        resolved = resolved._replace(options={**resolved.options, "kernel_hold": 0})
    return resolved


def _load(config: VarianceConfig) -> Sequence[Item]:
    """Images of the benchmark, by default the first one, cropped."""
    image_set = SETS[config.set_name]
    limit = 1 if config.limit is None and not config.only and not config.subset else config.limit
    names = select_names(image_set, only=config.only, limit=limit, subset=config.subset)
    items = load_items(image_set, config.data, names)
    crop = config.crop
    if crop is None:
        return items
    largest = min(min(item.blurred.shape[:2]) for item in items)
    if not SMALLEST_CROP <= crop <= largest:
        raise ValueError(f"`crop` must be {SMALLEST_CROP} to {largest} pixels, the shorter side, got {crop}")
    return [
        item._replace(
            blurred=crop_center_square(item.blurred, crop), sharp=crop_center_square(np.asarray(item.sharp), crop)
        )
        for item in items
    ]
