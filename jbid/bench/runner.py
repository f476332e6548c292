"""Run of the cases of a benchmark: rows, resuming, batches and processes."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from jbid.bench.options import BatchOptions, RunOptions
from jbid.bench.results import kernel_path, make_strip, score_files
from jbid.bench.scoring import Scorer
from jbid.bench.sets import Case
from jbid.bench.tensorboard import EventLog, event_log
from jbid.data.levin import Item
from jbid.io.files import make_folder, read_json, write_json
from jbid.io.images import write_image, write_kernel
from jbid.ops.kernels import support
from jbid.pipeline.grouping import batches, group_by, padded_shapes
from jbid.pipeline.launch import launch
from jbid.pipeline.prepare import check_deconvolve, prepare
from jbid.pipeline.restoration import Restoration
from jbid.pipeline.resume import fingerprint, read_resumable
from jbid.runtime.commandline import INTERRUPTED
from jbid.runtime.compile import clear_programs
from jbid.runtime.console import Interrupt, interruptible
from jbid.runtime.distributed import local_share, wait_for_all

Row = dict[str, Any]

# entries of a row that do not depend on the scoring
UNSCORED = (
    *("name", "kernel_size", "support_init", "support", "support_true"),
    *("seconds", "chosen", "confidence", "stopped", "padded_shape", "identity", "candidates"),
)
GPU_BATCH = 4  # images per device, without another number


def report_path(out: Path | None, default: str) -> Path:
    """Path of the report, `default` if there is none.

    Raises:
        ValueError: for another suffix than .json, since the images go to a folder named without it.
    """
    path = out or Path(default)
    if path.suffix != ".json":
        raise ValueError(f"`out` must be a name that ends in .json, got {path}")
    return path


def check_report(out: Path, settings: Mapping[str, Any], options: RunOptions, *, is_keyed: bool = False) -> None:
    """Refuse to resume a run whose report has other settings, unless it may be overwritten.

    Args:
        out: path of the report.
        settings: of this run, as in the report.
        options: `resume` and `overwrite`.
        is_keyed: the settings are those of several runs, of which only those in both reports are compared.

    Raises:
        ValueError: for other settings.
    """
    if is_keyed:
        earlier = read_json(out).get("settings", {})
        settings = {key: settings.get(key, value) for key, value in earlier.items()}
    read_resumable(out, settings, resume=options.resume, overwrite=options.overwrite)


def check_rows(identities: Mapping[Path, str], options: RunOptions) -> None:
    """Refuse to resume a run whose rows have other settings, unless they may be overwritten.

    Args:
        identities: fingerprint of each row's run, by the row's file.
        options: `resume` and `overwrite`.

    Raises:
        ValueError: for a row of another run.
    """
    if not options.resume or options.overwrite:
        return
    for path, identity in identities.items():
        row = read_json(path)
        if row and row.get("identity") != identity:
            raise ValueError(
                f"{path}: belongs to a run with other settings, images or weights. Set `overwrite` to replace it, or "
                "another `out`."
            )


def finish_run(is_complete: bool, out: Path) -> int:
    """Wait for all processes, remove the checkpoints of a complete run and return the exit code."""
    # a process that leaves ends the run of the others
    wait_for_all("report")
    if not is_complete:
        return INTERRUPTED
    if jax.process_index() == 0:
        shutil.rmtree(out.parent / out.stem / ".jbid", ignore_errors=True)
    return 0


def run_cases(cases: Sequence[Case], out: Path, options: BatchOptions, scorer: Scorer) -> tuple[list[Row], bool]:
    """Restore and score all cases.

    Each result is written to a folder beside `out` at once. When resuming, rows of the same run are kept, and scored
    again if the scoring differs. Each of several processes does its share and reads the rows of the others at the end.

    Args:
        cases: with unique names.
        out: path of the report.
        options: of the benchmark.
        scorer: makes the scores.

    Returns:
        A row for each case that is done, in order, and True if all are.

    Raises:
        ValueError: for configurations that do not go with an image, and rows of another run when resuming.
    """
    folder = make_folder(out.parent / out.stem)
    for case in cases:
        check_deconvolve(case.config, case.item.blurred.shape)
    identities = {case.item.name: case.identity() for case in cases}
    check_rows({_row_path(folder, name): identity for name, identity in identities.items()}, options)
    own = local_share(_order_cases(cases))
    with (
        interruptible() as interrupt,
        event_log(options.tensorboard) as events,
        tqdm(total=len(own), desc=out.stem, unit="image", dynamic_ncols=True) as bar,
    ):
        indices = {case.item.name: i for i, case in enumerate(cases)}
        runner = _Runner(folder, options, scorer, identities, indices, interrupt, events, bar)
        rows = runner.run(own)
    if jax.process_count() > 1:
        wait_for_all("rows")
        for name, identity in identities.items():
            row = read_json(_row_path(folder, name))
            if row.get("identity") == identity and row.get("scoring") == scorer.to_dict():
                rows[name] = row
    ordered = [rows[case.item.name] for case in cases if case.item.name in rows]
    return ordered, len(ordered) == len(cases)


def _row_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _order_cases(cases: Sequence[Case]) -> list[Case]:
    """Cases with their padded shapes, those that can share a program beside each other, large ones first."""
    ordered: list[Case] = []
    for group in group_by(cases, Case.batch_key):
        shapes = padded_shapes([case.item.blurred.shape for case in group], group[0].config)
        ordered += [case._replace(padded_shape=shapes[case.item.blurred.shape[:2]]) for case in group]
    return sorted(ordered, key=lambda case: (case.padded_shape, case.batch_key()), reverse=True)


class _Runner(NamedTuple):
    """Run of one process's cases.

    Attributes:
        folder: of the results.
        options: of the benchmark.
        scorer: makes the scores.
        identities: fingerprint of each case, by its name.
        indices: place of each case in the table, by its name.
        interrupt: stops the run.
        events: TensorBoard's.
        bar: counts the images.
    """

    folder: Path
    options: BatchOptions
    scorer: Scorer
    identities: Mapping[str, str]
    indices: Mapping[str, int]
    interrupt: Interrupt
    events: EventLog
    bar: tqdm

    def run(self, cases: Sequence[Case]) -> dict[str, Row]:
        """Rows by name; some are missing after an interrupt."""
        rows = {}
        remaining = []
        for case in cases:
            row = self.resume(case)
            if row:
                rows[case.item.name] = row
                self.report(case.item, row)
            else:
                remaining.append(case)
        default = (1 if jax.default_backend() == "cpu" else GPU_BATCH) * jax.local_device_count()
        for _, group in itertools.groupby(remaining, Case.batch_key):
            for batch in batches(list(group), self.options.batch or default):
                if self.interrupt.is_set():
                    return rows
                for case, row in self.solve(batch):
                    rows[case.item.name] = row
                    self.report(case.item, row)
                    if "psnr" in row:
                        tqdm.write(f"{row['name']}: {row['psnr']:.2f} dB {row['ssim']:.4f} in {row['seconds']:.1f} s")
        return rows

    def resume(self, case: Case) -> Row | None:
        """Row of an earlier run with the same settings, scored again if need be."""
        path = _row_path(self.folder, case.item.name)
        row = read_json(path) if self.options.resume else {}
        is_same = row.get("identity") == self.identities[case.item.name]
        if not is_same or row.get("padded_shape") != list(case.padded_shape or ()):
            return None
        if row.get("scoring") != self.scorer.to_dict():
            row = {key: row[key] for key in UNSCORED if key in row} | score_files(case.item, self.folder, self.scorer)
            write_json(path, row)
        return row

    def report(self, item: Item, row: Row) -> None:
        """Advance the progress bar and log the row."""
        if self.options.tensorboard:
            self.events.add_row("images", self.indices[item.name], row, make_strip(item, row, self.folder).panels)
        self.bar.update()

    def solve(self, cases: Sequence[Case]) -> Iterator[tuple[Case, Row]]:
        """Restore cases of one padded shape; those of one kernel size run together. Nothing after an interrupt."""
        config = cases[0].config
        prepared = []
        for case in cases:
            clear_programs()
            image = prepare(case.item.blurred, config, kernel=case.kernel)
            prepared.append(image._replace(padded_shape=case.padded_shape or case.item.blurred.shape[:2]))
        for shape in sorted({image.kernel_shape for image in prepared}):
            indices = [i for i, image in enumerate(prepared) if image.kernel_shape == shape]
            names = [cases[i].item.name for i in indices]
            # the checkpoint of a batch with another image must not be used
            batch = fingerprint([self.identities[name] for name in names], cases[0].padded_shape)
            checkpoint = self.folder / ".jbid" / batch
            restorations = launch(
                [prepared[i] for i in indices],
                config,
                name=names[0],
                folder=checkpoint,
                resume=self.options.resume,
                seconds=self.options.checkpoint_every,
                interrupt=self.interrupt,
                memory=self.options.memory,
            )
            if not all(restoration.is_complete for restoration in restorations):
                return
            for i, restoration in zip(indices, restorations):
                yield cases[i], self.write(cases[i].item, restoration)
            shutil.rmtree(checkpoint, ignore_errors=True)

    def write(self, item: Item, restoration: Restoration) -> Row:
        """Write image, kernel and row of a result."""
        write_image(self.folder / f"{item.name}_x.png", restoration.image)
        write_kernel(kernel_path(self.folder, item.name), restoration.kernel)
        row = {"name": item.name, **score_files(item, self.folder, self.scorer), **_sizes(item, restoration)}
        row |= self.scorer.score_candidates(item, restoration)
        row |= self.scorer.score_network(item, restoration.network_image)
        row |= {
            "seconds": restoration.seconds,
            "chosen": restoration.chosen,
            "confidence": restoration.confidence,
            "stopped": [int(n) for n in restoration.stopped],
            "padded_shape": list(restoration.prepared.padded_shape),
            "identity": self.identities[item.name],
            "candidates": [candidate.to_dict() for candidate in restoration.candidates],
        }
        write_json(_row_path(self.folder, item.name), row)
        self.events.add_losses(item.name, restoration.losses)
        return row


def _sizes(item: Item, restoration: Restoration) -> Row:
    """Kernel size, and supports of initial, estimated and true kernel: larger side of values above 5 % of the peak."""

    def extent(kernel):
        return max(side.stop - side.start for side in support(kernel > 0.05 * kernel.max()))

    prepared = restoration.prepared
    return {
        "kernel_size": max(prepared.kernel_shape),
        "support_init": max(prepared.estimate.support) if prepared.estimate else None,
        "support": extent(restoration.kernel),
        "support_true": None if item.kernel is None else extent(item.kernel),
    }
