"""Report of a benchmark: JSON with all results, Markdown with the tables, and one HTML page with plots and images."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jbid.io.files import atomic_write, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

THUMBNAIL = 220  # pixels of the longer side
KERNEL_THUMBNAIL = 110
QUALITY = 80  # of the thumbnails' JPEG
DPI = 110  # of the plots
# decimals of a number by a word in its column's name
DECIMALS = {"psnr": 2, "dB": 2, "ssim": 4, "seconds": 1, "shift": 2}
# fields of a configuration shown in the header; all of them are in the JSON
SETTINGS = ("method", "preset", "init", "kernel_size", "patch", "n_seeds", "seed", "steps", "color")
# those without a meaning for a method without an optimization
OPTIMIZATION_SETTINGS = ("preset", "n_seeds", "seed", "steps")


class Table(NamedTuple):
    """Table of a report.

    Attributes:
        title: heading.
        columns: names.
        rows: names and numbers.
        note: explanation above the table.
        own: indices of the rows of this run among published ones.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    own: frozenset[int] = frozenset()


class Strip(NamedTuple):
    """Images of one result, side by side.

    Attributes:
        name: of the result.
        caption: shown beside the name.
        panels: captions and images (h, w, c) in [0, 1].
    """

    name: str
    caption: str
    panels: Sequence[tuple[str, NDArray]]


def format_cell(value: Any, column: str) -> str:
    """Text of a table's cell with the decimals that suit its column; empty for None and non-finite numbers."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    if not isinstance(value, float):
        return str(value)
    decimals = next((count for word, count in DECIMALS.items() if word in column), 3)
    return f"{value:.{decimals}f}"


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown."""
    from tabulate import tabulate

    rows = [[format_cell(value, name) for value, name in zip(row, table.columns)] for row in table.rows]
    # the cells are formatted already, so their numbers must not be parsed
    text = tabulate(rows, list(table.columns), tablefmt="github", disable_numparse=True)
    return f"## {table.title}\n\n" + (f"{table.note}\n\n" if table.note else "") + text + "\n"


def make_thumbnail(image: NDArray, side: int) -> Image.Image:
    """Picture of an image (h, w, c) in [0, 1] whose larger side has `side` pixels; small images are magnified."""
    from PIL import Image

    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    scale = side / max(picture.size)
    width, height = (max(1, round(n * scale)) for n in picture.size)
    return picture.resize((width, height), Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def thumbnail(image: NDArray, side: int = THUMBNAIL) -> str:
    """Data URL of a JPEG of `make_thumbnail`."""
    buffer = io.BytesIO()
    make_thumbnail(image, side).save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def kernel_panel(kernel: NDArray) -> NDArray:
    """Image (kh, kw, 1) of a kernel, white at its maximum."""
    return (kernel / kernel.max())[..., None]


def _encode_plot(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return base64.b64encode(buffer.getvalue()).decode()


def render_page(
    title: str,
    facts: Iterable[tuple[str, str]],
    tables: Sequence[Table],
    plots: Sequence[tuple[str, Figure]],
    strips: Iterable[Strip],
) -> str:
    """One self-contained HTML page with sortable tables, plots and thumbnails."""
    from jinja2 import Environment, PackageLoader

    def encode(caption: str, image: NDArray) -> tuple[str, str]:
        return caption, thumbnail(image, KERNEL_THUMBNAIL if "kernel" in caption else THUMBNAIL)

    environment = Environment(loader=PackageLoader("jbid.bench", "."), autoescape=True)
    return environment.get_template("report.html.j2").render(
        title=title,
        facts=list(facts),
        tables=tables,
        plots=[(caption, _encode_plot(figure)) for caption, figure in plots],
        strips=[
            {"name": strip.name, "caption": strip.caption, "images": [encode(*panel) for panel in strip.panels]}
            for strip in strips
        ],
        format_cell=format_cell,
    )


def is_drawable() -> bool:
    """Return True if the packages for plots and pages are installed."""
    return all(find_spec(name) for name in ("matplotlib", "jinja2"))


def save_plot(path: Path, figure: Figure) -> None:
    """Write a plot as PNG."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=DPI)


def write_report(
    out: Path,
    title: str,
    header: Mapping[str, Any],
    content: Mapping[str, Any],
    tables: Sequence[Table],
    plots: Sequence[tuple[str, Figure]] = (),
    strips: Iterable[Strip] = (),
) -> None:
    """Write the report and print the names of its files.

    Args:
        out: path of the JSON file; the Markdown and HTML files have the same name with another suffix.
        title: heading.
        header: protocol, device and settings.
        content: results for the JSON file.
        tables: for Markdown and HTML.
        plots: captions and figures, for HTML.
        strips: images, for HTML.
    """
    write_json(out, {**header, **content})
    facts = header_facts(header)
    text = f"# {title}\n\n" + "".join(f"- {name}: {value}\n" for name, value in facts)
    with atomic_write(out.with_suffix(".md")) as temporary:
        temporary.write_text(text + "\n" + "\n".join(to_markdown(table) for table in tables), encoding="utf-8")
    names = [out, out.with_suffix(".md")]
    if is_drawable():
        with atomic_write(out.with_suffix(".html")) as temporary:
            temporary.write_text(render_page(title, facts, tables, plots, strips), encoding="utf-8")
        names.append(out.with_suffix(".html"))
    else:
        print("no HTML page and no plots: install them with pip install 'jbid[report]'")
    print("-> " + ", ".join(map(str, names)))


def header_facts(header: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and texts of a report's header: protocol, device and the most important settings."""
    facts = []
    for name, value in header.items():
        if name == "protocol":
            protocol = f"{value['name']}, maxshift {value['maxshift']}"
            value = f"{protocol}: {value['description']}; iterate: {value['iteration']}"
        elif name == "settings":
            several = value if all(isinstance(part, dict) for part in value.values()) else {"": value}
            value = "; ".join(dict.fromkeys(_format_settings(part) for part in several.values()))
        elif isinstance(value, dict):
            value = ", ".join(f"{key} {part}" for key, part in value.items())
        if value not in (None, [], ""):
            facts.append((name, str(value)))
    return facts


def _format_settings(settings: Mapping[str, Any]) -> str:
    names = [name for name in SETTINGS if settings["steps"] or name not in OPTIMIZATION_SETTINGS]
    return ", ".join(f"{name} {settings[name]}" for name in names)


def summarize_header(header: Mapping[str, Any]) -> str:
    """Protocol and device of a report in one line."""
    protocol = header.get("protocol")
    return (f"protocol {protocol['name']}, maxshift {protocol['maxshift']}; " if protocol else "") + header["device"]
