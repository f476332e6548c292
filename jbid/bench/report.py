"""What a benchmark leaves: JSON with everything, a Markdown file of its tables, and one page of HTML to look at."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jbid.io.files import atomic_write, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


THUMBNAIL = 220  # pixels of the longer side
QUALITY = 80  # of their JPEG


class Table(NamedTuple):
    """Rows of names and numbers; `own` are the indices of rows of this run among published ones."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    own: frozenset[int] = frozenset()


class Strip(NamedTuple):
    """One picture's panels, (caption, image (h, w, c) in [0, 1])."""

    name: str
    words: str
    panels: Sequence[tuple[str, NDArray]]


def shown(value: Any, column: str) -> str:
    """A table's cell: as many decimals as the column's unit deserves, nothing where there is no value."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    if not isinstance(value, float):
        return str(value)
    for word, decimals in (("psnr", 2), ("dB", 2), ("ssim", 4), ("seconds", 1), ("shift", 2)):
        if word in column:
            return f"{value:.{decimals}f}"
    return f"{value:.3f}"


def markdown(table: Table) -> str:
    """The table in GitHub's Markdown."""
    from tabulate import tabulate

    rows = [[shown(value, name) for value, name in zip(row, table.columns)] for row in table.rows]
    # what is formatted already must not be parsed again
    text = tabulate(rows, list(table.columns), tablefmt="github", disable_numparse=True)
    return f"## {table.title}\n\n" + (f"{table.note}\n\n" if table.note else "") + text + "\n"


def thumbnail(image: NDArray, side: int = THUMBNAIL) -> str:
    """A picture (h, w, c) in [0, 1] as the address of a JPEG that holds itself; small ones are magnified."""
    from PIL import Image

    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    scale = side / max(picture.size)
    width, height = (max(1, round(n * scale)) for n in picture.size)
    picture = picture.resize((width, height), Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def kernel_panel(kernel: NDArray) -> NDArray:
    """A kernel (kh, kw) as a picture, white where it is largest."""
    return (kernel / kernel.max())[..., None]


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()


def page(
    title: str,
    facts: Iterable[tuple[str, str]],
    tables: Sequence[Table],
    plots: Sequence[tuple[str, Figure]],
    strips: Iterable[Strip],
) -> str:
    """One page of HTML with all in it: tables that a click sorts, plots, thumbnails."""
    from jinja2 import Environment, PackageLoader

    found = Environment(loader=PackageLoader("jbid.bench", "."), autoescape=True)
    pictures = [
        {
            "name": strip.name,
            "words": strip.words,
            "images": [
                (caption, thumbnail(x, 110 if "kernel" in caption else THUMBNAIL)) for caption, x in strip.panels
            ],
        }
        for strip in strips
    ]
    return found.get_template("report.html.j2").render(
        title=title,
        facts=list(facts),
        tables=tables,
        plots=[(caption, _png(figure)) for caption, figure in plots],
        strips=pictures,
        shown=shown,
    )


def drawable() -> bool:
    """Whether plots and pages can be made: they need what `pip install 'jbid[report]'` brings."""
    return all(find_spec(name) for name in ("matplotlib", "jinja2"))


def write_report(
    out: Path,
    title: str,
    header: dict[str, Any],
    content: dict[str, Any],
    tables: Sequence[Table],
    plots: Sequence[tuple[str, Figure]] = (),
    strips: Iterable[Strip] = (),
) -> None:
    """Write <out>.json, <out>.md and, where that can be drawn, <out>.html; and print their names.

    `header` says how the results came about, `content` has them all.
    """
    write_json(out, {**header, **content})
    facts = facts_of(header)
    text = f"# {title}\n\n" + "".join(f"- {name}: {value}\n" for name, value in facts)
    with atomic_write(out.with_suffix(".md")) as temporary:
        temporary.write_text(text + "\n" + "\n".join(markdown(table) for table in tables), encoding="utf-8")
    names = [out, out.with_suffix(".md")]
    if drawable():
        with atomic_write(out.with_suffix(".html")) as temporary:
            temporary.write_text(page(title, facts, tables, plots, strips), encoding="utf-8")
        names.append(out.with_suffix(".html"))
    else:
        print("no page and plots: they need pip install 'jbid[report]'")
    print("-> " + ", ".join(map(str, names)))


# of a run's settings, what a reader looks for first; all of them are in the JSON
TOLD = ("method", "preset", "start", "kernel_size", "patch", "seeds", "seed", "steps", "color")


def facts_of(header: dict[str, Any]) -> list[tuple[str, str]]:
    """A report's header in words: protocol, device, the settings that matter most."""
    facts = []
    for name, value in header.items():
        if name == "protocol":
            by = f"{value['name']}, maxshift {value['maxshift']}"
            value = f"{by}: {value['description']}; iterate: {value['iteration']}"
        elif name == "settings":
            several = value if all(isinstance(each, dict) for each in value.values()) else {"": value}
            lines = [", ".join(f"{key} {each[key]}" for key in TOLD) for each in several.values()]
            value = "; ".join(dict.fromkeys(lines))
        elif isinstance(value, dict):
            value = ", ".join(f"{key} {part}" for key, part in value.items())
        if value not in (None, [], ""):
            facts.append((name, str(value)))
    return facts
