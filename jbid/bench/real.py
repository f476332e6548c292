"""Benchmark on real blurred photos, without ground truth: images to look at and no-reference scores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from jbid.bench import report
from jbid.bench.options import RealConfig
from jbid.bench.results import make_strips
from jbid.bench.runner import check_report, finish_run, report_path, run_cases
from jbid.bench.sets import Case, check_selection
from jbid.bench.table import name_run
from jbid.bench.tables import mean
from jbid.data.levin import Item
from jbid.io.images import list_images, read_image
from jbid.ops.color import luma
from jbid.pipeline.config import Config
from jbid.pipeline.restoration import Restoration
from jbid.runtime.environment import versions_and_device

COLUMNS = ("blur_effect_blurred", "blur_effect", "noise_blurred", "noise", "support", "confidence", "seconds", "chosen")


def no_reference_scores(blurred: NDArray, restored: NDArray) -> dict[str, Any]:
    """Scores of an image (h, w, c) and its restoration without a ground truth.

    blur_effect is in [0, 1], 1 for the most blurred image (Crete et al. 2007). It compares the image with itself after
    a further blur. noise is the estimated standard deviation (Donoho and Johnstone 1994). Ringing and oversharpening
    change both, so they complement the images and do not replace them.
    """
    from skimage.measure import blur_effect
    from skimage.restoration import estimate_sigma

    scores = {}
    for suffix, image in (("_blurred", blurred), ("", restored)):
        gray = luma(image)[..., 0].astype(float)
        scores[f"blur_effect{suffix}"] = float(blur_effect(gray))
        scores[f"noise{suffix}"] = float(estimate_sigma(gray))
    return scores


class NoReference(NamedTuple):
    """Scorer without a ground truth, see `jbid.bench.scoring.Scorer`."""

    def to_dict(self) -> dict[str, Any]:
        """Identity of the scores."""
        return {"no reference": ["blur_effect", "noise"]}

    def score(self, item: Item, image: NDArray, kernel: NDArray | None) -> dict[str, Any]:
        """Scores of a restored image."""
        return no_reference_scores(item.blurred, image)

    def score_network(self, item: Item, image: NDArray | None) -> dict[str, Any]:
        """No scores."""
        return {}

    def score_candidates(self, item: Item, restoration: Restoration) -> dict[str, Any]:
        """No scores."""
        return {}


def find_photos(data: Path | None) -> list[Path]:
    """Images in the folder `data`, in `real` in it, or in `lai/real` in $JBID_DATA.

    Raises:
        ValueError: if there are none.
    """
    if not data and "JBID_DATA" not in os.environ:
        raise ValueError("`data` must be a folder of photos, or set the environment variable JBID_DATA")
    root = Path(data or os.environ["JBID_DATA"])
    for folder in (root / "lai" / "real", root / "real", root):
        if photos := list_images(folder):
            return photos
    raise ValueError(f"{root}: no images there. `data` must be a folder of photos.")


def select_photos(photos: Sequence[Path], only: Sequence[str], limit: int | None) -> list[Path]:
    """Photos that the benchmark runs on.

    Raises:
        ValueError: for unknown names, and for several photos of one name.
    """
    check_selection(only, limit)
    folder, stems = photos[0].parent, [path.stem for path in photos]
    unknown = sorted(set(only) - set(stems))
    if unknown:
        raise ValueError(f"{folder}: no image is called {unknown[0]!r}")
    selected = [path for path in photos if not only or path.stem in only]
    duplicates = [path.stem for path in selected if stems.count(path.stem) > 1]
    if duplicates:
        raise ValueError(f"{folder}: several images are called {duplicates[0]!r}. Rename one of them.")
    return selected[:limit]


def run(config: RealConfig) -> int:
    """Restore real photos and write the report.

    Returns:
        Exit code: 0, or 130 if Ctrl-C stopped the run.

    Raises:
        ValueError: for options out of range, missing photos, and results of other settings when resuming.
    """
    paths = select_photos(find_photos(config.data), config.only, config.limit)
    run_config = config.resolve()
    items = [Item(path.stem, read_image(path), None, None, 0) for path in paths]
    out = report_path(config.out, f"real_{name_run(run_config)}.json")
    check_report(out, run_config._asdict(), config)
    rows, is_complete = run_cases([Case(item, run_config) for item in items], out, config, NoReference())
    if rows and jax.process_index() == 0:
        _write_report(rows, items, run_config, out)
    return finish_run(is_complete, out)


def _write_report(rows: Sequence[dict[str, Any]], items: Sequence[Item], config: Config, out: Path) -> None:
    means = {key: mean(rows, key) for key in COLUMNS[:-1]}
    lines: list[list[Any]] = [[row["name"], *(row.get(key) for key in COLUMNS)] for row in rows]
    lines.append([f"mean of {len(rows)}", *means.values(), None])
    share = float(np.mean([row["blur_effect"] < row["blur_effect_blurred"] for row in rows]))
    note = (
        f"Without ground truth. blur_effect (Crete et al. 2007) fell for {share:.0%} of the images; look at them too."
    )
    table = report.Table("Photos", ["name", *COLUMNS], lines, note)
    print(report.to_markdown(table))
    header = {"benchmark": "real", **versions_and_device(), "settings": config._asdict()}
    print(report.summarize_header(header))
    strips = make_strips(items, rows, out.parent / out.stem)
    content = {"mean": means, "images": list(rows)}
    report.write_report(out, "Real photos", header, content, [table], (), strips)
