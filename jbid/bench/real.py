"""Benchmark on real blurred photos, without ground truth: images to look at and no-reference scores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from jbid.bench import report
from jbid.bench.options import RealConfig
from jbid.bench.results import image_path, kernel_path, make_strips
from jbid.bench.runner import check_report, finish_run, report_path, run_cases
from jbid.bench.sets import Case, check_selection
from jbid.bench.table import name_run
from jbid.bench.tables import mean
from jbid.data.levin import Item
from jbid.io.files import atomic_write
from jbid.io.images import list_images, read_image, read_kernel
from jbid.ops.color import luma
from jbid.pipeline.config import Config
from jbid.pipeline.restoration import Restoration
from jbid.runtime.environment import versions_and_device

COLUMNS = (
    *("blur_effect_blurred", "blur_effect", "q_blurred", "q", "noise_blurred", "noise", "support", "confidence"),
    *("seconds", "chosen"),
)
PATCH = 8  # pixels; side of the patches of `metric_q`, as its authors have it
SIGNIFICANCE = 1e-3  # of the patches' anisotropy
SHEET_COLUMNS = 4  # photos side by side on the contact sheet
THUMBNAIL = 230  # pixels; larger side of an image on it


def anisotropic_patches(image: NDArray) -> NDArray[np.bool_]:
    """Patches of a gray image (h, w) with one dominant direction, (h // 8, w // 8).

    Those whose coherence (s1 - s2) / (s1 + s2) exceeds sqrt((1 - a^(1 / (N^2 - 1))) / (1 + a^(1 / (N^2 - 1)))), which
    noise alone does with the probability a = `SIGNIFICANCE` (Zhu and Milanfar 2010, Eq. 14).
    """
    share = SIGNIFICANCE ** (1 / (PATCH**2 - 1))
    larger, smaller = _singular_values(image)
    return (larger - smaller) / (larger + smaller + 1e-12) > np.sqrt((1 - share) / (1 + share))


def metric_q(image: NDArray, patches: NDArray[np.bool_]) -> float:
    """Sharpness and freedom from noise of a gray image (h, w): mean of s1 (s1 - s2) / (s1 + s2) over patches.

    s1 and s2 are the singular values of the gradients of a patch, of gray levels from 0 to 255. It falls with blur and
    with noise, but rises with ringing. After Zhu and Milanfar 2010, Automatic Parameter Selection for Denoising
    Algorithms Using a No-Reference Measure of Image Content, Eq. 9 and 15.

    Args:
        image: in [0, 1].
        patches: to take the mean over, of `anisotropic_patches` of one of the images to compare.
    """
    larger, smaller = _singular_values(255 * image)
    values = larger * (larger - smaller) / (larger + smaller + 1e-12)
    return float(values[patches].mean()) if patches.any() else 0.0


def _singular_values(image: NDArray) -> tuple[NDArray, NDArray]:
    """Singular values of the gradients (64, 2) of each patch of 8x8 pixels, the larger and the smaller ones."""
    rows, columns = (n // PATCH for n in image.shape)
    down, across = np.gradient(image[: rows * PATCH, : columns * PATCH])

    def total(values):
        return values.reshape(rows, PATCH, columns, PATCH).sum((1, 3))

    a, b, c = total(across**2), total(across * down), total(down**2)
    middle, half = (a + c) / 2, np.hypot((a - c) / 2, b)
    return np.sqrt(middle + half), np.sqrt(np.maximum(middle - half, 0))


def no_reference_scores(blurred: NDArray, restored: NDArray) -> dict[str, Any]:
    """Scores of an image (h, w, c) and its restoration without a ground truth.

    blur_effect is in [0, 1], 1 for the most blurred image (Crete et al. 2007). It compares the image with itself after
    a further blur. q is `metric_q`, larger for a better image. noise is the estimated standard deviation (Donoho and
    Johnstone 1994). Ringing and oversharpening change all of them, so they complement the images and do not replace
    them.
    """
    from skimage.measure import blur_effect
    from skimage.restoration import estimate_sigma

    scores = {}
    patches = anisotropic_patches(luma(blurred)[..., 0].astype(float))
    for suffix, image in (("_blurred", blurred), ("", restored)):
        gray = luma(image)[..., 0].astype(float)
        scores[f"blur_effect{suffix}"] = float(blur_effect(gray))
        scores[f"q{suffix}"] = metric_q(gray, patches)
        scores[f"noise{suffix}"] = float(estimate_sigma(gray))
    return scores


class NoReference(NamedTuple):
    """Scorer without a ground truth, see `jbid.bench.scoring.Scorer`."""

    def to_dict(self) -> dict[str, Any]:
        """Identity of the scores."""
        return {"no reference": ["blur_effect", "q", "noise"]}

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
    fell = np.mean([row["blur_effect"] < row["blur_effect_blurred"] for row in rows])
    rose = np.mean([row["q"] > row["q_blurred"] for row in rows])
    note = (
        f"Without ground truth. blur_effect (Crete et al. 2007) fell for {fell:.0%} of the images, q (Zhu and Milanfar "
        f"2010) rose for {rose:.0%}; look at them too."
    )
    table = report.Table("Photos", ["name", *COLUMNS], lines, note)
    print(report.to_markdown(table))
    header = {"benchmark": "real", **versions_and_device(), "settings": config._asdict()}
    print(report.summarize_header(header))
    sheet = out.with_name(f"{out.stem}_sheet.jpg")
    with atomic_write(sheet) as temporary:
        contact_sheet(items, rows, out.parent / out.stem).save(temporary, "JPEG", quality=80)
    print(f"-> {sheet}")
    strips = make_strips(items, rows, out.parent / out.stem)
    content = {"mean": means, "images": list(rows)}
    report.write_report(out, "Real photos", header, content, [table], (), strips)


def contact_sheet(items: Sequence[Item], rows: Sequence[dict[str, Any]], folder: Path) -> Image.Image:
    """Photo, restored image and kernel of each row, with name and confidence."""
    by_name = {row["name"]: row for row in rows}
    shown = [item for item in items if item.name in by_name]
    width, height, kernel_side = 2 * THUMBNAIL + 8, THUMBNAIL + 16, THUMBNAIL // 4
    sheet = Image.new("RGB", (SHEET_COLUMNS * width, -(-len(shown) // SHEET_COLUMNS) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for n, item in enumerate(shown):
        left, top = n % SHEET_COLUMNS * width, n // SHEET_COLUMNS * height
        confidence = by_name[item.name].get("confidence")
        text = item.name if confidence is None else f"{item.name}, {confidence:.0%}"
        draw.text((left + 2, top + 1), text, "black")
        for i, image in enumerate((item.blurred, read_image(image_path(folder, item.name)))):
            sheet.paste(report.make_thumbnail(image, THUMBNAIL), (left + i * (THUMBNAIL + 2), top + 14))
        kernel_file = kernel_path(folder, item.name)
        if kernel_file.is_file():
            kernel = report.make_thumbnail(report.kernel_panel(read_kernel(kernel_file)), kernel_side)
            sheet.paste(kernel, (left + THUMBNAIL + 2, top + 14))
    return sheet
