"""Gain and confidence on pictures that no fit has seen, blurred and sharp.

    python -m benchmarks.unseen --sharp DIR [DIR ...] --work DIR [--blurred 40] [--untouched 60] [--out unseen.json]

Blurred pictures: a photo, a camera-shake kernel of 9 to 101 pixels, noise of 0 to 0.02, 8 bits. Reported: PSNR of the
restoration minus PSNR of the blurred picture, both after the best shift; regret, the same for the best of all candidate
kernels minus that of the chosen one, both by the fast deconvolution; and the reliability of the confidence, with a
plot. Untouched pictures, sharp ones in turn of five kinds (photo, page of text, JPEG, noise, background out of focus):
PSNR of the answer to the picture itself, and whether it was left as it is.

Picture i is drawn with seed `SEED` + i. Results are kept in `--work`, so that an interrupted run continues.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.ndimage
import scipy.signal
from numpy.typing import NDArray
from tqdm import tqdm

import jbid
from benchmarks.fit_gain import draw_page, jpeg, reliability_table
from benchmarks.script import Parser, json_file, run_script
from jbid.data.crops import find_images
from jbid.io.files import make_folder, read_json, write_json
from jbid.io.images import read_image
from jbid.kernel_estimation.ranking import latent_images
from jbid.metrics import align, kernel_similarity
from jbid.ops.color import luma
from jbid.ops.kernels import extent
from jbid.ops.motion import kernel_of_extent
from jbid.runtime.environment import source_commit, versions_and_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEED = 50_000
EXTENTS = (9, 101)  # pixels, log-uniform
NOISE = (0.0, 0.002, 0.005, 0.01, 0.02)
KINDS = ("photo", "page", "JPEG", "noise", "soft background")
PAGE = 400  # pixels


def restore_blurred(index: int, files: Sequence[Path]) -> dict[str, Any]:
    """Blur one picture and restore it."""
    rng = np.random.default_rng(SEED + index)
    path = files[rng.integers(len(files))]
    photo = luma(read_image(path))
    kernel = kernel_of_extent(min(np.exp(rng.uniform(*np.log(EXTENTS))), min(photo.shape[:2]) / 4), SEED + index)
    noise, half = float(rng.choice(NOISE)), kernel.shape[0] // 2
    blurred = scipy.signal.fftconvolve(photo, kernel[..., None], "valid")
    blurred = np.round(np.clip(blurred + noise * rng.standard_normal(blurred.shape), 0, 1) * 255) / 255
    h, w = blurred.shape[:2]
    sharp = photo[half : half + h, half : half + w, 0]

    shift = max(8, half)

    def score(x):
        return align(np.clip(x, 0, 1), sharp, max_shift=shift, border=max(16, h // 16, shift)).psnr

    found = jbid.deblur(blurred.astype(np.float32))
    before = score(blurred[..., 0])
    estimate = found.prepared.estimate
    assert estimate is not None

    def gain(kernels):
        y = blurred[..., 0].astype(np.float32)
        halves = [k.shape[0] // 2 for k in kernels]
        latents = latent_images(y, kernels)
        return [score(x[n : n + h, n : n + w]) - before for x, n in zip(latents, halves)]

    gains = gain(estimate.kernels)
    return {
        "photo": path.name,
        "seed": SEED + index,
        "size": [h, w],
        "kernel": extent(kernel),
        "noise": noise,
        "psnr_blurred": before,
        "gain": score(found.image[..., 0]) - before,
        # of the chosen kernel even if the picture was left as it is
        "gain_of_kernel": gains[0],
        "regret": max(gains) - gains[0],
        "similarity": kernel_similarity(estimate.kernel, kernel),
        "confidence": found.confidence,
        "chosen": found.chosen,
        "seconds": found.seconds,
    }


def draw_untouched(kind: str, rng: np.random.Generator, files: Sequence[Path]) -> tuple[str, NDArray[np.float32]]:
    """Name and picture (h, w, c) without blur."""
    if kind == "page":
        return "page", draw_page(rng, PAGE)[..., None]
    path = files[rng.integers(len(files))]
    photo = read_image(path)
    if kind == "JPEG":
        return path.name, jpeg(photo, int(rng.integers(50, 96)))
    if kind == "noise":
        photo = photo + rng.uniform(0.005, 0.02) * rng.standard_normal(photo.shape)
    if kind == "soft background":
        soft = scipy.ndimage.gaussian_filter(photo, (*[rng.uniform(2, 5)] * 2, 0))
        rough = scipy.ndimage.gaussian_filter(rng.standard_normal(photo.shape[:2]), min(photo.shape[:2]) / 6)
        photo = np.where((rough > np.quantile(rough, rng.uniform(0.4, 0.7)))[..., None], photo, soft)
    return path.name, (np.round(np.clip(photo, 0, 1) * 255) / 255).astype(np.float32)


def restore_untouched(index: int, files: Sequence[Path]) -> dict[str, Any]:
    """Deblur a picture that has no blur."""
    rng, kind = np.random.default_rng(SEED + 10_000 + index), KINDS[index % len(KINDS)]
    name, picture = draw_untouched(kind, rng, files)
    found = jbid.deblur(picture)
    error = float(np.mean((found.image - picture) ** 2))
    return {
        "photo": name,
        "seed": SEED + 10_000 + index,
        "kind": kind,
        "psnr_to_input": min(99.0, -10 * float(np.log10(error + 1e-12))),
        "is_left": found.chosen == "no blur",
        "confidence": found.confidence,
        "chosen": found.chosen,
        "seconds": found.seconds,
    }


def summarize_blurred(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean gain, regret, shares, and reliability of the confidence."""
    column = {
        name: np.array([row[name] for row in rows]) for name in ("gain", "gain_of_kernel", "regret", "confidence")
    }
    return {
        "pictures": len(rows),
        "gain": float(column["gain"].mean()),
        "gain_spread": float(column["gain"].std()),
        "regret": float(column["regret"].mean()),
        "not_worse": float((column["gain"] >= -0.1).mean()),
        "worst": float(column["gain"].min()),
        "left": sum(row["chosen"] == "no blur" for row in rows),
        "reliability": reliability_table(column["confidence"], column["gain_of_kernel"] > 0),
    }


def summarize_untouched(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Number left as they are and least PSNR, by kind."""

    def summary(own):
        return {
            "pictures": len(own),
            "left": sum(row["is_left"] for row in own),
            "at_least_40_dB": sum(row["psnr_to_input"] >= 40 for row in own),
            "least_psnr": min(row["psnr_to_input"] for row in own),
        }

    return summary(rows) | {kind: summary([row for row in rows if row["kind"] == kind]) for kind in KINDS}


def reliability_plot(rows: Sequence[dict[str, Any]], reliability: Sequence[Sequence[float]]) -> Figure:
    """Share of gains against the confidence, and gain of each picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    said, true, counts = zip(*reliability)
    left.plot([0, 1], [0, 1], color="0.7")
    left.plot(said, true, "o-")
    for x, y, n in zip(said, true, counts):
        left.annotate(str(n), (x, y), textcoords="offset points", xytext=(5, -12))
    left.set(xlabel="confidence", ylabel="share that gains", xlim=(0, 1), ylim=(-0.02, 1.02))
    right.axhline(0, color="0.7")
    right.scatter([row["confidence"] for row in rows], [row["gain_of_kernel"] for row in rows])
    right.set(xlabel="confidence", ylabel="gain of the chosen kernel (dB)", xlim=(0, 1))
    return figure


def _run(compute: Any, count: int, files: Sequence[Path], folder: Path, name: str) -> list[dict[str, Any]]:
    rows = []
    for index in tqdm(range(count), name, file=sys.stderr):
        path = folder / f"{name}_{index:03}.json"
        if not path.exists():
            write_json(path, compute(index, files))
        rows.append(read_json(path))
    return rows


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("python -m benchmarks.unseen", __doc__)
    parser.add_argument("--sharp", type=Path, nargs="+", required=True, help="folders of sharp photos")
    parser.add_argument("--work", type=Path, required=True, help="folder for the results of single pictures")
    parser.add_argument("--blurred", type=int, default=40, help="number of blurred pictures")
    parser.add_argument("--untouched", type=int, default=60, help="number of sharp pictures")
    parser.add_argument("--out", type=json_file, help="report; the plot takes its name")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    files = [path for folder in args.sharp for path in find_images(folder)]
    folder = make_folder(args.work)
    result: dict[str, Any] = {}
    blurred = _run(restore_blurred, args.blurred, files, folder, "blurred")
    untouched = _run(restore_untouched, args.untouched, files, folder, "untouched")
    if blurred:
        result["blurred"] = summarize_blurred(blurred)
    if untouched:
        result["untouched"] = summarize_untouched(untouched)
    for name, values in result.items():
        print(name, values)
    if args.out:
        about = {"command": "python -m benchmarks.unseen", "commit": source_commit(), **versions_and_device()}
        write_json(args.out, about | result | {"rows": {"blurred": blurred, "untouched": untouched}})
        if blurred:
            figure = reliability_plot(blurred, result["blurred"]["reliability"])
            figure.savefig(args.out.with_suffix(".png"), dpi=100)


if __name__ == "__main__":
    sys.exit(run_script(main))
