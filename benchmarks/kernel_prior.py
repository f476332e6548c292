"""Fit of the pretrained generator and initializer to kernels that they were never trained on.

    python -m benchmarks.kernel_prior --data DIR --out kernel_prior.json

Inversion: each recorded kernel of Levin and Lai that fits a generator's size is inverted in w and in z by 500 steps
from a random code; kernel similarity (`jbid.metrics.kernel_similarity`, 1 for the same kernel), for the initializer
also by shifts of quarters of a pixel.

Initializer: the kernel that it makes of a blurred image, beside the mean of simulated kernels, the edge-based kernel
with the kernel's frame given, and SelfDeblur's published kernels. On Levin, on the center of Lai's `uniform` images
(`--side` pixels), and on the center of Kodak's photos blurred with four fresh simulated kernels each. Only the networks
that are shipped are run. Each image is kept as it is done; --resume continues the run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from benchmarks.script import Parser, json_file, run_script
from jbid.data import lai, levin
from jbid.data.synthetic import MIXED, crop_center_square
from jbid.io import weights
from jbid.io.files import make_folder, write_json
from jbid.io.images import read_image, read_kernel
from jbid.kernel_estimation.learned import learned_kernel, predict_kernel
from jbid.kernel_estimation.search import search_kernel
from jbid.methods.gkpile import latent_kernel
from jbid.metrics import kernel_similarity
from jbid.ops import motion
from jbid.ops.color import luma
from jbid.ops.conv import blur
from jbid.ops.kernels import place_kernel
from jbid.pipeline.resume import read_resumable
from jbid.runtime.compile import jit
from jbid.runtime.environment import versions_and_device

STEPS = 500


class Case(NamedTuple):
    set: str
    name: str
    blurred: np.ndarray  # h w, luma
    kernel: np.ndarray
    published: np.ndarray | None  # SelfDeblur's


def size_of(kernel: np.ndarray, sizes: list[int]) -> int | None:
    """The smallest generator's size that holds a kernel."""
    return next((size for size in sizes if size >= max(kernel.shape)), None)


def inversions(data: Path | None, sizes: list[int]) -> dict[str, dict[str, float]]:
    """Similarity of each recorded kernel's inversion, by space."""
    folders = [(kind, kind.root(data) / "kernels") for kind in (levin, lai)]
    kernels = {f"{f.parent.name} {p.stem}": read_kernel(p) for _, f in folders for p in sorted(f.glob("*.png"))}
    report: dict[str, dict[str, float]] = {}
    for size in sizes:
        fitting = {name: place_kernel(k, size) for name, k in kernels.items() if size_of(k, sizes) == size}
        if not fitting:
            continue
        truths = jnp.asarray(np.stack(list(fitting.values())))
        for space in ("w", "z"):
            generator = latent_kernel(size, weights.load(f"generator_{size}"), space, fit_steps=STEPS)

            def inverted(key, kernel, generator=generator):
                params, code = generator.init(key, jnp.zeros(()))
                assert generator.fit is not None
                return generator.apply(generator.fit(params, code, kernel), code, None)

            made = jit(jax.vmap(inverted))(jax.random.split(jax.random.key(0), len(truths)), truths)
            for name, a, b in zip(fitting, np.asarray(made), fitting.values()):
                report.setdefault(name, {"size": size})[space] = round(kernel_similarity(a, b), 4)
    return report


def cases(args: argparse.Namespace, sizes: list[int]) -> Iterator[Case]:
    official = levin.root(args.data) / "official_run"
    for item in levin.load(args.data):
        path = official / f"{item.name}_k.png"
        theirs = read_kernel(path)[::-1, ::-1] if path.exists() else None
        yield Case("levin", item.name, item.blurred[..., 0], item.kernel, theirs)
    for name in lai.NAMES[: args.lai or None]:
        item = lai.load(args.data, [name])[0]
        yield Case("lai", name, luma(crop_center_square(item.blurred, args.side))[..., 0], item.kernel, None)
    photos = sorted((Path(args.data or os.environ["JBID_DATA"]) / "sharp" / "kodak24").glob("*.png"))[: args.kodak]
    for size in sizes:
        for i, path in enumerate(photos):
            key = jax.random.fold_in(jax.random.key(100 + size), i)
            for j, kernel in enumerate(np.asarray(motion.mixed_kernels(key, size, 4, MIXED))):
                sharp = luma(crop_center_square(read_image(path), args.side + size - 1))
                blurred = np.asarray(blur(jnp.asarray(sharp), jnp.asarray(kernel)))[..., 0]
                noise = 0.005 * np.random.default_rng([i, j]).standard_normal(blurred.shape)
                blurred = (np.round(np.clip(blurred + noise, 0, 1) * 255) / 255).astype(np.float32)
                yield Case(f"kodak {size}", f"{size} {path.stem} {j}", blurred, kernel, None)


def similarities(case: Case, size: int, mean: np.ndarray) -> dict[str, list[float]]:
    """Of each way to a kernel with the true one, by shifts of whole pixels and of quarters."""
    edges = search_kernel(case.blurred, size)
    made = {
        "average": mean,
        "edges": edges.kernel,
    }
    made |= {"initializer": predict_kernel(edges, size), "refined": learned_kernel(edges, size)}
    if case.published is not None:
        made["SelfDeblur, published"] = case.published
    return {
        name: [round(kernel_similarity(kernel, case.kernel, fractions), 4) for fractions in (1, 4)]
        for name, kernel in made.items()
    }


def run_all(args: argparse.Namespace) -> int:
    sizes = weights.sizes("generator")
    setup = {"side": args.side, "sizes": sizes, "weights": weights.checksums()}
    make_folder(args.out.parent)
    report = read_resumable(args.out, setup, resume=args.resume) or {
        "settings": setup,
        "cases": {},
        **versions_and_device(),
    }
    report["inversion"] = report.get("inversion") or inversions(args.data, sizes)
    write_json(args.out, report)
    print(tabulate([{"kernel": k, **v} for k, v in report["inversion"].items()], headers="keys"))
    means = {s: np.asarray(motion.mixed_kernels(jax.random.key(0), s, 1000, MIXED)).mean(0) for s in sizes}
    for case in tqdm(list(cases(args, sizes)), unit="image", dynamic_ncols=True):
        size = size_of(case.kernel, sizes)
        if size and case.name not in report["cases"]:
            found = similarities(case, size, means[size])
            report["cases"][case.name] = {"set": case.set, "size": size, **found}
            write_json(args.out, report)
    by_set: dict[tuple, list[dict]] = {}
    for entry in report["cases"].values():
        by_set.setdefault((entry["set"], entry["size"]), []).append(entry)
    rows = []
    for (name, size), entries in by_set.items():
        row = {"set": name, "size": size, "images": len(entries)}
        for way in ("average", "edges", "initializer", "refined", "SelfDeblur, published"):
            if way in entries[0]:
                whole, quarters = zip(*(entry[way] for entry in entries))
                row |= {way: float(np.mean(whole)), f"{way}, least": min(whole)}
                row |= {f"{way}, quarters": float(np.mean(quarters))}
        rows.append(row)
    write_json(args.out, report | {"summary": rows})
    print(tabulate(rows, headers="keys", floatfmt=".3f"))
    return 0


def main() -> int:
    parser = Parser("python -m benchmarks.kernel_prior", description=__doc__)
    parser.add_argument("--data", type=Path, metavar="DIR", help="holds levin/, lai/ and sharp/ (default: $JBID_DATA)")
    parser.add_argument("--side", type=int, default=320, help="pixels of the center that is used (default 320)")
    parser.add_argument("--kodak", type=int, default=24, metavar="N", help="first N of Kodak's photos (default all)")
    parser.add_argument("--lai", type=int, default=0, metavar="N", help="first N of Lai's images (default all)")
    parser.add_argument("--resume", action="store_true", help="go on with --out")
    parser.add_argument("--out", type=json_file, default=Path("kernel_prior.json"), metavar="FILE.json")
    args = parser.parse_args()
    return run_script(lambda: run_all(args))


if __name__ == "__main__":
    sys.exit(main())
