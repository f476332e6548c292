"""Tables and plots of a benchmark on an image set: means by group beside published scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jbid.bench import report
from jbid.bench.published import PUBLISHED
from jbid.bench.scoring import Scoring
from jbid.bench.sets import ImageSet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
Groups = Callable[[str], Mapping[str, str]]


def mean(rows: Sequence[Row], key: str) -> float | None:
    """Mean over the rows that have a value; None if none has."""
    values = [row[key] for row in rows if row.get(key) is not None]
    return float(np.mean(values)) if values else None


def numeric_keys(rows: Sequence[Row]) -> list[str]:
    """Keys of numbers, in the order of their first appearance."""
    keys = dict.fromkeys(key for row in rows for key in row)

    def is_numeric(key):
        return all(isinstance(row.get(key), (int, float, type(None))) for row in rows) and mean(rows, key) is not None

    return [key for key in keys if is_numeric(key)]


def group_means(rows: Sequence[Row], groups: Groups) -> dict[str, dict[str, dict[str, Any]]]:
    """Number of images and means by kind of group ("category", "kernel") and group."""
    keys = numeric_keys(rows)
    means: dict[str, dict[str, dict[str, Any]]] = {}
    for kind in groups(rows[0]["name"]):
        names = sorted({groups(row["name"])[kind] for row in rows})
        members = {name: [row for row in rows if groups(row["name"])[kind] == name] for name in names}
        members["all"] = list(rows)
        means[kind] = {
            name: {"images": len(part), **{key: mean(part, key) for key in keys}} for name, part in members.items()
        }
    return means


def group_sizes(image_set: ImageSet) -> dict[str, int]:
    """Number of images of each group in the whole set, and of "all"."""
    sizes = {"all": len(image_set.NAMES)}
    for name in image_set.NAMES:
        for group in image_set.groups(name).values():
            sizes[group] = sizes.get(group, 0) + 1
    return sizes


def _format_pair(psnr: float | None, ssim: float | None) -> str:
    return "" if psnr is None or ssim is None else f"{psnr:.2f} / {ssim:.4f}"


def group_tables(
    set_name: str,
    label: str,
    groups: Mapping[str, Mapping[str, Mapping[str, Any]]],
    scoring: Scoring,
    sizes: Mapping[str, int],
) -> list[report.Table]:
    """One table of PSNR / SSIM for each kind of group.

    Args:
        set_name: key of the published scores.
        label: name of this run.
        groups: from `group_means`.
        scoring: its protocols give one row each.
        sizes: number of images of each group in the whole set.
    """
    tables: list[report.Table] = []
    for kind, members in groups.items():
        columns = list(members)

        def pairs(suffix, members=members, columns=columns):
            return [_format_pair(members[c].get(f"psnr{suffix}"), members[c].get(f"ssim{suffix}")) for c in columns]

        rows = []
        for i, protocol in enumerate(scoring.protocols):
            suffix = f"_{protocol.name}" if i else ""
            rows.append([label, f"{protocol.name}, maxshift {protocol.max_shift}", *pairs(suffix)])
        own = frozenset(range(len(rows)))
        if "psnr_blurred" in members["all"]:
            rows.append(["blurred images", scoring.protocols[0].name, *pairs("_blurred")])
        rows += _published_rows(set_name, columns, is_first=not tables)
        counts = ", ".join(f"{c} {members[c]['images']} of {sizes.get(c, '?')}" for c in columns)
        note = f"PSNR in dB / SSIM, means of images: {counts}. Published rows are means of the whole set at full size."
        tables.append(report.Table(f"By {kind}", ["", "protocol", *columns], rows, note, own))
    return tables


def _published_rows(set_name: str, columns: Sequence[str], *, is_first: bool) -> list[list[str]]:
    """Published rows by these groups; those with a mean only stand in the first table."""
    rows = []
    for row in PUBLISHED.get(set_name, []):
        if set(row.groups) & set(columns) - {"all"} or (len(row.groups) == 1 and is_first):
            cells = [_format_pair(*row.groups.get(c, (None, None))) for c in columns]
            rows.append([f"{row.method} ({row.source})", row.protocol, *cells])
    return rows


def write_set_report(
    out: Path | None,
    title: tuple[str, str],
    image_set: ImageSet,
    rows: Sequence[Row],
    header: Mapping[str, Any],
    scoring: Scoring,
    strips: Callable[[], Iterable[report.Strip]],
) -> None:
    """Print the means by group and write the report of the images of a set.

    Args:
        out: path of the JSON file; None: print only.
        title: names of the set and of the run.
        image_set: of the images.
        rows: one for each image.
        header: of the report.
        scoring: of the rows.
        strips: makes the images of the report.
    """
    groups = group_means(rows, image_set.groups)
    tables = group_tables(*title, groups, scoring, group_sizes(image_set))
    for table in tables:
        print(report.to_markdown(table))
    worst = min(rows, key=lambda row: row["psnr"])
    print(f"worst: {worst['name']}, {worst['psnr']:.2f} dB; {report.summarize_header(header)}")
    if out is None:
        return
    keys = numeric_keys(rows)
    lines = [[row["name"], *(row.get(key) for key in keys)] for row in rows]
    tables.append(report.Table("Images", ["name", *keys], lines))
    plots = [("PSNR by group", plot_groups(rows, image_set.groups))] if report.is_drawable() else []
    content = {"mean": {key: mean(rows, key) for key in keys}, "groups": groups, "images": list(rows)}
    report.write_report(out, ": ".join(title), header, content, tables, plots, strips())


def plot_groups(rows: Sequence[Row], groups: Groups) -> Figure:
    """PSNR of each image by each kind of group; crosses: blurred images."""
    from matplotlib.figure import Figure

    kinds = list(groups(rows[0]["name"]))
    figure = Figure(figsize=(5.5 * len(kinds), 3.6), layout="constrained")
    for axis, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds):
        names = sorted({groups(row["name"])[kind] for row in rows})
        x = [names.index(groups(row["name"])[kind]) + 0.12 * (i % 5 - 2) for i, row in enumerate(rows)]
        if all(row.get("psnr_blurred") is not None for row in rows):
            axis.plot(x, [row["psnr_blurred"] for row in rows], "x", color="gray", ms=4, label="blurred")
        axis.plot(x, [row["psnr"] for row in rows], "o", fillstyle="none", label="restored")
        axis.set_xticks(range(len(names)), names, rotation=20)
        axis.set_ylabel("PSNR, dB")
        axis.grid(alpha=0.3, axis="y")
    figure.axes[0].legend(fontsize=8)
    return figure
