"""Comparison of a learned blur operator with a convolution, and of an image manifold with a deep image prior.

    python -m benchmarks.explore_deblur --data DIR --out explore_deblur.json

deblur: two of GoPro's test pairs and two of Kodak's photos blurred with Levin's kernels, centers of 256 pixels:
`explore`, joint and alternating, beside `selfdeblur` and the initial kernel alone, each with its `quick` preset: PSNR
and SSIM of luma at the best shift within 5 pixels, PSNR as it is, seconds (the first image's with compilation).
models: Figure 6 of Tran et al. (CVPR 2021) in small: the data term over the steps on one of GoPro's pairs with three
models of the blur: a convolution, a fixed bicubic reduction, the learned operator.
lines: ten rendered lines of held-out words, blurred with simulated kernels of 31 pixels, noise 0.02: the manifold of
lines (configs/explore_lines.toml) beside `selfdeblur` and the initial kernel alone.

Each answer is kept as it is done; --resume continues the run. Images and plots lie beside --out.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from benchmarks.blur_operator import gopro_pairs
from benchmarks.script import Parser, json_file, run_script
from jbid.data import levin
from jbid.data.synthetic import crop_center_square
from jbid.data.text_lines import line
from jbid.engine.driver import CHUNK, run
from jbid.io import weights
from jbid.io.files import atomic_write, make_folder, read_json, write_json
from jbid.io.images import read_image, read_kernel, write_image
from jbid.metrics import align, psnr
from jbid.ops import motion
from jbid.ops.color import luma
from jbid.ops.conv import blur
from jbid.pipeline.config import build, read_config, resolve
from jbid.pipeline.prepare import prepare
from jbid.pipeline.resume import read_resumable, run_identity
from jbid.pipeline.solve import solve
from jbid.runtime.environment import versions_and_device

SIDE = 256
METHODS: dict[str, dict[str, Any]] = {
    "initial kernel alone": dict(preset="instant"),
    "selfdeblur": dict(preset="quick"),
    "explore, joint": dict(method="explore", preset="quick"),
    "explore, alternating": dict(
        method="explore", preset="quick", scheme="alternating", kernel_steps=12, image_steps=4, steps=80
    ),
}
MODELS = ("convolution", "bicubic", "operator")
ON_LINES: dict[str, dict[str, Any]] = {
    "initial kernel alone": dict(preset="instant", kernel_size=31),
    "selfdeblur": dict(preset="quick", kernel_size=31),
}
LINE = 252  # pixels, 21 letters
MANIFOLD = Path(__file__).parent.parent / "configs" / "explore_lines.toml"


class Case(NamedTuple):
    name: str
    sharp: np.ndarray
    blurred: np.ndarray


def images(data: Path) -> list[Case]:
    """Two of GoPro's pairs, and two photos of Kodak's blurred with Levin's kernels."""
    found = []
    for sharp, blurred in gopro_pairs(data)[1:8:4]:
        found.append(Case(sharp.stem, *(crop_center_square(read_image(path), SIDE) for path in (sharp, blurred))))
    for photo, kernel in (("kodim05", "kernel1"), ("kodim19", "kernel6")):
        k = read_kernel(levin.root(data) / "kernels" / f"{kernel}.png")
        sharp = crop_center_square(read_image(data / "sharp" / "kodak24" / f"{photo}.png"), SIDE + len(k) - 1)
        blurred = np.asarray(blur(jnp.asarray(sharp), jnp.asarray(k)))
        found.append(Case(f"{photo} {kernel}", crop_center_square(sharp, SIDE), blurred))
    return found


def scored(image: np.ndarray, sharp: np.ndarray) -> dict[str, float]:
    """PSNR and SSIM of luma at the best shift."""
    aligned = align(luma(image)[..., 0], luma(sharp)[..., 0], max_shift=5, border=5)
    return {"psnr": aligned.psnr, "ssim": aligned.ssim}


def deblurred(case: Case, values: dict[str, Any]) -> tuple[dict[str, float], np.ndarray]:
    """Scores of one method's answer, and the answer."""
    settings = resolve([("", values)])
    began = time.perf_counter()
    answer = solve([prepare(case.blurred, settings)], settings)[0]
    seconds = time.perf_counter() - began
    image = np.clip(answer.image, 0, 1)
    return scored(image, case.sharp) | {"psnr_as_it_is": psnr(image, case.sharp), "seconds": seconds}, image


def compared(cases: list[Case], methods: dict[str, dict], folder: Path, resume: bool) -> list[dict]:
    """A row for each case and method; a panel for each case: blurred, the methods' answers, sharp."""
    rows = []
    for case in tqdm(cases, unit="image", dynamic_ncols=True):
        shown = [case.blurred]
        rows.append({"name": case.name, "method": "blurred", **scored(case.blurred, case.sharp)})
        for name, values in methods.items():
            kept = folder / f"{case.name}_{name}.json".replace(",", "").replace(" ", "_")
            mark = run_identity(resolve([("", values)]), case.blurred)
            row = read_json(kept) if resume else {}
            if row.get("identity") != mark:
                result, image = deblurred(case, values)
                row = {"name": case.name, "method": name, **result, "identity": mark}
                write_image(kept.with_suffix(".png"), image)
                write_json(kept, row)
            rows.append(row)
            shown.append(read_image(kept.with_suffix(".png")))
        shown.append(case.sharp)
        axis = 1 if case.sharp.shape[0] > 64 else 0
        write_image(folder / f"{case.name.replace(' ', '_')}.png", np.concatenate(shown, axis))
    return rows


def lines(count: int) -> list[Case]:
    """Rendered lines of held-out words, blurred with simulated kernels and noise."""
    found = []
    kernels = np.asarray(motion.motion_kernels(jax.random.key(31), 31, count))
    for i in range(count):
        rng = np.random.default_rng([31, i])
        wide = line(rng, LINE, held_out=True)
        # what lies beyond the line is its edge, as for an image that was cut out
        padded = np.pad(wide, ((15, 15), (15, 15), (0, 0)), mode="edge")
        blurred = np.asarray(blur(jnp.asarray(padded), jnp.asarray(kernels[i])))
        noisy = np.clip(blurred + 0.02 * rng.standard_normal(blurred.shape), 0, 1).astype(np.float32)
        found.append(Case(f"line {i}", wide, noisy))
    return found


def models(case: Case, steps: int) -> list[dict]:
    """The data term over the steps with each model of the blur, from a random kernel."""
    rows = []
    for name in tqdm(MODELS, unit="model", dynamic_ncols=True):
        values = dict(method="explore", preset="quick", init="random", blur_model=name, steps=steps, image_lr=3e-3)
        # the data term alone
        settings = resolve([("", values | dict(sparse_weights=[0.0, 0.0], kernel_weights=[0.0, 0.0]))])
        method = build(settings, 31, 3)
        result = run(method, jax.random.key(0), jnp.asarray(case.blurred), steps)
        at = list(range(0, steps, CHUNK))
        image = np.asarray(result.output.image)
        rows.append(
            {
                "model": name,
                "last": float(result.losses[-1]),
                "psnr": psnr(np.clip(image, 0, 1), case.sharp),
                "at": at,
                "loss": [float(result.losses[t]) for t in at],
            }
        )
    return rows


def plot(path: Path, rows: list[dict], name: str) -> None:
    """Loss of each model against steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for row in rows:
        axis.semilogy(row["at"], row["loss"], label=row["model"])
    axis.set_xlabel("step")
    axis.set_ylabel("mean sqrt((F(x, k) - y)^2 + 1e-6)")
    axis.set_title(name)
    axis.legend()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)


def run_all(args: argparse.Namespace) -> int:
    data = Path(args.data or os.environ.get("JBID_DATA", ""))
    folder = make_folder(args.out.parent / args.out.stem)
    setup = {"steps": args.steps, "lines": args.lines, "weights": weights.checksums()}
    result = read_resumable(args.out, setup, resume=args.resume) or {
        "benchmark": "explore_deblur",
        "settings": setup,
        **versions_and_device(),
    }

    def chosen() -> list[Case]:
        known = {case.name: case for case in images(data)}
        if unknown := set(args.images or ()) - set(known):
            raise ValueError(f"no such image: {', '.join(unknown)}; there are: {'; '.join(known)}")
        return [case for name, case in known.items() if name in (args.images or known)]

    on_lines = ON_LINES | {"manifold of lines": read_config(MANIFOLD)}
    parts = {
        "deblur": lambda: compared(chosen(), METHODS, folder, args.resume),
        "models": lambda: models(images(data)[0], args.steps),
        "lines": lambda: compared(lines(args.lines), on_lines, folder, args.resume),
    }
    for name, part in parts.items():
        if args.only not in (None, name):
            continue
        if name != "models" or name not in result:
            result[name] = part()
        write_json(args.out, result)
        rows = [{k: v for k, v in row.items() if not isinstance(v, list)} for row in result[name]]
        print(tabulate(rows, headers="keys", floatfmt=".3f"))
        if name == "models":
            plot(args.out.with_name(f"{args.out.stem}_models.png"), result[name], images(data)[0].name)
        else:
            methods = dict.fromkeys(row["method"] for row in rows)
            means = [
                {
                    "method": method,
                    **{
                        key: float(np.mean([row[key] for row in rows if row["method"] == method]))
                        for key in ("psnr", "ssim")
                    },
                }
                for method in methods
            ]
            print(tabulate(means, headers="keys", floatfmt=".3f"))
    print(f"-> {args.out}, {folder}")
    return 0


def main() -> int:
    parser = Parser("python -m benchmarks.explore_deblur", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help="holds gopro/, levin/ and sharp/ (default: $JBID_DATA)")
    add("--only", choices=("deblur", "models", "lines"), help="one part alone")
    add("--images", nargs="+", metavar="NAME", help="some of those of deblur alone, as the report names them")
    add("--steps", type=int, default=300, metavar="N", help="of models (default 300)")
    add("--lines", type=int, default=10, metavar="N", help="lines of text (default 10)")
    add("--resume", action="store_true", help="go on with --out")
    add("--out", type=json_file, default=Path("explore_deblur.json"), metavar="FILE.json")
    args = parser.parse_args()
    return run_script(lambda: run_all(args))


if __name__ == "__main__":
    sys.exit(main())
