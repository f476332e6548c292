"""Benchmarks on sets of blurred images with known truth, scored by SelfDeblur's protocol or another one."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from typing import Protocol as TypingProtocol

import jax
import numpy as np
from tqdm import tqdm

from jbid.bench import report
from jbid.bench.protocols import PROTOCOLS, Protocol, protocol
from jbid.bench.published import PUBLISHED
from jbid.bench.tensorboard import Board, board
from jbid.cli.main import INTERRUPTED, settings_from
from jbid.data import lai, levin
from jbid.data.levin import Item, resize_item
from jbid.data.synthetic import Synthetic
from jbid.deconvolution.tiled import deconvolve_tiled
from jbid.io.files import make_folder, read_json, write_json
from jbid.io.images import read_image, read_kernel, write_image, write_kernel
from jbid.metrics import Aligned, kernel_similarity, lpips, vif
from jbid.ops.color import luma
from jbid.ops.kernels import support
from jbid.pipeline.config import Config
from jbid.pipeline.grouping import padded_shapes
from jbid.pipeline.launch import launch
from jbid.pipeline.prepare import PreparedImage, check_deconvolve, prepare
from jbid.pipeline.resume import identity
from jbid.pipeline.solve import Restoration
from jbid.runtime.console import interruptible
from jbid.runtime.distributed import local_share, wait_for_all
from jbid.runtime.environment import versions_and_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure


OTHER_SHIFT = 5  # Levin's own; SelfDeblur's script uses 10


class Scoring(NamedTuple):
    """How results are scored. The first protocol gives psnr and ssim, others psnr_<name> and ssim_<name>.

    full: also what takes a deconvolution with the true kernel and more alignments. lpips: the backbone's weights.
    """

    protocols: tuple[Protocol, ...]
    full: bool = True
    lpips: Path | None = None

    def told(self) -> dict[str, Any]:
        """What a row was scored by, to know it again."""
        return {"protocols": [p.told() for p in self.protocols], "full": self.full, "lpips": self.lpips is not None}

    def row(self, item: Item, image: np.ndarray, kernel: np.ndarray | None) -> dict[str, Any]:
        """The scores of a result."""
        return score(item, image, kernel, self)

    def network(self, item: Item, image: np.ndarray | None) -> dict[str, Any]:
        """The scores of the network's own image, where it shows the whole picture."""
        if image is None or item.sharp is None or image.shape[:2] != item.sharp.shape[:2]:
            return {}
        # luma alone says nothing of the colors that some protocols compare
        if self.protocols[0].color and image.shape[2] != item.sharp.shape[2]:
            return {}
        value = self.protocols[0].score(np.round(image * 255) / 255, item.sharp)
        return {"psnr_network": value.psnr, "ssim_network": value.ssim}


class Scores(TypingProtocol):
    """What a run of cases is told about: `Scoring`, or something that does without the truth."""

    def told(self) -> dict[str, Any]: ...

    def row(self, item: Item, image: np.ndarray, kernel: np.ndarray | None) -> dict[str, Any]: ...

    def network(self, item: Item, image: np.ndarray | None) -> dict[str, Any]: ...


def score(item: Item, image: np.ndarray, kernel: np.ndarray | None, how: Scoring) -> dict[str, Any]:
    """One row of the table for a result (h, w, c) in [0, 1], in color where the protocol looks at color."""
    assert item.sharp is not None and item.kernel is not None
    main, *others = how.protocols
    best = main.score(image, item.sharp)
    row: dict[str, Any] = {"psnr": best.psnr, "ssim": best.ssim}
    for other in others:
        value = other.score(image, item.sharp)
        row |= {f"psnr_{other.name}": value.psnr, f"ssim_{other.name}": value.ssim}
    row |= {"kernel_similarity": None if kernel is None else kernel_similarity(kernel, item.kernel)}
    row["shift"] = best.shift
    return row | (_more(item, image, best, how) if how.full else {})


def _more(item: Item, image: np.ndarray, best: Aligned, how: Scoring) -> dict[str, Any]:
    """What is told of a result beside PSNR and SSIM: of the blurred picture, of the true kernel, VIF, error ratio."""
    assert item.sharp is not None and item.kernel is not None
    main = how.protocols[0]
    # what error ratios are relative to
    known = deconvolve_tiled(item.blurred if main.color else luma(item.blurred), item.kernel)
    known_score = main.score(known, item.sharp)
    blurred = main.score(item.blurred, item.sharp)
    gray = PROTOCOLS["sd_fullrange"]._replace(max_shift=main.max_shift, border=main.border)
    pairs = {"": image, "_blurred": item.blurred}
    shown = {end: gray.score(x, item.sharp).image[..., 0] for end, x in pairs.items()}
    rows, columns = (slice(main.border, n - main.border) for n in item.sharp.shape[:2])
    inner = luma(item.sharp)[rows, columns, 0]
    row: dict[str, Any] = {
        "error_ratio": best.squared_error / known_score.squared_error,
        "psnr_blurred": blurred.psnr,
        "ssim_blurred": blurred.ssim,
        "psnr_true_kernel": known_score.psnr,
    }
    if main.max_shift > OTHER_SHIFT:
        other = main._replace(max_shift=OTHER_SHIFT).score(image, item.sharp)
        row |= {f"psnr_maxshift{OTHER_SHIFT}": other.psnr, f"ssim_maxshift{OTHER_SHIFT}": other.ssim}
    for end, part in shown.items():
        # its coarsest scale needs so many pixels
        row[f"vif{end}"] = vif(part, inner) if min(inner.shape) > 40 else None
        if how.lpips is not None:
            row[f"lpips{end}"] = lpips(part[..., None], inner[..., None], how.lpips)
    return row


def mean(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    """The mean over the rows that have the key; None where none has."""
    values = [row[key] for row in rows if row.get(key) is not None]
    return float(np.mean(values)) if values else None


def grouped(rows: Sequence[dict[str, Any]], groups: Callable[[str], dict[str, str]]) -> dict[str, dict[str, Any]]:
    """By kind of group ("category", "kernel") and group: how many images it has, and their means."""
    found: dict[str, dict[str, Any]] = {}
    for kind in groups(rows[0]["name"]):
        names = sorted({groups(row["name"])[kind] for row in rows})
        parts = {name: [row for row in rows if groups(row["name"])[kind] == name] for name in names} | {
            "all": list(rows)
        }
        found[kind] = {
            name: {"images": len(part), **{key: mean(part, key) for key in _keys(rows)}} for name, part in parts.items()
        }
    return found


def _keys(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The columns of a table that are numbers."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [
        k
        for k in keys
        if all(isinstance(r.get(k), (int, float, type(None))) for r in rows) and mean(rows, k) is not None
    ]


def _pair(psnr: float | None, ssim: float | None) -> str:
    return "" if psnr is None or ssim is None else f"{psnr:.2f} / {ssim:.4f}"


def group_tables(
    name: str, label: str, groups: dict[str, dict[str, Any]], how: Scoring, sizes: dict[str, int]
) -> list[report.Table]:
    """One table for each kind of group, PSNR / SSIM: ours by each protocol, what was blurred, and published rows.

    `sizes` tells how many images of each group the whole set has.
    """
    tables: list[report.Table] = []
    for kind, parts in groups.items():
        columns = list(parts)

        def line(told, by, end, parts=parts, columns=columns):
            return [told, by, *(_pair(parts[c].get(f"psnr{end}"), parts[c].get(f"ssim{end}")) for c in columns)]

        rows = []
        for i, used in enumerate(how.protocols):
            rows.append(line(label, f"{used.name}, maxshift {used.max_shift}", f"_{used.name}" if i else ""))
        own = len(rows)
        if "psnr_blurred" in parts["all"]:
            rows.append(line("the blurred images themselves", f"{how.protocols[0].name}", "_blurred"))
        for row in PUBLISHED.get(name, []):
            # published rows by other groups have nothing to say here; means alone are told once
            if set(row.groups) & set(columns) - {"all"} or (len(row.groups) == 1 and not tables):
                cells = [_pair(*row.groups.get(c, (None, None))) for c in columns]
                rows.append([f"{row.method} ({row.source})", row.protocol, *cells])
        count = ", ".join(f"{c} {parts[c]['images']} of {sizes.get(c, '?')}" for c in columns)
        note = f"PSNR in dB / SSIM, means of images: {count}. Published rows are of the whole set at full size."
        tables.append(report.Table(f"By {kind}", ["", "protocol", *columns], rows, note, frozenset(range(own))))
    return tables


def tell(
    name: str,
    data: ImageSet,
    label: str,
    rows: list[dict[str, Any]],
    header: dict[str, Any],
    how: Scoring,
    out: Path | None,
    strips: Callable[[], Iterator[report.Strip]],
) -> None:
    """Print the means by group and, with `out`, write the report of the images of a set, whose `data` it is."""
    groups = grouped(rows, data.groups)
    sizes: dict[str, int] = {"all": len(data.NAMES)}
    for one in data.NAMES:
        for group in data.groups(one).values():
            sizes[group] = sizes.get(group, 0) + 1
    tables = group_tables(name, label, groups, how, sizes)
    for table in tables:
        print(report.markdown(table))
    worst = min(rows, key=lambda row: row["psnr"])
    print(f"worst: {worst['name']}, {worst['psnr']:.2f} dB; {facts(header)}")
    if out is None:
        return
    keys = _keys(rows)
    columns = ["name", *keys]
    every = report.Table("Images", columns, [[row["name"], *(row.get(k) for k in keys)] for row in rows])
    plots = [("PSNR by group", _plot(rows, data.groups))] if report.drawable() else []
    content = {"mean": {key: mean(rows, key) for key in keys}, "groups": groups, "images": rows}
    report.write_report(out, f"{name}: {label}", header, content, [*tables, every], plots, strips())


def facts(header: dict[str, Any]) -> str:
    """How the figures came about, in a line."""
    by = header.get("protocol")
    return (f"protocol {by['name']}, maxshift {by['maxshift']}; " if by else "") + header["device"]


def _plot(rows: Sequence[dict[str, Any]], groups: Callable[[str], dict[str, str]]) -> Figure:
    """PSNR of each image by each kind of group, crosses for the blurred ones."""
    from matplotlib.figure import Figure

    kinds = list(groups(rows[0]["name"]))
    figure = Figure(figsize=(5.5 * len(kinds), 3.6), layout="constrained")
    for axis, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds):
        names = sorted({groups(row["name"])[kind] for row in rows})
        at = [names.index(groups(row["name"])[kind]) + 0.12 * (i % 5 - 2) for i, row in enumerate(rows)]
        if all(row.get("psnr_blurred") is not None for row in rows):
            axis.plot(at, [row["psnr_blurred"] for row in rows], "x", color="gray", ms=4, label="blurred")
        axis.plot(at, [row["psnr"] for row in rows], "o", fillstyle="none", label="restored")
        axis.set_xticks(range(len(names)), names, rotation=20)
        axis.set_ylabel("PSNR, dB")
        axis.grid(alpha=0.3, axis="y")
    figure.axes[0].legend(fontsize=8)
    return figure


class ImageSet(TypingProtocol):
    """A set of images: their names, the groups that each belongs to, by kind, and the images."""

    @property
    def NAMES(self) -> Sequence[str]: ...

    def groups(self, name: str) -> dict[str, str]: ...

    def load(self, data: str | Path | None, names: Sequence[str]) -> list[Item]: ...


SETS: dict[str, Any] = {"levin": levin, "lai": lai}


def chosen_set(args: argparse.Namespace) -> ImageSet:
    """The set that the command is about."""
    if args.command in SETS:
        return SETS[args.command]
    if any(size < 3 or size % 2 == 0 for size in args.sizes) or args.kernels < 1 or args.crop < 64:
        raise ValueError(
            f"got --sizes {args.sizes}, --kernels {args.kernels} and --crop {args.crop}, expected odd sizes from 3, at "
            "least one kernel and 64 pixels"
        )
    given = args.data or os.environ.get("JBID_DATA")
    if not given:
        raise ValueError("no --data and no JBID_DATA: expected a folder of sharp photos")
    folder = next((p for p in (Path(given) / "sharp" / "kodak24", Path(given)) if p.is_dir()), Path(given))
    return Synthetic(folder, tuple(args.sizes), args.kernels, args.model, args.noise, args.crop, args.data_seed)


class Case(NamedTuple):
    """An image and what to do with it."""

    item: Item
    settings: Config
    kernel: np.ndarray | None = None  # where it is told
    room: tuple[int, int] | None = None  # rows and columns of `jbid.deblur.rooms`

    @property
    def identity(self) -> str:
        return identity(self.settings, self.item.blurred, self.kernel)

    @property
    def launch(self) -> tuple:
        """What cases must have in common to be launched together."""
        same = json.dumps(self.settings._asdict(), default=list)
        return same, self.room, self.item.blurred.shape[2], self.kernel is None


def scoring(args: argparse.Namespace) -> Scoring:
    """How the arguments want results scored. Raises ValueError for what cannot be."""
    if args.lpips is not None:
        # a wrong file is to be told of before the first image and not after
        lpips(np.zeros((64, 64, 1)), np.zeros((64, 64, 1)), args.lpips)
    chosen = tuple(protocol(name, args.maxshift) for name in dict.fromkeys(args.protocol))
    # of large images that were restored elsewhere these figures would take minutes
    default = not (getattr(args, "score", None) and args.command == "lai")
    full = default if args.full is None else args.full
    if args.lpips is not None and not full:
        raise ValueError("--lpips is one of the figures that --no-full leaves out (and --score of lai): add --full")
    return Scoring(chosen, full, args.lpips)


def chosen_names(args: argparse.Namespace, data: ImageSet) -> Sequence[str]:
    """The names of the images that the arguments ask for. Raises ValueError where there are none."""
    names = args.only or data.NAMES
    wanted = set(getattr(args, "subset", None) or ())
    if wanted:
        known = {group: kind for name in data.NAMES for kind, group in data.groups(name).items()}
        unknown = wanted - set(known)
        if unknown:
            raise ValueError(f"got --subset {unknown.pop()}, expected some of: {', '.join(sorted(known))}")
        kinds = {known[group] for group in wanted}
        names = [name for name in names if all(data.groups(name)[kind] in wanted for kind in kinds)]
    if not names:
        raise ValueError("no image is in all of what --only and --subset name")
    return names[: args.limit]


def loaded(args: argparse.Namespace, data: ImageSet) -> list[Item]:
    """The images that the arguments ask for, at the scale that they ask for."""
    scale = getattr(args, "scale", 1.0)
    if not 0 < scale <= 1:
        raise ValueError(f"got --scale {scale}, expected a number above 0, at most 1")
    names = chosen_names(args, data)
    return [item if scale == 1 else resize_item(item, scale) for item in data.load(args.data, names)]


def main(args: argparse.Namespace) -> int:
    """`python -m jbid.bench levin`, `lai` and `synthetic`."""
    how = scoring(args)
    data = chosen_set(args)
    items = loaded(args, data)
    header: dict[str, Any] = {"benchmark": args.command, "protocol": how.protocols[0].told(), "scale": args.scale}
    header |= {"other protocols": [p.name for p in how.protocols[1:]], **versions_and_device()}
    if isinstance(data, Synthetic):
        header["data"] = {**data._asdict(), "folder": data.folder.name}
    if args.score:
        return _score_folder(args, data, items, header, how)

    published = args.kernel_size == "published"
    if published:
        args.kernel_size = None
    settings = settings_from(args)
    out = args.out or Path(f"{args.command}_{settings.method}_{settings.preset}.json")
    header["settings"] = settings._asdict() | {"kernel_size": "published" if published else settings.kernel_size}
    cases = [Case(it, settings._replace(kernel_size=it.kernel_size) if published else settings) for it in items]
    rows, complete = run_cases(cases, out, args, how)
    if rows and jax.process_index() == 0:
        label = f"jbid {settings.method}, {settings.preset}, seed {settings.seed}" + (
            f" to {settings.seed + settings.seeds - 1}" if settings.seeds > 1 else ""
        )
        label += f", scale {args.scale:g}" if args.scale != 1 else ""
        tell(args.command, data, label, rows, header, how, out, lambda: strips_of(cases, rows, out.parent / out.stem))
    return finished(complete, out)


def strips_of(cases: Sequence[Case], rows: Sequence[dict[str, Any]], folder: Path) -> Iterator[report.Strip]:
    """The pictures of a run, as they were written: blurred, restored, sharp, and the kernels."""
    by_name = {row["name"]: row for row in rows}
    for case in cases:
        item = case.item
        if item.name in by_name:
            yield strip(item, by_name[item.name], folder)


def strip(item: Item, row: dict[str, Any], folder: Path) -> report.Strip:
    """One image's panels, with what of it lies in the folder of results."""
    panels = [("blurred", item.blurred), ("restored", read_image(result_file(folder, item.name)))]
    panels += [] if item.sharp is None else [("sharp", item.sharp)]
    kernel = folder / f"{item.name}_k.png"
    panels += [("kernel found", report.kernel_panel(read_kernel(kernel)))] if kernel.is_file() else []
    panels += [] if item.kernel is None else [("kernel", report.kernel_panel(item.kernel))]
    words = [f"{row['psnr']:.2f} dB"] if "psnr" in row else []
    words += [str(row["chosen"])] if row.get("chosen") else []
    return report.Strip(item.name, ", ".join(words), panels)


def result_file(folder: Path, name: str) -> Path:
    """The restored image of this name in a folder of results: <name>_x.png, as jbid writes it, or <name>.png."""
    ours = folder / f"{name}_x.png"
    return ours if ours.is_file() else folder / f"{name}.png"


def finished(complete: bool, out: Path) -> int:
    """The exit code; what was kept for resuming is cleared away where all is done."""
    # who leaves ends the run of the others
    wait_for_all("report")
    if not complete:
        print("not complete; --resume with the same arguments goes on from here")
        return INTERRUPTED
    if jax.process_index() == 0:
        shutil.rmtree(out.parent / out.stem / ".jbid", ignore_errors=True)
    return 0


# of a row, what does not depend on how it is scored
KEPT = (
    *("name", "kernel_size", "support_start", "support", "support_true"),
    *("seconds", "chosen", "stopped", "room", "identity", "candidates"),
)


def run_cases(
    cases: Sequence[Case], out: Path, args: argparse.Namespace, how: Scores
) -> tuple[list[dict[str, Any]], bool]:
    """A row for each case, in order, written to a folder beside `out` as it comes; and whether they are all there.

    With --resume, rows of the same settings and pictures are taken from there, scored anew where that is asked for
    otherwise. Of several processes each does its share and finds the rows of the others in the folder in the end.
    """
    folder = make_folder(out.parent / out.stem)
    batch = args.batch or (1 if jax.default_backend() == "cpu" else 4) * jax.local_device_count()
    for case in cases:
        check_deconvolve(case.settings, case.item.blurred.shape)
    rows: dict[str, dict[str, Any]] = {}
    groups: dict[tuple, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.launch, []).append(case)
    # those that can share a program are neighbors, so that they can share a launch
    ready = []
    for same_settings in groups.values():
        room = padded_shapes([case.item.blurred.shape for case in same_settings], same_settings[0].settings)
        ready += [case._replace(room=room[case.item.blurred.shape[:2]]) for case in same_settings]
    ready.sort(key=lambda case: (case.room, case.launch), reverse=True)
    mine = local_share(ready)
    place = {case.item.name: i for i, case in enumerate(cases)}
    items = {case.item.name: case.item for case in cases}
    with (
        interruptible() as asked,
        board(args.tensorboard) as events,
        tqdm(total=len(mine), desc=out.stem, unit="image", dynamic_ncols=True) as bar,
    ):

        def keep(row):
            rows[row["name"]] = row
            if args.tensorboard:
                events.row("images", place[row["name"]], row, strip(items[row["name"]], row, folder).panels)
            bar.update()

        def show(row):
            keep(row)
            if "seconds" in row and "psnr" in row:
                tqdm.write(f"{row['name']}: {row['psnr']:.2f} dB {row['ssim']:.4f} in {row['seconds']:.1f} s")

        left: list[Case] = []
        for case in mine:
            row = read_json(folder / f"{case.item.name}.json") if args.resume else {}
            if row.get("identity") != case.identity or row.get("room") != list(case.room or ()):
                left.append(case)
                continue
            if row.get("scoring") != how.told():
                row = {key: row[key] for key in KEPT if key in row} | _scored(case.item, folder, how)
                write_json(folder / f"{case.item.name}.json", row)
            keep(row)
        for _, group in itertools.groupby(left, lambda case: case.launch):
            alike = list(group)
            for i in range(0, len(alike), batch):
                for row in () if asked else _solved(alike[i : i + batch], folder, args, how, asked, events):
                    show(row)
    if jax.process_count() > 1:
        wait_for_all("rows")
        for case in cases:
            row = read_json(folder / f"{case.item.name}.json")
            if row.get("identity") == case.identity and row.get("scoring") == how.told():
                rows[case.item.name] = row
    found = [rows[case.item.name] for case in cases if case.item.name in rows]
    return found, len(found) == len(cases)


def _scored(item: Item, folder: Path, how: Scores) -> dict[str, Any]:
    """The scores of what was written: 8 bits, and the kernel scaled by its maximum."""
    image = read_image(result_file(folder, item.name))
    kernel = folder / f"{item.name}_k.png"
    if image.shape[:2] != item.blurred.shape[:2]:
        got, wanted = ("{1}x{0}".format(*x.shape) for x in (image, item.blurred))
        raise ValueError(f"{result_file(folder, item.name)}: got {got} pixels, expected {wanted}")
    known = read_kernel(kernel) if kernel.is_file() else None
    return {**how.row(item, image, known), "scoring": how.told()}


def _solved(
    cases: Sequence[Case], folder: Path, args: argparse.Namespace, how: Scores, asked: list, events: Board
) -> Iterator[dict[str, Any]]:
    """The row of each case, its result written; those of one kernel size share a launch. Nothing where stopped."""
    settings = cases[0].settings
    tasks = [
        prepare(case.item.blurred, settings, kernel=case.kernel)._replace(room=case.room or case.item.blurred.shape[:2])
        for case in cases
    ]
    for shape in sorted({task.kernel_shape for task in tasks}):
        at = [i for i, task in enumerate(tasks) if task.kernel_shape == shape]
        # by all that is in it, or another launch with the same first image would go on from here
        told = [*(cases[i].identity for i in at), cases[0].room]
        checkpoint = folder / ".jbid" / hashlib.sha256(repr(told).encode()).hexdigest()[:16]
        answers, complete = launch(
            [tasks[i] for i in at],
            settings,
            name=cases[at[0]].item.name,
            folder=checkpoint,
            resume=args.resume,
            seconds=args.checkpoint_every,
            asked=asked,
            memory=args.memory,
        )
        if not complete:
            return
        for i, answer in zip(at, answers):
            item, task = cases[i].item, tasks[i]
            write_image(folder / f"{item.name}_x.png", answer.image)
            write_kernel(folder / f"{item.name}_k.png", answer.kernel)
            row = {"name": item.name, **_scored(item, folder, how), **_sizes(item, answer, task)}
            if args.each_seed and isinstance(how, Scoring):
                row["psnr_of"] = _each(item, task, answer, how.protocols[0])
            row |= how.network(item, answer.network_image)
            row |= {"seconds": answer.seconds, "chosen": answer.chosen, "stopped": [int(n) for n in answer.stopped]}
            row |= {"room": list(task.room), "identity": cases[i].identity}
            row["candidates"] = [candidate.told() for candidate in answer.candidates]
            write_json(folder / f"{item.name}.json", row)
            events.losses(item.name, answer.losses)
            yield row
        shutil.rmtree(checkpoint, ignore_errors=True)


def _sizes(item: Item, answer: Restoration, task: PreparedImage) -> dict[str, Any]:
    """The support that was found and the true one: the larger side of what exceeds 5 % of the maximum."""

    def extent(kernel):
        part = support(kernel > 0.05 * kernel.max())
        return max(side.stop - side.start for side in part)

    return {
        "kernel_size": max(task.kernel_shape),
        "support_start": max(task.edges.support) if task.edges else None,
        "support": extent(answer.kernel),
        "support_true": None if item.kernel is None else extent(item.kernel),
    }


def _each(item: Item, task: PreparedImage, answer: Restoration, by: Protocol) -> dict[str, float]:
    """PSNR of `finish` with the kernel of each candidate, to see what the choice without truth costs."""
    assert item.sharp is not None
    scores = {}
    picture = task.picture if by.color else luma(task.picture)
    for candidate, kernel in zip(answer.candidates, answer.kernels):
        if np.isfinite(kernel).all():
            scores[candidate.name] = by.score(np.round(deconvolve_tiled(picture, kernel) * 255) / 255, item.sharp).psnr
    return scores


def _score_folder(
    args: argparse.Namespace, data: ImageSet, items: list[Item], header: dict[str, Any], how: Scoring
) -> int:
    if not args.score.is_dir():
        raise ValueError(f"{args.score}: no such folder; expected one of results, <name>_x.png or <name>.png")
    missing = [item.name for item in items if not result_file(args.score, item.name).is_file()]
    if missing:
        raise ValueError(
            f"{args.score}: {len(missing)} results are missing, the first is {missing[0]}_x.png; see --limit, --only"
        )
    if jax.process_index() > 0:
        # a matter of minutes, which one process does for all
        wait_for_all("report")
        return 0
    rows: list[dict[str, Any]] = []
    with board(args.tensorboard) as events:
        for i, item in enumerate(tqdm(items, desc="scoring", unit="image")):
            rows.append({"name": item.name, **_scored(item, args.score, how)})
            if args.tensorboard:
                events.row("images", i, rows[-1], strip(item, rows[-1], args.score).panels)
    header["scored"] = args.score.name
    cases = [Case(item, Config()) for item in items]
    tell(args.command, data, args.score.name, rows, header, how, args.out, lambda: strips_of(cases, rows, args.score))
    wait_for_all("report")
    return 0
