"""Convergence of the methods (Zhang et al., ECCV 2024, Fig. 9 and Table 4; --spaces: Table 3).

    python -m benchmarks.convergence --data DIR --out convergence.json

SelfDeblur from a random kernel in 500 steps beside gkpile in 200, from a random code, the uniform kernel inverted
("average"), the edge-based kernel and the initializer; `quick` width, the learning rates falling to zero over the
steps, the kernel's frame given, two seeds each. With --spaces: w, z and z with the generator's weights, from
the edge-based initial kernel. Eight of Levin's images and the centers of four of Lai's, 256 pixels. PSNR (SelfDeblur's
protocol) is that of the network's own image every 20 steps, and at the end also that of a deconvolution with its
kernel; means over images and seeds, last iterate. Finished runs are kept; --resume continues.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from benchmarks.script import Parser, json_file, run_script
from benchmarks.stopping import NAMES as LEVIN
from jbid.data import lai, levin
from jbid.data.synthetic import crop_center_square
from jbid.deconvolution.tiled import deconvolve_tiled
from jbid.engine.wrappers import over_seeds
from jbid.io.files import atomic_write, make_folder, read_json, write_json
from jbid.metrics import align
from jbid.ops.color import luma
from jbid.pipeline.config import Config, build, resolve
from jbid.pipeline.prepare import prepare
from jbid.pipeline.resume import run_identity
from jbid.runtime.compile import jit
from jbid.runtime.environment import versions_and_device

LAI = ("manmade_01_kernel_01", "natural_02_kernel_02", "people_03_kernel_03", "text_04_kernel_04")
SIDE, EVERY, SEEDS = 256, 20, 2
NARROW: dict[str, Any] = dict(channels=32, schedule="cosine", finish=False, patch=0, seeds=SEEDS, color="luma")
GKPILE: dict[str, Any] = dict(method="gkpile", steps=200, ssim_from=40, **NARROW)
CURVES: dict[str, dict[str, Any]] = {
    "selfdeblur, random": dict(
        method="selfdeblur", steps=500, init="random", ssim_from=100, kernel_net="mlp", kernel_lr=5e-4, **NARROW
    ),
    "gkpile, random": GKPILE | dict(init="random"),
    "gkpile, average": GKPILE | dict(init="uniform", kernel_hold=0),
    "gkpile, edges": GKPILE | dict(init="edges"),
    "gkpile, learned": GKPILE | dict(init="learned"),
}
SPACES = {f"gkpile in {space}": GKPILE | dict(init="edges", space=space) for space in ("w", "z", "z_theta")}


def curve(item: levin.Item, settings: Config) -> dict[str, Any]:
    """PSNR of each seed's own image along the way, and at the end that of a deconvolution with its kernel."""
    size = max(item.kernel.shape) | 1
    task = prepare(item.blurred, settings._replace(kernel_size=size))
    method = over_seeds(build(settings, task.kernel_shape, 1))
    observed = jnp.asarray(task.observed)
    starts = jnp.asarray(task.kernels_of_seeds(SEEDS)) if task.initial_kernels else None
    state = jit(method.init)(jax.vmap(jax.random.key)(jnp.arange(SEEDS)), observed, starts)
    step = jit(method.step, donate_argnums=0)
    restore = jit(lambda state, y: method.restore(method.estimate(state), y))
    truth = luma(item.sharp)[..., 0]
    at, psnr = [], []
    for t in tqdm(range(settings.steps + 1), desc=item.name, unit="step", dynamic_ncols=True):
        if t % EVERY == 0:
            now = restore(state, observed)
            at.append(t)
            psnr.append([align(np.asarray(x)[..., 0], truth).psnr for x in now.image])
        if t < settings.steps:
            state, _ = step(state, observed, jnp.asarray(t))
    gray = luma(task.image)
    deconvolved = [align(deconvolve_tiled(gray, np.asarray(k))[..., 0], truth).psnr for k in now.kernel]
    return {"size": task.kernel_shape[0], "true_size": size, "at": at, "psnr": psnr, "deconvolved": deconvolved}


def items(data: Path | None, which: list[str]) -> list[levin.Item]:
    """Levin's images, and the centers of Lai's."""
    found = levin.load(data, [name for name in which if name in levin.NAMES])
    for item in lai.load(data, [name for name in which if name not in levin.NAMES]):
        found.append(
            item._replace(blurred=crop_center_square(item.blurred, SIDE), sharp=crop_center_square(item.sharp, SIDE))
        )
    return found


def run_all(args: argparse.Namespace) -> int:
    folder = make_folder(args.out.parent / args.out.stem)
    variants = dict(SPACES if args.spaces else CURVES)
    if unknown := set(args.variants or ()) - set(variants):
        raise ValueError(f"no such variant: {', '.join(unknown)}; there are: {'; '.join(variants)}")
    rows = []
    for name, values in variants.items():
        if args.variants and name not in args.variants:
            continue
        settings = resolve([(name, values)])
        for item in items(args.data, args.only):
            mark = run_identity(settings, item.blurred)
            kept = folder / f"{name.replace(', ', '_').replace(' ', '_')}_{item.name}.json"
            row = read_json(kept) if args.resume else {}
            if row.get("identity") != mark:
                row = {"variant": name, "name": item.name, "identity": mark, **curve(item, settings)}
                write_json(kept, row)
            rows.append(row)
            psnr = np.mean(row["psnr"][-1]), np.mean(row["deconvolved"])
            print(f"{name}, {item.name}: {psnr[0]:.2f} dB, deconvolved {psnr[1]:.2f}")
    summary = []
    for name in dict.fromkeys(row["variant"] for row in rows):
        mine = [row for row in rows if row["variant"] == name]
        psnr = np.mean([np.mean(row["psnr"], 1) for row in mine], 0)
        of = {"images": len(mine), "deconvolved": float(np.mean([row["deconvolved"] for row in mine]))}
        by_size = {
            f"size {s}": float(np.mean([row["psnr"][-1] for row in mine if row["size"] == s]))
            for s in sorted({row["size"] for row in mine})
        }
        shown = {f"step {t}": float(psnr[mine[0]["at"].index(t)]) for t in (100, 200, 500) if t in mine[0]["at"]}
        summary.append({"variant": name, **of, **shown, **by_size})
    write_json(args.out, {"benchmark": "convergence", "summary": summary, "runs": rows, **versions_and_device()})
    print(tabulate(summary, headers="keys", floatfmt=".2f"))
    plot(args.out.with_suffix(".png"), rows)
    print(f"-> {args.out}, {args.out.with_suffix('.png')}")
    return 0


def plot(path: Path, rows: list[dict]) -> None:
    """Mean PSNR of each variant against steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axis = figure.subplots()
    for name in dict.fromkeys(row["variant"] for row in rows):
        mine = [row for row in rows if row["variant"] == name]
        axis.plot(mine[0]["at"], np.mean([np.mean(row["psnr"], 1) for row in mine], 0), label=name)
    axis.set_xlabel("step")
    axis.set_ylabel("PSNR (dB), mean of images and seeds")
    axis.legend()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)


def main() -> int:
    parser = Parser("python -m benchmarks.convergence", description=__doc__)
    parser.add_argument("--data", type=Path, metavar="DIR", help="holds levin/ and lai/ (default: $JBID_DATA)")
    parser.add_argument("--only", nargs="+", default=[*LEVIN, *LAI], metavar="NAME", help="images (default: twelve)")
    parser.add_argument(
        "--variants", nargs="+", metavar="NAME", help="some of the variants only, as the report names them"
    )
    parser.add_argument("--spaces", action="store_true", help="Table 3 in place of Table 4")
    parser.add_argument("--out", type=json_file, default=Path("convergence.json"), metavar="FILE.json")
    parser.add_argument("--resume", action="store_true", help="go on with what is in the folder beside --out")
    args = parser.parse_args()
    return run_script(lambda: run_all(args))


if __name__ == "__main__":
    sys.exit(main())
