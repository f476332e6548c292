"""Does early stopping stop near the peak? PSNR against the iteration, with the detected stop (Zhuang et al., Fig. 15).

    python -m benchmarks.stopping --noise gaussian:0.05 --out stopping.json

Runs `robust` without stopping on images made from Levin's set (JBID_DATA), and asks afterwards where the moving
variance would have stopped it, with the window's sampled pixels and with all pixels of all images. Writes the curves as
JSON and as an image. Each image is kept as it is done; --resume continues the run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from benchmarks.script import Parser, json_file, run_script
from jbid.data import levin
from jbid.data.synthetic import synthesize
from jbid.engine.wrappers import default_patience
from jbid.io.files import atomic_write, make_folder, read_json, write_json
from jbid.metrics import align
from jbid.ops.color import luma
from jbid.ops.noise import estimate_noise
from jbid.pipeline.config import Config, build, parse_assignment, resolve
from jbid.pipeline.prepare import prepare
from jbid.pipeline.resume import run_identity
from jbid.runtime.compile import jit
from jbid.runtime.environment import versions_and_device

NAMES = [f"im{i}_kernel{k}_img" for i, k in ((1, 1), (1, 5), (2, 3), (2, 6), (3, 2), (3, 8), (4, 4), (4, 7))]


def curves(item: levin.Item, settings: Config, every: int, full: bool) -> dict:
    """Loss and moving variance at each step, PSNR at every `every`-th one."""
    options = settings.options | {"stop": True, "patience": 10**9}
    task = prepare(item.blurred, settings)
    method = build(settings._replace(options=options), task.kernel_shape, task.observed.shape[-1])
    observed = jnp.asarray(task.observed)
    state = jit(method.init)(
        jax.random.key(settings.seed), observed, task.initial_kernels[0].kernel if task.initial_kernels else None
    )
    step, restore = jit(method.step, donate_argnums=0), jit(method.restore)
    truth = luma(item.sharp)[..., 0]
    noise = jit(estimate_noise)(observed)
    window = settings.options["window"]
    patience = settings.options["patience"] or int(default_patience(noise, window))
    report: dict = {"patience": patience, "loss": [], "variance": [], "at": [], "psnr": []}
    seen: list = []
    if full:
        report["variance_all_pixels"] = []
    for t in tqdm(range(settings.steps), desc=item.name, unit="step"):
        state, info = step(state, observed, jnp.asarray(t))
        report["loss"].append(float(info.loss))
        report["variance"].append(float(state.variance) if np.isfinite(state.variance) else None)
        if full:
            seen = [*seen, np.asarray(info.estimate.image)][-window:]
            report["variance_all_pixels"].append(float(np.var(seen, 0).mean()) if len(seen) == window else None)
        if t % every == 0:
            x = np.asarray(restore(info.estimate, observed).image)
            report["at"].append(t)
            report["psnr"].append(align(luma(x)[..., 0], truth).psnr)
    return report


def stop_at(variance: list[float | None], patience: int) -> tuple[int, int]:
    """The step whose image is kept, and the step after which the run would have stopped (its length: it did not)."""
    least, best = np.inf, 0
    for t, value in enumerate(variance):
        if value is None:  # the window is not full yet
            best = t
        elif value < least:
            least, best = value, t
        elif t - best >= patience:
            return best, t + 1
    return best, len(variance)


def main() -> int:
    parser = Parser("python -m benchmarks.stopping", description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", nargs="+", default=NAMES)
    parser.add_argument("--noise", default="gaussian:0.05")
    parser.add_argument("--every", type=int, default=10, help="steps between two scores (default 10)")
    parser.add_argument("--full", action="store_true", help="also keep whole images, to compare with")
    parser.add_argument("--out", type=json_file, default=Path("stopping.json"))
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--preset", default="quick", help="quick (default) or paper")
    parser.add_argument("--steps", type=int, help="optimization steps (default: the preset's)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one option of robust")
    args = parser.parse_args()
    return run_script(lambda: run_all(args))


def run_all(args: argparse.Namespace) -> int:
    values = {"method": "robust", "preset": args.preset} | ({"steps": args.steps} if args.steps else {})
    settings = resolve([("", values), ("--set", dict(parse_assignment(text) for text in args.set))])
    folder = make_folder(args.out.parent / args.out.stem)
    rows = []
    for item in levin.load(args.data, args.only):
        given = synthesize(item, args.noise, settings.seed)
        name = run_identity(settings, given.blurred, np.array([args.every, args.full]))
        kept = folder / f"{item.name}.json"
        row = read_json(kept) if args.resume else {}
        if row.get("identity") != name:
            report = curves(given, settings, args.every, args.full)
            before = align(luma(given.blurred)[..., 0], luma(given.sharp)[..., 0]).psnr
            row = {"name": item.name, "identity": name, "psnr_blurred": before, **report}
            write_json(kept, row)
        rows.append(judged(row))
        report = ", ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1]["stop"].items())
        print(f"{item.name}: {report}", flush=True)
    gaps = {key: float(np.mean([row["stop"][key] for row in rows])) for key in ("gap", "gap_last")}
    print(f"mean gap to the peak, stopped: {gaps['gap']:.2f} dB; at the end: {gaps['gap_last']:.2f} dB")
    header = {"benchmark": "stopping", "noise": args.noise, "settings": settings._asdict(), **versions_and_device()}
    write_json(args.out, {**header, "mean": gaps, "images": rows})
    plot(args.out.with_suffix(".png"), rows, args.noise)
    print(f"-> {args.out}, {args.out.with_suffix('.png')}")
    return 0


def judged(row: dict) -> dict:
    """The row with where it would have been stopped and what that costs against its peak."""
    best, stop = stop_at(row["variance"], row["patience"])

    def psnr(step):
        return float(np.interp(step, row["at"], row["psnr"]))

    peak = float(np.max(row["psnr"]))
    found = {"best": best, "stop": stop, "psnr": psnr(best), "peak": peak}
    found |= {"peak_at": row["at"][int(np.argmax(row["psnr"]))]}
    found |= {"gap": peak - psnr(best), "gap_last": peak - row["psnr"][-1]}
    if "variance_all_pixels" in row:
        found["best_all_pixels"], found["stop_all_pixels"] = stop_at(row["variance_all_pixels"], row["patience"])
    return row | {"stop": found}


def plot(path: Path, rows: list[dict], noise: str) -> None:
    """The curves, the kept image's step as a dot, the stop as a line."""
    from matplotlib.figure import Figure

    columns = min(4, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * lines), layout="constrained")
    for axis, row in zip(np.ravel(figure.subplots(lines, columns, squeeze=False)), rows):
        axis.plot(row["at"], row["psnr"])
        axis.plot(row["stop"]["best"], row["stop"]["psnr"], "o")
        axis.axvline(row["stop"]["stop"], color="gray", linestyle=":")
        axis.axhline(row["psnr_blurred"], color="k", linestyle="--", linewidth=0.8)
        axis.set_title(row["name"], fontsize=9)
    figure.suptitle(f"PSNR (dB) against steps, {noise}; dot: kept, dotted: stopped, dashed: the image given")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
