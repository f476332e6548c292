"""Sparse and learned deconvolution and a peer, on Levin's and Lai's images with true and estimated kernels.

    python -m benchmarks.deconvolutions levin --kernels levin_edges_cpu --out deconvolutions_levin.json [--fdn DIR]
    python -m benchmarks.deconvolutions photos --sharp DIR [DIR ...] --out deconvolutions_photos.json

`--kernels` is the folder of images of `python -m jbid.bench`, whose estimated kernels are used beside the true ones;
images of which it has none are left out. PSNR and SSIM by the protocol `sd_matlab`. `auto` is what jbid chooses by
itself. With `--fdn`, the folder of the authors' repository, the Fourier deconvolution network of Kruse et al. 2017 is
measured too, with jbid's noise level; it needs h5py.

`photos` blurs 24 photos as the training does (drawn with seed `SEED`), and nine more with the blur of each; it
deconvolves parts of 192 pixels with two of the true kernel, a perturbed one and jbid's own estimates, and reports PSNR
by similarity of the kernel and by noise.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import fdn
from benchmarks.script import Parser, json_file, run_script
from jbid.bench.protocols import get_protocol
from jbid.bench.scoring import quantize
from jbid.data import lai, levin
from jbid.data.crops import find_images
from jbid.data.levin import Item
from jbid.deconvolution.learned import apply_networks, kernel_levels
from jbid.deconvolution.tiled import Deconvolution, deconvolve_tiled
from jbid.io.files import read_json, write_json
from jbid.io.images import read_kernel
from jbid.metrics import kernel_similarity, psnr
from jbid.ops.color import luma
from jbid.ops.conv import crop_center
from jbid.ops.kernels import pad_to_odd_square
from jbid.ops.noise import estimate_noise, remove_impulses
from jbid.pretrain.deconvolutions import Config, make_items
from jbid.pretrain.deconvolutions import Item as PhotoItem
from jbid.pretrain.deconvolver import BORDER
from jbid.runtime.environment import source_commit, versions_and_device

SETS: dict[str, Callable[..., list[Item]]] = {"levin": levin.load, "lai": lai.load}
PROTOCOL = get_protocol("sd_matlab", 10)
OWN: tuple[Deconvolution, ...] = ("sparse", "learned", "auto")
PHOTOS, SEED = 24, 60_000
NOISES = (0, 0.002, 0.005, 0.01, 0.02)
SIMILARITIES = (0.6, 0.8, 0.9, 0.95, 0.99)


def _fdn(folder: Path, image: NDArray, kernel: NDArray) -> NDArray:
    k = pad_to_odd_square(kernel)
    return fdn.deconvolve(image, k / k.sum(), float(estimate_noise(luma(remove_impulses(image)))), folder)


def measure(item: Item, kernel: NDArray, methods: dict[str, Callable[[NDArray, NDArray], NDArray]]) -> dict[str, Any]:
    """PSNR, SSIM and seconds of each method, and the similarity of the kernel."""
    assert item.sharp is not None and item.kernel is not None
    row: dict[str, Any] = {"similarity": kernel_similarity(kernel, item.kernel)}
    for name, deconvolve in methods.items():
        began = time.perf_counter()
        image = deconvolve(item.blurred, kernel)
        seconds = time.perf_counter() - began
        found = PROTOCOL.score(quantize(image), item.sharp)
        row[name] = {"psnr": found.psnr, "ssim": found.ssim, "seconds": round(seconds, 2)}
    return row


def summarize(rows: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Means over images and the largest loss against the sparse deconvolution, by kind of the kernel."""
    table: dict[str, Any] = {}
    for kind in sorted({row["kernels"] for row in rows}):
        chosen = [row for row in rows if row["kernels"] == kind]
        table[kind] = {"images": len(chosen)}
        for name in names:
            gains = [row[name]["psnr"] - row["sparse"]["psnr"] for row in chosen]
            means = {key: float(np.mean([row[name][key] for row in chosen])) for key in ("psnr", "ssim", "seconds")}
            table[kind][name] = means | {"least_gain": float(np.min(gains)), "worse": sum(g < -0.2 for g in gains)}
    return table


def run_set(name: str, folder: Path | None, peer: Path | None, out: Path) -> dict[str, Any]:
    """Rows of a set, those of an interrupted run kept."""

    def methods(kind: str) -> dict[str, Callable[[NDArray, NDArray], NDArray]]:
        own = {m: partial(deconvolve_tiled, method=m, is_exact=kind == "true") for m in OWN}
        return own if peer is None else {**own, "fdn": partial(_fdn, peer)}

    rows = read_json(out).get("rows", [])
    done = {(row["image"], row["kernels"]) for row in rows}
    items = [item for item in SETS[name]() if folder is None or (folder / f"{item.name}_k.png").exists()]
    for item in tqdm(items, name, unit="image", dynamic_ncols=True):
        kernels = {"true": item.kernel}
        if folder is not None:
            kernels["estimated"] = read_kernel(folder / f"{item.name}_k.png")
        for kind, kernel in kernels.items():
            if (item.name, kind) not in done:
                rows.append({"image": item.name, "kernels": kind, **measure(item, kernel, methods(kind))})
                write_json(out, {"rows": rows})
    return {"set": name, "protocol": PROTOCOL.to_dict(), "means": summarize(rows, list(methods("true"))), "rows": rows}


def _bins(items: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows by similarity of the kernel, by noise and by kind of the kernel."""
    bins: dict[str, list[dict[str, Any]]] = {}
    for row in items:
        least = max((s for s in SIMILARITIES if s <= row["similarity"]), default=0)
        noise = max((n for n in NOISES if n <= row["noise"]), default=0)
        for name in (f"similarity from {least}", f"noise from {noise}", row["kind"]):
            bins.setdefault(name, []).append(row)
    return bins


def restore(item: PhotoItem) -> tuple[NDArray, NDArray]:
    """Sparse and learned deconvolution."""
    numbers = {"scale": item.scale, "noise": item.estimate, "levels": kernel_levels(item.kernel)}
    learned = apply_networks(item.blurred / np.float32(255), item.kernel, item.latent, **numbers)
    return crop_center(item.latent, item.kernel.shape), learned


def run_photos(folders: list[Path], out: Path) -> dict[str, Any]:
    """PSNR of photos of no training; those of an interrupted run are kept."""
    files = [path for folder in folders for path in find_images(folder)]
    rows = read_json(out).get("rows", [])
    for i in tqdm(range(PHOTOS), "photos", unit="photo", dynamic_ncols=True):
        if any(row["photo"] == i for row in rows):
            continue
        for item in make_items(Config(), files, SEED + i):
            images = (np.clip(x, 0, 1)[BORDER:-BORDER, BORDER:-BORDER] for x in restore(item))
            sparse, learned = (psnr(x, item.sharp[BORDER:-BORDER, BORDER:-BORDER].astype(np.float32)) for x in images)
            row = {"kind": item.kind, "similarity": item.similarity, "side": item.kernel.shape[0], "noise": item.noise}
            rows.append({"photo": i, **row, "sparse": sparse, "learned": learned})
        write_json(out, {"rows": rows})
    means = {
        name: {
            "images": len(chosen),
            "sparse": float(np.mean([row["sparse"] for row in chosen])),
            "learned": float(np.mean([row["learned"] for row in chosen])),
            "least_gain": float(min(row["learned"] - row["sparse"] for row in chosen)),
        }
        for name, chosen in sorted(_bins(rows).items())
    }
    return {"set": "photos", "means": means, "rows": rows}


def main() -> int | None:
    """Measure, print, write JSON."""
    parser = Parser("python -m benchmarks.deconvolutions", __doc__)
    parser.add_argument("set", choices=[*SETS, "photos"])
    parser.add_argument("--kernels", type=Path)
    parser.add_argument("--fdn", type=Path)
    parser.add_argument("--sharp", type=Path, nargs="+", default=[])
    parser.add_argument("--out", type=json_file, required=True)
    args = parser.parse_args()
    if args.set == "photos":
        content = run_photos(args.sharp, args.out)
    else:
        content = run_set(args.set, args.kernels, args.fdn, args.out)
    write_json(args.out, {"benchmark": "deconvolutions", **versions_and_device(), "commit": source_commit(), **content})
    print(json.dumps(content["means"], indent=2))
    return None


if __name__ == "__main__":
    sys.exit(run_script(main))
