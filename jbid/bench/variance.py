"""How much the result depends on the initialization: many seeds of each start, method and image in one launch."""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jbid.bench import report
from jbid.bench.protocols import Protocol, protocol
from jbid.bench.table import SETS, facts, finished, loaded
from jbid.bench.tensorboard import Board, board
from jbid.cli.main import settings_from
from jbid.data.levin import Item
from jbid.data.synthetic import MIXED, crop_center_square
from jbid.deconvolution.tiled import deconvolve_tiled
from jbid.engine.checkpoint import Checkpoint
from jbid.io.files import atomic_write, make_folder, read_json, write_json
from jbid.kernel_estimation.ranking import NO_TERMS, ScoreTerms, latent_images, rank_candidates
from jbid.metrics import kernel_similarity, pairwise_similarity
from jbid.ops import motion
from jbid.ops.color import luma
from jbid.ops.kernels import place_kernel
from jbid.pipeline.config import Config, parse_assignment, read_config
from jbid.pipeline.prepare import InitialKernel, PreparedImage, prepare
from jbid.pipeline.resume import identity
from jbid.pipeline.solve import optimize
from jbid.runtime.console import interruptible, progress_bar, report_smaller_batch
from jbid.runtime.distributed import local_share, wait_for_all
from jbid.runtime.environment import versions_and_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SEEDS = 32  # of each start, unless told otherwise
FAILED = 3.0  # error ratio from which on a restoration counts as failed, Levin et al. 2009
SAMPLES = 300  # random sets of seeds that a regret is the mean of


class Cell(NamedTuple):
    """One launch: an image, a method, a start, all seeds."""

    item: Item
    start: str
    settings: Config
    perturb: float

    @property
    def name(self) -> str:
        return f"{self.item.name}_{self.settings.method}_{self.start}"

    @property
    def identity(self) -> str:
        told = f"{self.start} {self.perturb if self.start == 'perturbed' else ''}"
        return identity(self.settings, self.item.blurred, np.frombuffer(told.encode(), np.uint8))


def starting_kernels(cell: Cell, task: PreparedImage) -> tuple[InitialKernel, ...]:
    """The kernels that the seeds set out from: one for all, or with "perturbed" one for each; none where random.

    average: the mean of 1,000 simulated kernels. perturbed: the encoder's, mixed with a simulated kernel that is
    another one for each seed, of which it has the share `cell.perturb`.
    """
    side = max(task.kernel_shape)
    if cell.start == "random":
        return ()
    if cell.start == "average":
        mean = np.asarray(motion.mixed_kernels(jax.random.key(0), side, 1000, MIXED)).mean(0)
        return (InitialKernel("average", place_kernel(mean, task.kernel_shape)),)
    found = {start.name: start for start in task.starts}
    if cell.start != "perturbed":
        return (found[cell.start],)
    settings = cell.settings
    own = [
        motion.mixed_kernels(jax.random.fold_in(jax.random.key(settings.seed + s), 1), side, 1, MIXED)[0]
        for s in range(settings.seeds)
    ]
    known = found["encoder"].kernel
    return tuple(
        InitialKernel(
            f"perturbed {s}", (1 - cell.perturb) * known + cell.perturb * place_kernel(np.asarray(k), task.kernel_shape)
        )
        for s, k in enumerate(own)
    )


def run_cell(
    cell: Cell, by: Protocol, checkpoint: Checkpoint, asked: list[bool], memory: int | None, events: Board
) -> tuple[dict[str, Any], NDArray[np.float32]] | None:
    """The cell's row, with an entry for each seed, and the seeds' kernels; None where it was stopped."""
    item, settings = cell.item, cell.settings
    assert item.sharp is not None and item.kernel is not None
    needed = {"random": "edges", "average": "edges", "perturbed": "encoder"}.get(cell.start, cell.start)
    task = prepare(item.blurred, settings._replace(start=needed))
    task = task._replace(starts=starting_kernels(cell, task))

    with progress_bar(cell.name, settings.steps, asked) as on_chunk:
        options: dict[str, Any] = {"memory": memory, "on_chunk": on_chunk, "on_fewer": report_smaller_batch(cell.name)}
        result = optimize([task], settings, checkpoint=checkpoint, **options)
    if not result.complete:
        return None
    events.losses(cell.name, result.losses[:, 0])
    kernels, networks = (np.asarray(x)[0] for x in (result.restored.kernel, result.restored.image))
    gray = luma(task.observed)[..., 0]
    sound = np.where(np.isfinite(kernels), kernels, 0)
    names = [f"seed {settings.seed + s}" for s in range(settings.seeds)]
    shown = [luma(x)[..., 0] for x in networks]
    judged = rank_candidates(gray, latent_images(gray, list(sound)), kernels, names, shown)

    picture = item.blurred if by.color else luma(item.blurred)
    known = by.score(deconvolve_tiled(picture, item.kernel), item.sharp)
    seeds = []
    whole = task.observed.shape[:2] == item.sharp.shape[:2]
    for s, (candidate, kernel) in enumerate(zip(judged, kernels)):
        finite = bool(np.isfinite(kernel).all())
        best = by.score(np.round((deconvolve_tiled(picture, kernel) if finite else picture) * 255) / 255, item.sharp)
        told: dict[str, Any] = {"seed": settings.seed + s, "psnr": best.psnr, "ssim": best.ssim}
        if whole and np.isfinite(networks[s]).all():
            own = by.score(np.round(networks[s] * 255) / 255, item.sharp)
            told |= {"psnr_network": own.psnr, "ssim_network": own.ssim}
        ratio = best.squared_error / known.squared_error
        loss = float(result.losses[-1, 0, s])
        told |= {"error_ratio": ratio, "failed": bool(ratio > FAILED or not finite)}
        told |= {
            "kernel_similarity": kernel_similarity(sound[s], item.kernel),
            "loss": loss if np.isfinite(loss) else None,
        }
        told |= {"score": candidate.terms.score, "terms": candidate.terms._asdict(), "refused": candidate.failure}
        seeds.append(told | {"stopped": int(result.stopped[0, s])})
    row: dict[str, Any] = {"name": cell.name, "image": item.name, "method": settings.method, "start": cell.start}
    row |= {"kernel_size": max(task.kernel_shape), "steps": settings.steps, "psnr_true_kernel": known.psnr}
    row |= {
        "psnr_blurred": by.score(item.blurred, item.sharp).psnr,
        "identity": cell.identity,
        "scoring": by.told(),
    }
    return {**row, "seeds": seeds}, kernels


def choice(row: dict[str, Any], alike: NDArray, rule: str, at: NDArray[np.int64]) -> int:
    """Which of the seeds `at` a rule takes that does not know the truth: "score" (`jbid.score`) or "loss".

    alike: the similarity of all seeds' kernels, for the score's term of agreement among those at hand.
    """

    def rank(i):
        seed = row["seeds"][i]
        if rule == "loss":
            return seed["loss"] is None, seed["loss"] or 0.0
        others = [j for j in at if j != i]
        agreement = float(np.mean(alike[i, others])) if others else 0.0
        terms = ScoreTerms(**seed["terms"]) if seed["refused"] != "not a number" else NO_TERMS
        return seed["refused"] is not None, terms._replace(disagreement=-agreement).score

    return min(at, key=rank)


def agreements(kernels: NDArray) -> NDArray[np.float64]:
    """The similarity of each pair of seeds' kernels (seeds, kh, kw); what is no number is like nothing."""
    return pairwise_similarity(list(np.where(np.isfinite(kernels), kernels, 0)))


def regrets(row: dict[str, Any], alike: NDArray, rule: str, count: int) -> float:
    """PSNR of the best of `count` seeds less that of the one chosen, the mean over random sets of so many seeds."""
    psnr = np.array([seed["psnr"] for seed in row["seeds"]])
    rng = np.random.default_rng(0)
    sets = [rng.choice(len(psnr), count, replace=False) for _ in range(SAMPLES if count < len(psnr) else 1)]
    if rule == "any":
        return float(np.mean([psnr[at].max() - psnr[at].mean() for at in sets]))
    return float(np.mean([psnr[at].max() - psnr[choice(row, alike, rule, at)] for at in sets]))


COLUMNS = [
    "image",
    "method",
    "start",
    "seeds",
    "mean psnr",
    "deviation, dB",
    "worst psnr",
    "median psnr",
    "best psnr",
    "failed",
    "failed, 95 %",
    "agreement",
    "loss to psnr",
    "score to psnr",
    "regret of the score, dB",
    "of the loss, dB",
    "of any, dB",
]


def summary(row: dict[str, Any], alike: NDArray) -> dict[str, Any]:
    """What the seeds of one cell tell: `COLUMNS`."""
    from scipy.stats import binomtest, spearmanr

    seeds = row["seeds"]
    psnr = np.array([seed["psnr"] for seed in seeds])
    count = len(seeds)

    def rank_correlation(key):
        pairs = [(seed[key], seed["psnr"]) for seed in seeds if seed[key] is not None]
        # of equal numbers there is none
        if len(pairs) < 3 or any(len(set(column)) < 3 for column in zip(*pairs)):
            return None
        return float(spearmanr(*zip(*pairs)).statistic)

    failed = sum(seed["failed"] for seed in seeds)
    interval = binomtest(failed, count).proportion_ci(method="wilson")
    values = [row["image"], row["method"], row["start"], count, psnr.mean(), psnr.std(), psnr.min(), np.median(psnr)]
    values += [psnr.max(), failed / count, f"{interval.low:.0%} to {interval.high:.0%}"]
    values += [float((alike.sum() - np.trace(alike)) / (count * (count - 1))) if count > 1 else None]
    values += [rank_correlation("loss"), rank_correlation("score")]
    values += [regrets(row, alike, rule, count) for rule in ("score", "loss", "any")]
    return dict(zip(COLUMNS, (v.item() if isinstance(v, np.generic) else v for v in values)))


def _cells(args: argparse.Namespace) -> list[Cell]:
    given = dict(parse_assignment(text) for text in args.set) | (read_config(args.config) if args.config else {})
    for name in ("method", "start"):
        if value := getattr(args, name) or given.get(name):
            raise ValueError(f"got {name} {value}: variance compares, give --{name}s in its place")
    if args.finish is not None or "finish" in given:
        raise ValueError("variance scores the deconvolution and the network's own image both: leave out finish")
    if not 0 <= args.perturb <= 1:
        raise ValueError(f"got --perturb {args.perturb}, expected a share from 0 to 1")
    if args.limit is None and not args.only:
        args.limit = 1
    items = loaded(args, SETS[args.set_name])
    if args.crop is not None:
        least = min(min(item.blurred.shape[:2]) for item in items)
        if not 64 <= args.crop <= least:
            raise ValueError(f"got --crop {args.crop}, expected 64 to {least} pixels, the shorter side")
        items = [
            item._replace(
                blurred=crop_center_square(item.blurred, args.crop),
                sharp=crop_center_square(np.asarray(item.sharp), args.crop),
            )
            for item in items
        ]
    cells = []
    for method, start in itertools.product(args.methods, args.starts):
        word = {"average": "uniform", "perturbed": "encoder"}.get(start, start)
        chosen = argparse.Namespace(**vars(args) | {"method": method, "start": word})
        settings = settings_from(chosen, [("variance", {"seeds": SEEDS})])
        if not settings.steps:
            raise ValueError("the preset instant has no seeds; use --preset quick")
        if start == "average" and "kernel_hold" in settings.options:
            # it is no estimate to hold on to
            settings = settings._replace(options={**settings.options, "kernel_hold": 0})
        cells += [Cell(item, start, settings, args.perturb) for item in items]
    return cells


def main(args: argparse.Namespace) -> int:
    """`python -m jbid.bench variance`."""
    by = protocol(args.protocol, args.maxshift)
    cells = _cells(args)
    out = args.out or Path(f"variance_{args.set_name}.json")
    folder = make_folder(out.parent / out.stem)
    rows: dict[str, dict[str, Any]] = {}

    def kept(cell):
        row = read_json(folder / f"{cell.name}.json")
        same = row.get("identity") == cell.identity and row.get("scoring") == by.told()
        return row if same and (folder / f"{cell.name}.npz").is_file() else None

    mine = local_share(cells)
    with (
        interruptible() as asked,
        board(args.tensorboard) as events,
        tqdm(total=len(mine), desc=out.stem, unit="launch", dynamic_ncols=True) as bar,
    ):
        for cell in mine:
            row = kept(cell) if args.resume else None
            if row is None and not asked:
                mark = hashlib.sha256(cell.name.encode() + cell.identity.encode()).hexdigest()[:16]
                place = folder / ".jbid" / mark
                if not args.resume:
                    shutil.rmtree(place, ignore_errors=True)
                checkpoint = Checkpoint(place, seconds=args.checkpoint_every)
                made = run_cell(cell, by, checkpoint, asked, args.memory, events)
                if made:
                    row, kernels = made
                    with atomic_write(folder / f"{cell.name}.npz") as temporary:
                        np.savez_compressed(temporary, kernels=kernels)
                    write_json(folder / f"{cell.name}.json", row)
                    shutil.rmtree(place, ignore_errors=True)
            if row:
                rows[cell.name] = row
                for told in row["seeds"]:
                    events.row(cell.name, told["seed"], told)
                bar.update()
    if jax.process_count() > 1:
        wait_for_all("rows")
        rows = {cell.name: row for cell in cells if (row := kept(cell))}
    found = [rows[cell.name] for cell in cells if cell.name in rows]
    if found and jax.process_index() == 0:
        _report(found, folder, cells, by, args, out)
    return finished(len(found) == len(cells), out)


def _report(
    rows: list[dict[str, Any]], folder: Path, cells: Sequence[Cell], by: Protocol, args: argparse.Namespace, out: Path
) -> None:
    kernels = {row["name"]: np.load(folder / f"{row['name']}.npz")["kernels"] for row in rows}
    alike = {name: agreements(each) for name, each in kernels.items()}
    summaries = [summary(row, alike[row["name"]]) for row in rows]
    note = (
        "PSNR of `finish` with each seed's kernel. failed: share of seeds with an error ratio above "
        f"{FAILED:g} (Levin et al. 2009). agreement: mean similarity of two seeds' kernels. loss, score to psnr: rank "
        "correlation over seeds. regret: the best seed's PSNR less that of the one chosen without the truth by the "
        "score, by the last loss, or at random."
    )
    table = report.Table("Seeds", COLUMNS, [[one[c] for c in COLUMNS] for one in summaries], note)
    print(report.markdown(table))
    header = {
        "benchmark": "variance",
        "set": args.set_name,
        "protocol": by.told(),
        **versions_and_device(),
    }
    print(facts(header))
    header |= {"settings": {f"{c.settings.method}, {c.start}": c.settings._asdict() for c in cells}}
    header |= {"crop": args.crop, "perturb": args.perturb}
    _write_csv(out.with_suffix(".csv"), rows)
    print(f"-> {out.with_suffix('.csv')}")
    plots = []
    if report.drawable():
        plots = [("PSNR of the seeds", _distributions(rows))]
        plots += [("Loss, score and PSNR", _against(rows)), ("Regret of the choice", _regret_plot(rows, alike))]
        for (_, figure), end in zip(plots, ("", "_loss", "_regret")):
            with atomic_write(out.with_name(f"{out.stem}{end}.png")) as temporary:
                figure.savefig(temporary, dpi=110)
    strips = (_strip(row, kernels[row["name"]]) for row in rows)
    content = {"summary": summaries, "launches": rows}
    title = f"Initializations: {cells[0].settings.seeds} seeds, {args.set_name}"
    report.write_report(out, title, header, content, [table], plots, strips)


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One line for each seed, to analyze further."""
    lines = []
    for row in rows:
        shared = {
            key: row[key]
            for key in ("image", "method", "start", "kernel_size", "steps", "psnr_blurred", "psnr_true_kernel")
        }
        for seed in row["seeds"]:
            lines.append(shared | {k: v for k, v in seed.items() if k != "terms"} | seed["terms"])
    names = list(dict.fromkeys(name for line in lines for name in line))
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(lines)


def _strip(row: dict[str, Any], kernels: NDArray, most: int = 12) -> report.Strip:
    """Kernels of a cell from its best to its worst seed."""
    order = sorted(range(len(kernels)), key=lambda s: -row["seeds"][s]["psnr"])
    at = [order[round(i)] for i in np.linspace(0, len(order) - 1, min(most, len(order)))]
    finite = [s for s in at if np.isfinite(kernels[s]).all()]
    panels = [(f"kernel, {row['seeds'][s]['psnr']:.1f} dB", report.kernel_panel(kernels[s])) for s in finite]
    return report.Strip(f"{row['image']}, {row['method']}, {row['start']}", "from the best seed to the worst", panels)


def _panels(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["image"], row["method"]), []).append(row)
    return found


def _distributions(rows: Sequence[dict[str, Any]]) -> Figure:
    """A box and a dot for each seed, by start, for each image and method."""
    from matplotlib.figure import Figure

    panels = _panels(rows)
    columns = min(3, len(panels))
    height = -(-len(panels) // columns)
    figure = Figure(figsize=(1.5 + 4.2 * columns, 3.6 * height), layout="constrained")
    rng = np.random.default_rng(0)
    for axis, ((image, method), mine) in zip(figure.subplots(height, columns, squeeze=False).ravel(), panels.items()):
        values = [[seed["psnr"] for seed in row["seeds"]] for row in mine]
        axis.boxplot(values, showfliers=False, widths=0.6)
        for i, (row, psnr) in enumerate(zip(mine, values)):
            failed = np.array([seed["failed"] for seed in row["seeds"]])
            at = i + 1 + 0.3 * (rng.random(len(psnr)) - 0.5)
            for part, look in ((~failed, "C0"), (failed, "C3")):
                axis.plot(at[part], np.array(psnr)[part], "o", color=look, ms=3, alpha=0.6)
        axis.axhline(mine[0]["psnr_true_kernel"], color="black", lw=0.8, ls="--")
        axis.axhline(mine[0]["psnr_blurred"], color="gray", lw=0.8, ls=":")
        axis.set_xticks(range(1, len(mine) + 1), [row["start"] for row in mine])
        axis.set_title(f"{image}, {method}", fontsize=9)
        axis.set_ylabel("PSNR, dB")
    figure.suptitle("red: failed; dashed: true kernel; dotted: blurred", fontsize=9)
    return figure


def _against(rows: Sequence[dict[str, Any]]) -> Figure:
    """PSNR against the last loss and against the score of the choice."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    for axis, key in zip(figure.subplots(1, 2), ("loss", "score")):
        for i, row in enumerate(rows):
            pairs = [(seed[key], seed["psnr"]) for seed in row["seeds"] if seed[key] is not None]
            label = f"{row['image']}, {row['method']}, {row['start']}"
            axis.plot(*zip(*pairs), "o", ms=3, alpha=0.6, color=f"C{i % 10}", label=label)
        axis.set_xlabel(f"{key} (lower is better)")
        axis.set_ylabel("PSNR, dB")
        axis.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=7)
    return figure


def _regret_plot(rows: Sequence[dict[str, Any]], alike: dict[str, NDArray]) -> Figure:
    """Mean regret over launches by how many seeds there are to choose from, for each rule; and the best there is."""
    from matplotlib.figure import Figure

    most = min(len(row["seeds"]) for row in rows)
    counts = [n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256) if n < most] + [most]
    figure = Figure(figsize=(5.5 * len({r["start"] for r in rows}) ** 0.5 + 3, 3.8), layout="constrained")
    starts = list(dict.fromkeys(row["start"] for row in rows))
    for axis, start in zip(figure.subplots(1, len(starts), squeeze=False, sharey=True)[0], starts):
        mine = [row for row in rows if row["start"] == start]
        for rule, label in (("score", "by score"), ("loss", "by loss"), ("any", "at random")):
            axis.plot(
                counts,
                [np.mean([regrets(r, alike[r["name"]], rule, n) for r in mine]) for n in counts],
                "o-",
                label=label,
            )
        axis.set_xscale("log", base=2)
        axis.set_xticks(counts, [str(n) for n in counts])
        axis.set_xlabel("seeds to choose from")
        axis.set_title(start, fontsize=9)
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("regret, dB")
    figure.axes[0].legend(fontsize=8)
    return figure
