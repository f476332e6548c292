"""The benchmark of Levin et al. 2009, scored by SelfDeblur's protocol."""

from __future__ import annotations

import argparse
import functools
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jbid import images as im
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
from jbid.data import levin as data
from jbid.finish import finish
from jbid.metrics import align, kernel_similarity
from jbid.run import compiled

OTHER_SHIFT = 5  # Levin's own; SelfDeblur's script uses 10


def protocol(max_shift: int) -> dict[str, Any]:
    """How the scores are made, to stand beside them."""
    return {
        "name": "sd_matlab",
        "maxshift": max_shift,
        "border": 15,
        "luma": "gray images",
        "iteration": "last",
        "description": "8-bit result; border of 15 left out; best of all shifts within maxshift in quarter pixels; "
        "PSNR and Matlab's SSIM there; error ratio: squared error over that of jbid's finish with the true kernel; "
        "kernel similarity: largest normalised cross-correlation over shifts, the better orientation",
    }


@functools.cache
def _finish():
    return compiled(finish)


def reference_error(item: data.Item, max_shift: int) -> float:
    """The squared error of `finish` with the true kernel, which error ratios are relative to."""
    x = np.asarray(_finish()(jnp.asarray(item.blurred), jnp.asarray(item.kernel)))[..., 0]
    return align(x, item.sharp[..., 0], max_shift=max_shift).squared_error


def score(item: data.Item, image: np.ndarray, kernel: np.ndarray | None, max_shift: int) -> dict[str, Any]:
    """One row of the table for a result (255, 255) in [0, 1]."""
    sharp = item.sharp[..., 0]
    main, other = (align(image, sharp, max_shift=m) for m in (max_shift, OTHER_SHIFT))
    return {
        "psnr": main.psnr,
        "ssim": main.ssim,
        "error_ratio": main.squared_error / reference_error(item, max_shift),
        "kernel_similarity": None if kernel is None else kernel_similarity(kernel, item.kernel),
        "shift": main.shift,
        f"psnr_maxshift{OTHER_SHIFT}": other.psnr,
        f"ssim_maxshift{OTHER_SHIFT}": other.ssim,
    }


def report(rows: list[dict[str, Any]], header: dict[str, Any], out: Path | None) -> None:
    """Print the table and, with `out`, write it as JSON."""
    from tabulate import tabulate

    def mean(key):
        values = [row[key] for row in rows if row.get(key) is not None]
        return float(np.mean(values)) if values else None

    keys = [k for k in rows[0] if k not in ("name", "shift", "seed", "identity", "losses")]
    means = {key: mean(key) for key in keys}
    shown = [[row["name"], *(row.get(k) for k in keys)] for row in rows]
    shown.append([f"mean of {len(rows)}", *means.values()])
    shown.append(["worst", min(r["psnr"] for r in rows), min(r["ssim"] for r in rows)])
    formats = ["", *(".4f" if "psnr" in k else ".5f" if "ssim" in k else ".3f" for k in keys)]
    print(tabulate(shown, ["name", *keys], tablefmt="github", floatfmt=formats))
    print(f"protocol: {header['protocol']['name']}, maxshift {header['protocol']['maxshift']}; {header['device']}")
    if out:
        write_json(out, {**header, "mean": means, "images": rows})
        print(f"-> {out}")


def main(args: argparse.Namespace) -> int:
    """`python -m jbid.bench levin`."""
    names = args.only or data.NAMES[: args.limit]
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"got --limit {args.limit}, expected at least 1")
    if not 0 <= args.maxshift <= 15:
        raise ValueError(f"got --maxshift {args.maxshift}, expected 0 to 15, the border left out")
    items = data.load(args.data, names)
    header = {"benchmark": "levin", "protocol": protocol(args.maxshift), **versions_and_device()}
    if args.score:
        return _score_folder(args, items, header)

    settings = settings_from(args)
    sizes = {item.name: args.kernel_size or item.kernel_size for item in items}
    out = args.out or Path(f"levin_{settings.method}_{settings.preset}.json")
    folder = out_dir(out.parent / out.stem)
    header["settings"] = settings._asdict() | {"kernel_size": args.kernel_size or "SelfDeblur's for each kernel"}
    batch = args.batch or (1 if jax.default_backend() == "cpu" else 4)
    by_size = defaultdict(list)
    for item in items:
        by_size[sizes[item.name]].append(item)
    rows: dict[str, dict[str, Any]] = {}

    def done(item, name):
        row = read_json(folder / f"{item.name}.json")
        return row if row.get("identity") == name else None

    with interruptible() as asked:
        groups = [g[i : i + batch] for g in by_size.values() for i in range(0, len(g), batch)]
        for number, group in enumerate(groups, 1):
            own = settings._replace(kernel_size=sizes[group[0].name])
            ids = {item.name: identity(own, item.blurred, np.array(args.maxshift)) for item in group}
            if args.resume and all(done(item, ids[item.name]) for item in group):
                rows |= {item.name: done(item, ids[item.name]) for item in group}
                continue
            checkpoint = folder / ".jbid" / ids[group[0].name]
            answers, complete = launch(
                [item.blurred for item in group],
                own,
                kernel=None,
                name=f"{number}/{len(groups)} {group[0].name}",
                folder=checkpoint,
                resume=args.resume,
                seconds=args.checkpoint_every,
                asked=asked,
            )
            if not complete:
                print(f"stopped in {group[0].name}; --resume with the same arguments goes on from here")
                break
            for item, answer in zip(group, answers):
                im.write(folder / f"{item.name}_x.png", answer.image)
                im.write_kernel(folder / f"{item.name}_k.png", answer.kernel)
                # scored as written: 8 bits
                row = {
                    "name": item.name,
                    **score(item, im.read(folder / f"{item.name}_x.png")[..., 0], answer.kernel, args.maxshift),
                }
                network = align(
                    np.round(answer.network_image[..., 0] * 255) / 255, item.sharp[..., 0], max_shift=args.maxshift
                )
                row |= {"psnr_network": network.psnr, "ssim_network": network.ssim}
                row |= {"seconds": answer.seconds, "seed": answer.seed, "loss": float(np.nanmin(answer.losses[-1]))}
                row["identity"] = ids[item.name]
                write_json(folder / f"{item.name}.json", row)
                rows[item.name] = row
                print(f"{item.name}: {row['psnr']:.2f} dB {row['ssim']:.4f} in {row['seconds']:.0f} s", flush=True)
            shutil.rmtree(checkpoint, ignore_errors=True)
            if asked:
                break
    found = [rows[item.name] for item in items if item.name in rows]
    if found:
        report(found, header, out)
    if len(found) < len(items):
        return INTERRUPTED
    shutil.rmtree(folder / ".jbid", ignore_errors=True)
    return 0


def _score_folder(args: argparse.Namespace, items: list[data.Item], header: dict[str, Any]) -> int:
    from tqdm import tqdm

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
        rows.append({"name": item.name, **score(item, image, kernel, args.maxshift)})
    report(rows, header | {"scored": str(args.score.name)}, args.out)
    return 0
