"""Does it cost accuracy that images of many sizes are padded to share programs?

    python -m benchmarks.padding --data DIR --out padding.json

Of each category of Lai's images, shrunk to a quarter, the one that fills the shape it shares with others
(`jbid.pipeline.grouping.padded_shapes`) least, with kernel 2: `quick` from the edges with two seeds, once in the
image's own shape and once padded to the shared one. PSNR by sd_matlab of a deconvolution with each seed's kernel, and
of the networks' own images. Another shape draws other numbers from the same seeds, so the deviation over seeds stands
beside the difference.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from benchmarks.script import Parser, json_file, run_script
from jbid.bench.protocols import get_protocol
from jbid.data import lai
from jbid.data.levin import Item, resize_item
from jbid.deconvolution.tiled import deconvolve_tiled
from jbid.io.files import write_json
from jbid.ops.color import luma
from jbid.pipeline.config import Config, resolve
from jbid.pipeline.grouping import padded_shapes
from jbid.pipeline.prepare import prepare
from jbid.pipeline.resume import read_resumable
from jbid.pipeline.solve import optimize
from jbid.runtime.environment import versions_and_device

SCALE, SEEDS, KERNEL = 0.25, 2, "kernel_02"
KINDS = ("own", "shared")


def chosen(data: Path | None, settings: Config) -> list[tuple[Item, tuple[int, int]]]:
    """The images, and the shape that each shares with others of the set."""
    names = [name for name in lai.NAMES if name.endswith(KERNEL)]
    items = [resize_item(item, SCALE) for item in lai.load(data, names)]
    room = padded_shapes([item.blurred.shape for item in items], settings)

    def filled(item):
        shape = item.blurred.shape[:2]
        return shape[0] * shape[1] / np.prod(room[shape])

    least: dict[str, Item] = {}
    for item in sorted(items, key=filled):
        least.setdefault(item.name.split("_")[0], item)
    return [(item, room[item.blurred.shape[:2]]) for item in least.values()]


def scores(item: Item, room: tuple[int, int], settings: Config) -> dict[str, Any]:
    """PSNR of each seed, of what it leads to and of the network's own image, with the image padded to `room`."""
    by = get_protocol("sd_matlab", 10)
    task = prepare(item.blurred, settings)._replace(padded_shape=room)
    found = optimize([task], settings).output
    gray, (h, w) = luma(item.blurred), task.observed.shape[:2]
    kernels, networks = np.asarray(found.kernel)[0], np.asarray(found.image)[0, :, :h, :w]
    return {
        "psnr": [by.score(np.round(deconvolve_tiled(gray, k) * 255) / 255, item.sharp).psnr for k in kernels],
        "psnr_network": [by.score(np.round(x * 255) / 255, item.sharp).psnr for x in networks],
    }


def run_all(args: argparse.Namespace) -> int:
    settings = resolve([("", {"preset": "quick", "n_seeds": SEEDS})])
    report = {"scale": SCALE, "kernel": KERNEL, **settings._asdict()}
    before = {row["name"]: row for row in read_resumable(args.out, report, resume=args.resume).get("images", [])}
    header = {"benchmark": "padding", **versions_and_device(), "settings": report}
    rows: list[dict[str, Any]] = []
    for item, room in tqdm(chosen(args.data, settings), unit="image", dynamic_ncols=True):
        shape = item.blurred.shape[:2]
        row = before.get(item.name, {"name": item.name, "own shape": shape, "shared shape": room})
        for kind, padded in zip(KINDS, (shape, room)):
            row[kind] = row.get(kind) or scores(item, padded, settings)
            write_json(args.out, {**header, "images": [*rows, row]})
        rows.append(row)
    lines = []
    for row in rows:
        share = 1 - np.prod(row["own shape"]) / np.prod(row["shared shape"])
        line = [row["name"], f"{share:.0%}"]
        for key in ("psnr", "psnr_network"):
            own, shared = (np.array(row[kind][key]) for kind in KINDS)
            line += [own.mean(), shared.mean(), shared.mean() - own.mean(), own.std(ddof=1)]
        lines.append(line)
    means = [np.mean([line[i] for line in lines]) for i in range(2, 10)]
    columns = [f"{what}{end}" for end in ("", ", network") for what in ("own", "padded", "difference", "deviation")]
    print(tabulate([*lines, ["mean", "", *means]], ["image", "unknown", *columns], floatfmt=".2f", tablefmt="github"))
    return 0


def main() -> int:
    parser = Parser("python -m benchmarks.padding", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help="holds lai/ (default: $JBID_DATA)")
    add("--resume", action="store_true", help="go on with --out")
    add("--out", type=json_file, default=Path("padding.json"), metavar="FILE.json")
    args = parser.parse_args()
    return run_script(lambda: run_all(args))


if __name__ == "__main__":
    sys.exit(main())
