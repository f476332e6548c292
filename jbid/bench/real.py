"""Photos that are blurred by nature: there is no truth, so pictures to look at and scores that do without."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from jbid.bench import report
from jbid.bench.table import Case, facts, finished, mean, run_cases, strips_of
from jbid.cli.main import settings_from
from jbid.data.levin import Item
from jbid.io.images import list_images, read_image
from jbid.ops.color import luma
from jbid.runtime.environment import versions_and_device


def no_reference(blurred: NDArray, restored: NDArray) -> dict[str, Any]:
    """What is told of a picture (h, w, c) and its restoration without a truth.

    blur_effect: Crete et al. 2007, 0 (sharp) to 1 (blurred), by how little a picture loses when it is blurred again;
    noise: estimated standard deviation (Donoho and Johnstone 1994, by wavelets). Both fall for ringing and for
    oversharpened pictures too, or rise with them: they stand beside the pictures, not in place of them.
    """
    from skimage.measure import blur_effect
    from skimage.restoration import estimate_sigma

    row = {}
    for end, picture in (("_blurred", blurred), ("", restored)):
        gray = luma(picture)[..., 0].astype(float)
        row[f"blur_effect{end}"] = float(blur_effect(gray))
        row[f"noise{end}"] = float(estimate_sigma(gray))
    return row


class NoReference(NamedTuple):
    """Scores without a truth, in place of `jbid.bench.table.Scoring`."""

    def told(self) -> dict[str, Any]:
        """What a row was scored by, to know it again."""
        return {"no reference": ["blur_effect", "noise"]}

    def row(self, item: Item, image: NDArray, kernel: NDArray | None) -> dict[str, Any]:
        """The scores of a result."""
        return no_reference(item.blurred, image)

    def network(self, item: Item, image: NDArray | None) -> dict[str, Any]:
        """Nothing: it is for the eye."""
        return {}


def photos(data: Path | None) -> list[Path]:
    """The pictures in a folder: `data`, `real` in it, or `lai/real` in $JBID_DATA. Raises ValueError without any."""
    if not data and "JBID_DATA" not in os.environ:
        raise ValueError("no --data and no JBID_DATA: expected a folder of photos")
    given = Path(data or os.environ["JBID_DATA"])
    for folder in (given / "lai" / "real", given / "real", given):
        if found := list_images(folder):
            return found
    raise ValueError(f"{given}: no pictures there; give --data a folder of photos")


def main(args: argparse.Namespace) -> int:
    """`python -m jbid.bench real`."""
    files = photos(args.data)
    if args.only:
        unknown = set(args.only) - {path.stem for path in files}
        if unknown:
            raise ValueError(f"{files[0].parent}: no picture is called {unknown.pop()!r}")
        files = [path for path in files if path.stem in args.only]
    stems = [path.stem for path in files]
    if twice := {stem for stem in stems if stems.count(stem) > 1}:
        raise ValueError(f"{files[0].parent}: several pictures are called {twice.pop()!r}; rename one")
    settings = settings_from(args)
    cases = [Case(Item(path.stem, read_image(path), None, None, 0), settings) for path in files[: args.limit]]
    out = args.out or Path(f"real_{settings.method}_{settings.preset}.json")
    rows, complete = run_cases(cases, out, args, NoReference())
    if rows and jax.process_index() == 0:
        keys = ["blur_effect_blurred", "blur_effect", "noise_blurred", "noise", "support", "seconds", "chosen"]
        means = {key: mean(rows, key) for key in keys[:-1]}
        lines: list[list[Any]] = [[row["name"], *(row.get(key) for key in keys)] for row in rows]
        lines.append([f"mean of {len(rows)}", *means.values(), None])
        better = float(np.mean([row["blur_effect"] < row["blur_effect_blurred"] for row in rows]))
        note = f"There is no truth: blur_effect (Crete et al. 2007) fell on {better:.0%}; look at the pictures."
        table = report.Table("Photos", ["name", *keys], lines, note)
        print(report.markdown(table))
        header = {"benchmark": "real", **versions_and_device(), "settings": settings._asdict()}
        print(facts(header))
        strips = strips_of(cases, rows, out.parent / out.stem)
        report.write_report(out, "Real photos", header, {"mean": means, "images": rows}, [table], (), strips)
    return finished(complete, out)
