"""Blur transfer by a trained operator, and its fit to blurs that it has never seen.

    python -m benchmarks.blur_operator --data DIR --out blur_operator.json
    python -m benchmarks.blur_operator --data DIR --only transfer --weights runs/levin/weights --out levin.json

Transfer (Tran et al. 2021, Table 1, Eq. 8, in small): Kodak's photos are sources S and targets T, the kernels Levin's;
PSNR of F(T, G(S, k * S)) against k * T for each kernel, beside that of T itself, of centers of `--side` pixels; of the
pixels that depend on nothing outside the image, and of the whole image, whose border cannot be known. Each photo is
the source for the `--targets` photos that follow it.

Retrieval (Table 3 in small): GoPro's test pairs; the code is the one that step B of Algorithm 1 finds, `--steps` of
Adam on the Charbonnier distance of F(x, k) and y from G(x, y); PSNR of F(x, k) against y, beside that of G's own code
and of x. Finished parts are kept; --resume continues the run. Beside --out lies an image: the blur of one of GoPro's
pairs put on three of scikit-image's photos, `--side` pixels of each before and after, at their own size.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tabulate import tabulate
from tqdm import tqdm

from benchmarks.script import Parser, json_file, run_script
from jbid import losses
from jbid.data import levin
from jbid.data.crops import to_rgb
from jbid.data.pairs import find_pairs
from jbid.data.synthetic import crop_center_square
from jbid.io import weights
from jbid.io.files import make_folder, write_json
from jbid.io.images import read_image, read_kernel, write_image
from jbid.methods.explore.blur_operator import Operator, operator
from jbid.methods.explore.transfer import apply_code, extract_code
from jbid.metrics import psnr
from jbid.ops.conv import blur
from jbid.pipeline.resume import read_resumable
from jbid.runtime.compile import jit
from jbid.runtime.environment import versions_and_device

SHOWN = 6  # pair whose blur is put on photos


def gopro_pairs(data: Path) -> list[tuple[Path, Path]]:
    """Files of the eight sharp and blurred test images of GoPro's. Raises ValueError where they are not there."""
    pairs = find_pairs(data / "gopro" / "pairs")
    if len(pairs) < 8:
        raise ValueError(f"{data}: expected gopro/pairs with eight pairs, X_sharp.png and X_blur.png, in it")
    return pairs


def transfer(of: Operator, data: Path, side: int, targets: int) -> list[dict]:
    """A row for each of Levin's kernels: PSNR of the transferred blur and of the sharp target."""
    folder = levin.root(data) / "kernels"
    photos = [to_rgb(read_image(path)) for path in sorted((data / "sharp" / "kodak24").glob("*.png"))]
    if len(photos) <= targets:
        raise ValueError(f"{data}: expected more than {targets} photos in sharp/kodak24 in it")
    rows = []
    for path in sorted(folder.glob("*.png")):
        kernel = read_kernel(path)
        margin = kernel.shape[0] - 1
        sharp = [crop_center_square(photo, side + margin) for photo in photos]
        blurred = [np.asarray(blur(jnp.asarray(x), jnp.asarray(kernel))) for x in sharp]
        sharp = [crop_center_square(x, side) for x in sharp]
        half = kernel.shape[0] // 2
        inner = (slice(half, -half), slice(half, -half))
        report: dict[str, list[float]] = {"transferred": [], "sharp": [], "transferred, whole": [], "sharp, whole": []}
        for i in tqdm(range(len(sharp)), desc=path.stem, unit="photo", dynamic_ncols=True):
            code = extract_code(of, sharp[i], blurred[i])
            for j in range(1, targets + 1):
                t = (i + j) % len(sharp)
                for name, shown in (("transferred", apply_code(of, sharp[t], code)), ("sharp", sharp[t])):
                    report[name].append(psnr(shown[inner], blurred[t][inner]))
                    report[f"{name}, whole"].append(psnr(shown, blurred[t]))
        rows.append({"kernel": path.stem, **{name: float(np.mean(values)) for name, values in report.items()}})
    return rows


def retrieval(of: Operator, data: Path, side: int, steps: int, rate: float) -> list[dict]:
    """A row for each of GoPro's pairs: PSNR of F(x, k) with the code that was looked for, with G's, and of x."""
    tx = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def step(code, state, x, y):
        def distance(code):
            return losses.charbonnier_distance(of.blur(x, code), y)

        updates, state = tx.update(jax.grad(distance)(code), state)
        return optax.apply_updates(code, updates), state

    one = jit(step)
    rows = []
    for sharp, blurred in gopro_pairs(data):
        x, y = (crop_center_square(read_image(path), side) for path in (sharp, blurred))
        first = extract_code(of, x, y)
        code, state = jnp.asarray(first), tx.init(jnp.asarray(first))
        for _ in tqdm(range(steps), desc=sharp.stem, unit="step", dynamic_ncols=True):
            code, state = one(code, state, jnp.asarray(x), jnp.asarray(y))
        report = {"retrieved": apply_code(of, x, np.asarray(code)), "by G": apply_code(of, x, first), "sharp": x}
        rows.append({"pair": sharp.stem.removesuffix("_sharp"), **{k: psnr(v, y) for k, v in report.items()}})
    return rows


def transferred(of: Operator, data: Path, side: int, path: Path) -> None:
    """Three of scikit-image's photos, one of them gray, and below them the same with the blur of a GoPro pair."""
    from skimage.data import astronaut, camera, coffee

    sharp, blurred = (read_image(x) for x in gopro_pairs(data)[SHOWN])
    code = extract_code(of, sharp, blurred)
    shown = []
    for photo in (astronaut(), coffee(), camera()[..., None]):
        before = np.asarray(photo, np.float32) / 255
        shown.append([to_rgb(crop_center_square(x, side)) for x in (before, apply_code(of, before, code))])
    write_image(path, np.concatenate([np.concatenate(row, 1) for row in zip(*shown)]))


def run_all(args: argparse.Namespace) -> int:
    data = Path(args.data or os.environ.get("JBID_DATA", ""))
    of = operator("operator", args.weights)
    setup = {"weights": weights.checksums(args.weights)["operator.npz"], "side": args.side}
    setup |= {"targets": args.targets, "steps": args.steps, "rate": args.rate}
    make_folder(args.out.parent)
    report = read_resumable(args.out, setup, resume=args.resume) or {
        "benchmark": "blur_operator",
        "settings": setup,
        **versions_and_device(),
    }
    parts = {
        "transfer": lambda: transfer(of, data, args.side, args.targets),
        "retrieval": lambda: retrieval(of, data, args.side, args.steps, args.rate),
    }
    for name, part in parts.items():
        if args.only not in (None, name):
            continue
        report[name] = report.get(name) or part()
        write_json(args.out, report)
        rows = report[name]
        numbers = [key for key, value in rows[0].items() if isinstance(value, float)]
        mean = {key: float(np.mean([row[key] for row in rows])) for key in numbers}
        print(tabulate([*rows, {next(iter(rows[0])): "mean", **mean}], headers="keys", floatfmt=".2f"))
    if args.only != "transfer":
        image = args.out.with_name(f"{args.out.stem}_transferred.png")
        transferred(of, data, args.side, image)
        print(f"-> {image}")
    print(f"-> {args.out}")
    return 0


def main() -> int:
    parser = Parser("python -m benchmarks.blur_operator", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help="holds levin/, sharp/ and gopro/ (default: $JBID_DATA)")
    add("--weights", type=Path, default=weights.SHIPPED, metavar="DIR", help="holds operator.npz (default: shipped)")
    add("--only", choices=("transfer", "retrieval"), help="one part alone")
    add("--side", type=int, default=256, metavar="N", help="pixels of the centers that are used (default 256)")
    add("--targets", type=int, default=3, metavar="N", help="for each source (default 3)")
    add("--steps", type=int, default=200, metavar="N", help="of retrieval (default 200)")
    add("--rate", type=float, default=0.02, help="of retrieval (default 0.02)")
    add("--resume", action="store_true", help="go on with --out")
    add("--out", type=json_file, default=Path("blur_operator.json"), metavar="FILE.json")
    args = parser.parse_args()
    return run_script(lambda: run_all(args))


if __name__ == "__main__":
    sys.exit(main())
