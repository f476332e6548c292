"""Benchmarks on sets of blurred images with known truth, scored by SelfDeblur's protocol."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from jbid import images as im
from jbid.auto import support
from jbid.cli import (
    INTERRUPTED,
    identity,
    interruptible,
    launch,
    out_dir,
    read_json,
    settings_from,
    versions_and_device,
    write_json,
)
from jbid.data import lai, levin
from jbid.data.levin import Item
from jbid.deblur import Deblurred, Task, prepare
from jbid.metrics import Aligned, align, kernel_similarity, lpips, vif
from jbid.settings import Settings
from jbid.tiles import finish_large

BORDER = 15
OTHER_SHIFT = 5  # Levin's own; SelfDeblur's script uses 10


def protocol(max_shift: int) -> dict[str, Any]:
    """How the scores are made, to stand beside them."""
    return {
        "name": "sd_matlab",
        "maxshift": max_shift,
        "border": BORDER,
        "luma": "full-range BT.601 Y; Levin's images are gray",
        "iteration": "last",
        "description": "8-bit result; border of 15 left out; best of all shifts within maxshift in quarter pixels; "
        "PSNR and Matlab's SSIM there; error ratio: squared error over that of jbid's finish with the true kernel; "
        "kernel similarity: largest normalised cross-correlation over shifts, the better orientation",
    }


def reference(item: Item, max_shift: int) -> Aligned:
    """`finish` with the true kernel, which error ratios are relative to."""
    x = finish_large(im.luma(item.blurred), item.kernel)[..., 0]
    return align(x, im.luma(item.sharp)[..., 0], max_shift=max_shift)


def score(
    item: Item, image: np.ndarray, kernel: np.ndarray | None, max_shift: int, weights: Path | None = None
) -> dict[str, Any]:
    """One row of the table for a gray result (h, w) in [0, 1]; with `weights`, LPIPS too."""
    sharp = im.luma(item.sharp)[..., 0]
    known = reference(item, max_shift)
    main, other = (align(image, sharp, max_shift=m) for m in (max_shift, OTHER_SHIFT))
    blurred = align(im.luma(item.blurred)[..., 0], sharp, max_shift=max_shift)
    inner = sharp[BORDER:-BORDER, BORDER:-BORDER]
    row = {
        "psnr": main.psnr,
        "ssim": main.ssim,
        "error_ratio": main.squared_error / known.squared_error,
        "kernel_similarity": None if kernel is None else kernel_similarity(kernel, item.kernel),
        "shift": main.shift,
        f"psnr_maxshift{OTHER_SHIFT}": other.psnr,
        f"ssim_maxshift{OTHER_SHIFT}": other.ssim,
        "psnr_blurred": blurred.psnr,
        "ssim_blurred": blurred.ssim,
        "vif": vif(main.image, inner),
        "vif_blurred": vif(blurred.image, inner),
        "psnr_true_kernel": known.psnr,
    }
    if weights is not None:
        for key, aligned in (("lpips", main), ("lpips_blurred", blurred)):
            row[key] = lpips(aligned.image[..., None], inner[..., None], weights)
    return row


def mean(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    """The mean over the rows that have the key; None where none has."""
    values = [row[key] for row in rows if row.get(key) is not None]
    return float(np.mean(values)) if values else None


def report(rows: list[dict[str, Any]], header: dict[str, Any], out: Path | None) -> None:
    """Print the table and, with `out`, write it as JSON."""
    from tabulate import tabulate

    keys = [k for k in rows[0] if isinstance(rows[0][k], (int, float)) and k != "maxshift"]
    means = {key: mean(rows, key) for key in keys}
    shown = [[row["name"], *(row.get(k) for k in keys)] for row in rows]
    shown.append([f"mean of {len(rows)}", *means.values()])
    shown.append(["worst", min(r["psnr"] for r in rows), min(r["ssim"] for r in rows)])
    formats = ["", *(".4f" if "psnr" in k else ".5f" if "ssim" in k else ".3f" for k in keys)]
    print(tabulate(shown, ["name", *keys], tablefmt="github", floatfmt=formats))
    print(f"protocol: {header['protocol']['name']}, maxshift {header['protocol']['maxshift']}; {header['device']}")
    if out:
        write_json(out, {**header, "mean": means, "images": rows})
        print(f"-> {out}")


SETS = {"levin": levin, "lai": lai}


class Case(NamedTuple):
    """An image and what to do with it."""

    item: Item
    settings: Settings
    kernel: np.ndarray | None = None  # where it is told

    @property
    def identity(self) -> str:
        return identity(self.settings, self.item.blurred, self.kernel)


def loaded(args: argparse.Namespace, data) -> list[Item]:
    """The images that the arguments ask for."""
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"got --limit {args.limit}, expected at least 1")
    if not 0 <= args.maxshift <= 15:
        raise ValueError(f"got --maxshift {args.maxshift}, expected 0 to 15, the border left out")
    if args.lpips is not None:
        # a wrong file is to be told of before the first image and not after
        lpips(np.zeros((64, 64, 1)), np.zeros((64, 64, 1)), args.lpips)
    return data.load(args.data, args.only or data.NAMES[: args.limit])


def main(args: argparse.Namespace) -> int:
    """`python -m jbid.bench levin` and `lai`."""
    items = loaded(args, SETS[args.command])
    header = {"benchmark": args.command, "protocol": protocol(args.maxshift), **versions_and_device()}
    if args.score:
        return _score_folder(args, items, header)

    published = args.kernel_size == "published"
    if published:
        args.kernel_size = None
    settings = settings_from(args)
    out = args.out or Path(f"{args.command}_{settings.method}_{settings.preset}.json")
    header["settings"] = settings._asdict() | {"kernel_size": "published" if published else settings.kernel_size}
    cases = [Case(it, settings._replace(kernel_size=it.kernel_size) if published else settings) for it in items]
    rows, complete = run_cases(cases, out, args)
    if rows:
        report(rows, header, out)
    return finished(complete, out)


def finished(complete: bool, out: Path) -> int:
    """The exit code; what was kept for resuming is cleared away where all is done."""
    if not complete:
        print("stopped early; --resume with the same arguments goes on from here")
        return INTERRUPTED
    shutil.rmtree(out.parent / out.stem / ".jbid", ignore_errors=True)
    return 0


def run_cases(cases: Sequence[Case], out: Path, args: argparse.Namespace) -> tuple[list[dict[str, Any]], bool]:
    """A row for each case, in order, written to a folder beside `out` as it comes; and whether they are all there.

    With --resume, rows of the same settings and pictures are taken from there.
    """
    folder = out_dir(out.parent / out.stem)
    batch = args.batch or (1 if jax.default_backend() == "cpu" else 4)
    rows: dict[str, dict[str, Any]] = {}
    # images of one shape and settings are neighbours, so that they can share a launch
    groups: dict[tuple, list[Case]] = {}
    for case in cases:
        same = json.dumps(case.settings._asdict(), default=list), case.item.blurred.shape, case.kernel is None
        groups.setdefault(same, []).append(case)
    with interruptible() as asked, tqdm(total=len(cases), desc=out.stem, unit="image", dynamic_ncols=True) as bar:
        for group in groups.values():
            left = []
            for case in group:
                row = read_json(folder / f"{case.item.name}.json") if args.resume else {}
                kept = row.get("identity") == case.identity and row.get("maxshift") == args.maxshift
                if kept and (args.lpips is None or "lpips" in row):
                    rows[case.item.name] = row
                    bar.update()
                else:
                    left.append(case)
            for some in (left[i : i + batch] for i in range(0, len(left), batch)):
                if asked:
                    break
                for row in _solved(some, folder, args, asked):
                    rows[row["name"]] = row
                    bar.update()
                    tqdm.write(f"{row['name']}: {row['psnr']:.2f} dB {row['ssim']:.4f} in {row['seconds']:.1f} s")
    found = [rows[case.item.name] for case in cases if case.item.name in rows]
    return found, len(found) == len(cases)


def _solved(cases: Sequence[Case], folder: Path, args: argparse.Namespace, asked: list) -> Iterator[dict[str, Any]]:
    """The row of each case, its result written; those of one kernel size share a launch. Nothing where stopped."""
    settings = cases[0].settings
    tasks = [prepare(case.item.blurred, settings, kernel=case.kernel) for case in cases]
    for shape in sorted({task.kernel_shape for task in tasks}):
        at = [i for i, task in enumerate(tasks) if task.kernel_shape == shape]
        checkpoint = folder / ".jbid" / cases[at[0]].identity
        answers, complete = launch(
            [tasks[i] for i in at],
            settings,
            name=cases[at[0]].item.name,
            folder=checkpoint,
            resume=args.resume,
            seconds=args.checkpoint_every,
            asked=asked,
        )
        if not complete:
            return
        for i, answer in zip(at, answers):
            item, task = cases[i].item, tasks[i]
            im.write(folder / f"{item.name}_x.png", answer.image)
            im.write_kernel(folder / f"{item.name}_k.png", answer.kernel)
            # scored as written: 8 bits
            written = im.luma(im.read(folder / f"{item.name}_x.png"))[..., 0]
            row = {"name": item.name, **score(item, written, answer.kernel, args.maxshift, args.lpips)}
            row |= _sizes(item, answer, task)
            if args.each_seed:
                row["psnr_of"] = _each(item, task, answer, args.maxshift)
            if answer.network_image is not None and answer.network_image.shape[:2] == item.sharp.shape[:2]:
                network = np.round(im.luma(answer.network_image)[..., 0] * 255) / 255
                aligned = align(network, im.luma(item.sharp)[..., 0], max_shift=args.maxshift)
                row |= {"psnr_network": aligned.psnr, "ssim_network": aligned.ssim}
            row |= {"seconds": answer.seconds, "chosen": answer.chosen, "stopped": [int(n) for n in answer.stopped]}
            row |= {"identity": cases[i].identity, "maxshift": args.maxshift}
            row["candidates"] = [candidate.told() for candidate in answer.candidates]
            write_json(folder / f"{item.name}.json", row)
            yield row
        shutil.rmtree(checkpoint, ignore_errors=True)


def _sizes(item: Item, answer: Deblurred, task: Task) -> dict[str, Any]:
    """The support that was found and the true one: the larger side of what exceeds 5 % of the maximum."""

    def extent(kernel):
        part = support(kernel > 0.05 * kernel.max())
        return max(side.stop - side.start for side in part)

    return {
        "kernel_size": max(task.kernel_shape),
        "support_start": max(task.edges.support) if task.edges else None,
        "support": extent(answer.kernel),
        "support_true": extent(item.kernel),
    }


def _each(item: Item, task: Task, answer: Deblurred, max_shift: int) -> dict[str, float]:
    """PSNR of `finish` with the kernel of each candidate, to see what the choice without truth costs."""
    scores = {}
    for candidate, kernel in zip(answer.candidates, answer.kernels):
        if np.isfinite(kernel).all():
            x = finish_large(im.luma(task.picture), kernel)[..., 0]
            aligned = align(np.round(x * 255) / 255, im.luma(item.sharp)[..., 0], max_shift=max_shift)
            scores[candidate.name] = aligned.psnr
    return scores


def _score_folder(args: argparse.Namespace, items: list[Item], header: dict[str, Any]) -> int:
    files = {item.name: args.score / f"{item.name}_x.png" for item in items}
    missing = [path for path in files.values() if not path.is_file()]
    if missing:
        raise ValueError(f"{args.score}: {len(missing)} results are missing, the first is {missing[0].name}")
    rows = []
    for item in tqdm(items, desc="scoring", unit="image"):
        kernel_file = args.score / f"{item.name}_k.png"
        kernel = im.read_kernel(kernel_file) if kernel_file.is_file() else None
        image = im.luma(im.read(files[item.name]))[..., 0]
        if image.shape != item.sharp.shape[:2]:
            raise ValueError(f"{files[item.name]}: got {image.shape} pixels, expected {item.sharp.shape[:2]}")
        rows.append({"name": item.name, **score(item, image, kernel, args.maxshift, args.lpips)})
    report(rows, header | {"scored": str(args.score.name)}, args.out)
    return 0
