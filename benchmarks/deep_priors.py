"""Deep priors with a fixed kernel, beside the sparse and the learned deconvolution.

    python -m benchmarks.deep_priors --levin-kernels DIR --lai-kernels DIR --out deep_priors.json

Eight of Levin's images and the centers of eight of Lai's (256 pixels), with the true kernel and with the one that
`python -m jbid.bench` estimated, from its folders of images. PSNR of luma, protocol `sd_matlab`, and seconds of

- sparse, learned: `jbid.deconvolve`;
- prior: a deep image prior alone, Ren et al. 2020 without their kernel network, from random weights;
- target: the same, with mean (x - x_learned)^2 times `TARGET` in its loss;
- residual: x = x_learned + G(z) - G_0(z), which begins with the learned deconvolution.

The last three have 32 channels, Adam with a cosine to zero, mean squared error and total variation, the last iterate.
Finished images are kept in the report.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.script import Parser, json_file, run_script
from benchmarks.stopping import NAMES as LEVIN
from jbid import losses
from jbid.bench.protocols import get_protocol
from jbid.data import lai, levin
from jbid.data.synthetic import crop_center_square
from jbid.deconvolution.tiled import deconvolve_tiled
from jbid.engine.deep_prior import deep_prior
from jbid.engine.driver import run
from jbid.engine.generators import fixed, image_prior
from jbid.io.files import read_json, write_json
from jbid.io.images import read_kernel
from jbid.methods.explore.generators import residual_generator
from jbid.ops.color import luma
from jbid.ops.conv import crop_center, pad_edge
from jbid.ops.kernels import pad_to_odd_square
from jbid.runtime.environment import source_commit, versions_and_device
from jbid.types import Estimate, Loss

LAI = [
    f"{scene}_kernel_{k:02}"
    for scene, k in zip(
        ("manmade_02", "manmade_04", "natural_01", "natural_03", "people_02", "people_05", "text_01", "text_05"),
        (1, 2, 3, 4, 1, 2, 3, 4),
        strict=True,
    )
]
SIDE = 256
STEPS = {"prior": 120, "target": 120, "residual": 60}  # as many as those of the preset quick
RATES = {"prior": 1e-2, "target": 1e-2, "residual": 1e-3}
TARGET = 0.3
PROTOCOL = get_protocol("sd_matlab", 10)


def refine(name: str, y: NDArray[np.float32], kernel: NDArray[np.float32], learned: NDArray[np.float32]) -> NDArray:
    """Deep prior of a name, the last iterate (h, w, 1)."""
    shape, steps = kernel.shape, STEPS[name]
    prior = image_prior(shape, out_channels=1, channels=32, skip_channels=16, noise=0.0 if name == "residual" else 1e-3)
    goal = jnp.asarray(learned)
    if name == "residual":
        frame = (y.shape[0] + shape[0] - 1, y.shape[1] + shape[1] - 1, 1)
        prior = residual_generator(prior, lambda blurred: frame, lambda blurred, k: pad_edge(goal, shape))
    loss: Loss = losses.add(losses.mse(), losses.tv())
    if name == "target":
        loss = losses.add(loss, lambda e, r, b, t: TARGET * jnp.mean((crop_center(e.image, shape) - goal) ** 2))
    schedule = optax.cosine_decay_schedule(RATES[name], steps)
    method = deep_prior(
        prior, fixed(jnp.asarray(kernel)), loss=loss, optimizers=Estimate(optax.adam(schedule), optax.adam(schedule))
    )
    first = jnp.asarray(kernel) if name == "residual" else None
    result = run(method, jax.random.key(0), jnp.asarray(y), steps=steps, init_kernel=first)
    return np.clip(np.asarray(result.output.image), 0, 1)


def measure(item: levin.Item, kernel: NDArray) -> dict[str, Any]:
    """PSNR and seconds of each method for one image and kernel."""
    assert item.sharp is not None
    y = luma(crop_center_square(item.blurred, SIDE)).astype(np.float32)
    sharp = luma(crop_center_square(item.sharp, SIDE))
    k = pad_to_odd_square(np.asarray(kernel, np.float32))
    k /= k.sum()
    row: dict[str, Any] = {}
    learned = np.zeros(0)
    for name in ("sparse", "learned", *STEPS):
        began = time.perf_counter()
        if name in STEPS:
            image = refine(name, y, k, learned)
        else:
            image = deconvolve_tiled(y, k, method=name)  # type: ignore[arg-type]
            learned = image
        row[name] = {"psnr": PROTOCOL.score(image, sharp).psnr, "seconds": round(time.perf_counter() - began, 1)}
    return row


def main() -> int | None:
    """Measure, print, write JSON."""
    parser = Parser("python -m benchmarks.deep_priors", __doc__)
    parser.add_argument("--levin-kernels", type=Path, required=True)
    parser.add_argument("--lai-kernels", type=Path, required=True)
    parser.add_argument("--out", type=json_file, required=True)
    args = parser.parse_args()
    rows = read_json(args.out).get("rows", [])
    done = {(row["image"], row["kernels"]) for row in rows}
    sets = (
        [(item, args.levin_kernels) for item in levin.load(names=LEVIN)],
        [(item, args.lai_kernels) for item in lai.load(names=LAI)],
    )
    for item, folder in tqdm([pair for pairs in zip(*sets) for pair in pairs], unit="image", dynamic_ncols=True):
        for kind in ("true", "estimated"):
            if (item.name, kind) not in done:
                kernel = item.kernel if kind == "true" else read_kernel(folder / f"{item.name}_k.png")
                rows.append({"image": item.name, "kernels": kind, **measure(item, kernel)})
                write_json(args.out, {"rows": rows})
    means = {}
    for kind in ("true", "estimated"):
        for name, names in (("levin", LEVIN), ("lai", LAI)):
            chosen = [row for row in rows if row["image"] in names and row["kernels"] == kind]
            means[f"{name}, {kind}"] = {
                m: {key: float(np.mean([row[m][key] for row in chosen])) for key in ("psnr", "seconds")}
                for m in ("sparse", "learned", *STEPS)
            }
    head = {"benchmark": "deep_priors", **versions_and_device(), "commit": source_commit(), "steps": STEPS}
    write_json(args.out, {**head, "protocol": PROTOCOL.to_dict(), "means": means, "rows": rows})
    print(json.dumps(means, indent=2))
    return None


if __name__ == "__main__":
    sys.exit(run_script(main))
