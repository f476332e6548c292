"""Do simulated kernels look like recorded ones, and how fast are they made?

    python -m benchmarks.kernel_models --data DIR --out kernel_models.json

For each of `jbid.motion.MODELS`, 10,000 kernels of 31x31 pixels are timed, compilation apart, and 2,000 measured:
support (longer side of what is above 2 % of the largest value), length (pixels of the thinned support), spread (the
exponential of the entropy, over the length: how wide the line is), and winding (length over support: 1 for a straight
line along an axis, more for a curved one). The same for Levin's and Lai's kernels, at their own
sizes. Writes a grid of kernels beside the JSON: recorded ones first.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import jax
import numpy as np
from skimage.morphology import skeletonize
from tabulate import tabulate

from benchmarks.script import Parser, json_file, run_script
from jbid.data import lai, levin
from jbid.io.files import make_folder, write_json
from jbid.io.images import image_grid, read_kernel, write_image
from jbid.ops import motion
from jbid.ops.kernels import place_kernel
from jbid.runtime.compile import jit
from jbid.runtime.environment import versions_and_device

SIZE, TIMED, MEASURED, AT_ONCE = 31, 10_000, 2_000, 2_000


def statistics(kernel: np.ndarray) -> dict[str, float]:
    """Of one kernel; lengths in pixels."""
    inside = kernel > 0.02 * kernel.max()
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    support = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    length = int(skeletonize(inside).sum())
    p = kernel[inside] / kernel[inside].sum()
    return {
        "support": float(support),
        "length": float(length),
        "spread": float(np.exp(-(p * np.log(p)).sum()) / max(length, 1)),
        "winding": float(length / support),
    }


def summary(kernels) -> dict[str, float]:
    """Median of each statistic."""
    each = [statistics(np.asarray(kernel)) for kernel in kernels]
    return {name: float(np.median([e[name] for e in each])) for name in each[0]}


def recorded(data: str | None, kind) -> list[np.ndarray]:
    return [read_kernel(p) for p in sorted((kind.root(data) / "kernels").glob("*.png"))]


def run_all(args: argparse.Namespace) -> int:
    make_folder(args.out.parent)
    sets = {"Levin, recorded": recorded(args.data, levin), "Lai, recorded": recorded(args.data, lai)}
    report: dict[str, dict] = {name: summary(kernels) for name, kernels in sets.items()}
    shown = [place_kernel(k, SIZE) for k in sets["Levin, recorded"]]
    for name in motion.KERNEL_MODELS:
        made = jit(lambda key, name=name: motion.motion_kernels(key, SIZE, AT_ONCE, name))
        some = np.asarray(made(jax.random.key(0)))
        began = time.perf_counter()
        for i in range(TIMED // AT_ONCE):
            made(jax.random.key(i)).block_until_ready()
        report[name] = {**summary(some[:MEASURED]), "seconds": time.perf_counter() - began}
        shown += list(some[:16])
    for kernel in sets["Lai, recorded"]:
        size = max(kernel.shape) | 1
        report[f"Lai, {size} pixels"] = summary([kernel])
        report[f"camera, {size} pixels"] = summary(np.asarray(motion.motion_kernels(jax.random.key(0), size, 300)))
    write_json(args.out, {"kernels": TIMED, "size": SIZE, "models": report, **versions_and_device()})
    write_image(args.out.with_suffix(".png"), image_grid(np.stack(shown), 16))
    print(tabulate([{"kernels": name, **values} for name, values in report.items()], headers="keys", floatfmt=".2f"))
    return 0


def main() -> int:
    parser = Parser("python -m benchmarks.kernel_models", description=__doc__)
    parser.add_argument("--data", type=Path, metavar="DIR", help="holds levin/ and lai/ (default: $JBID_DATA)")
    parser.add_argument("--out", type=json_file, default=Path("kernel_models.json"), metavar="FILE.json")
    args = parser.parse_args()
    return run_script(lambda: run_all(args))


if __name__ == "__main__":
    sys.exit(main())
