"""Time and memory of a photo of many megapixels, and the visibility of its tiles.

    python -m benchmarks.big_photo --megapixels 12 --out big.json

A synthetic photo (a mosaic of parts of scikit-image's images) is blurred, stored as PNG and given to
`python -m jbid deblur --preset instant` in a process of its own. Tile borders are measured on a part of the photo that
is small enough to be restored at once, with the kernel found: the largest difference away from the border.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jbid.deconvolution.tiled import TILE, TILE_OPTIONS, deconvolve_tiled
from jbid.io.files import write_json
from jbid.io.images import read_image, read_kernel, write_image
from jbid.metrics import align
from jbid.ops.color import luma
from jbid.ops.conv import blur
from jbid.ops.motion import gaussian_process_kernel
from jbid.runtime.environment import versions_and_device

KERNEL = 31


def photo(megapixels: float) -> np.ndarray:
    """A sharp 3:2 color photo of about that many megapixels, with detail at full resolution everywhere."""
    from skimage import data

    width = round((megapixels * 1.5e6) ** 0.5)
    height = round(width / 1.5)
    parts = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    rng = np.random.default_rng(0)
    out = np.zeros((-(-height // 256) * 256, -(-width // 256) * 256, 3), np.float32)
    for top in range(0, out.shape[0], 256):
        for left in range(0, out.shape[1], 256):
            part = parts[rng.integers(len(parts))]
            i, j = (rng.integers(n - 256 + 1) for n in part.shape[:2])
            out[top : top + 256, left : left + 256] = part[i : i + 256, j : j + 256] / np.float32(255)
    return out[:height, :width]


def main() -> None:
    """Blur, restore in a process of its own, compare tiled with untiled, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    kernel = np.asarray(gaussian_process_kernel(jax.random.key(5), KERNEL))
    with tempfile.TemporaryDirectory() as folder:
        sharp = photo(args.megapixels)
        blurred = np.empty((sharp.shape[0] - KERNEL + 1, sharp.shape[1] - KERNEL + 1, 3), np.float32)
        for top in range(0, blurred.shape[0], 1024):
            rows = slice(top, min(top + 1024, blurred.shape[0]))
            blurred[rows] = blur(jnp.asarray(sharp[rows.start : rows.stop + KERNEL - 1]), jnp.asarray(kernel))
        path = Path(folder) / "big.png"
        write_image(path, blurred)
        began = time.perf_counter()
        command = [sys.executable, "-m", "jbid", "deblur", str(path), "--preset", "instant", "--out", folder + "/out"]
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        report = json.loads((Path(folder) / "out" / "big.json").read_text())
        restored = read_image(Path(folder) / "out" / "big_sharp.png")
        found = read_kernel(Path(folder) / "out" / "big_kernel.png")
    half = KERNEL // 2
    part = np.s_[: min(1400, blurred.shape[0]), : min(1400, blurred.shape[1])]
    truth = sharp[half : half + blurred.shape[0], half : half + blurred.shape[1]][part]
    tiled, whole = (deconvolve_tiled(blurred[part], found, tile=tile, options=TILE_OPTIONS) for tile in (TILE, 10_000))
    inner = np.s_[64:-64, 64:-64]
    scores = [align(luma(x[part])[..., 0], luma(truth)[..., 0]).psnr for x in (blurred, restored)]
    content = {
        "benchmark": "big_photo",
        **versions_and_device(),
        "pixels": [blurred.shape[1], blurred.shape[0]],
        "seconds": round(seconds, 1),
        "peak_resident_gib": round(peak, 2),
        "kernel_size": max(report["kernel_size"]),
        "true_kernel_size": KERNEL,
        "region": report["region"],
        "psnr_blurred_part": scores[0],
        "psnr_restored_part": scores[1],
        "tiles_largest_difference_in_255": float(np.abs(tiled - whole)[inner].max() * 255),
        "tiles_mean_difference_in_255": float(np.abs(tiled - whole)[inner].mean() * 255),
    }
    write_json(args.out, content)
    print(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()
