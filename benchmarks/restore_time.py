"""Time and memory of a whole restoration in a new process, at several sizes, beside another version of jbid.

    python -m benchmarks.restore_time --photo SHARP --out time.json
    python -m benchmarks.restore_time --photo SHARP --out time.json --other DIR --other-arguments "--preset instant"

Parts of a sharp photo are blurred, stored as PNG and given to `python -m jbid deblur`. cold: the first process, with an
empty compilation cache. cached: a second process. warm: the second of two photos of one size in one process, from its
report. Cold and cached include Python's own time. The versions take turns, so that both meet the same machine.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from benchmarks.script import Parser, json_file, run_script
from jbid.io.files import write_json
from jbid.io.images import read_image, write_image
from jbid.ops.conv import blur
from jbid.ops.motion import gaussian_process_kernel
from jbid.runtime.environment import versions_and_device

SIDES = ((255, 255), (400, 400), (700, 1000))  # height and width
KERNEL = 31
NOISE = 0.003  # standard deviation


def write_photos(sharp: np.ndarray, side: tuple[int, int], folder: Path) -> None:
    """Write two blurred parts of a photo (h, w, c), each with its own kernel."""
    h, w = (n + KERNEL - 1 for n in side)
    if sharp.shape[0] < h or sharp.shape[1] < w:
        raise ValueError(f"`photo` must have at least {w}x{h} pixels, got {sharp.shape[1]}x{sharp.shape[0]}")
    top, left = (sharp.shape[0] - h) // 2, (sharp.shape[1] - w) // 2
    rng = np.random.default_rng(0)
    for name, seed in (("a", 5), ("b", 6)):
        kernel = np.asarray(gaussian_process_kernel(jax.random.key(seed), KERNEL))
        blurred = np.asarray(blur(sharp[top : top + h, left : left + w], kernel))
        write_image(folder / f"{name}.png", np.clip(blurred + NOISE * rng.standard_normal(blurred.shape), 0, 1))


def restore(checkout: Path, inputs: Path, arguments: Sequence[str], cache: Path) -> dict[str, float]:
    """Seconds and peak memory in MiB of a process that restores a file or folder, and seconds of its last photo.

    Raises:
        RuntimeError: if it fails.
    """
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "jbid", "deblur", str(inputs), "--out", out, *arguments]
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache), "PYTHONPATH": str(checkout)}
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{shlex.join(command)} failed with exit code {process.returncode}")
        last = max(Path(out).glob("*.json"), key=lambda path: path.stem)
        report = json.loads(last.read_text())
    return {"process": seconds, "memory": usage.ru_maxrss / 1024, "photo": float(report["seconds"])}


def measure(checkout: Path, folder: Path, arguments: Sequence[str], cache: Path) -> dict[str, float]:
    """Seconds: cold, cached and warm; peak memory in MiB of the process that restores one photo."""
    cold = restore(checkout, folder / "a.png", arguments, cache)
    cached = restore(checkout, folder / "a.png", arguments, cache)
    both = restore(checkout, folder, arguments, cache)
    return {"cold": cold["process"], "cached": cached["process"], "warm": both["photo"], "memory": cold["memory"]}


def main() -> int:
    """Measure, print a table, write JSON."""
    parser = Parser("python -m benchmarks.restore_time", __doc__)
    parser.add_argument("--photo", type=Path, required=True, help="sharp photo of at least 1030x730 pixels")
    parser.add_argument("--other", type=Path, help="checkout of another version of jbid")
    parser.add_argument("--other-arguments", default="", help="arguments of its `deblur`")
    parser.add_argument("--out", type=json_file, required=True)
    args = parser.parse_args()
    sharp = read_image(args.photo)
    versions = {"this": (Path(__file__).resolve().parents[1], [])}
    if args.other:
        versions["other"] = (args.other.resolve(), shlex.split(args.other_arguments))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary, tqdm(total=len(SIDES) * len(versions), unit="size") as bar:
        for side in SIDES:
            folder = Path(temporary) / f"{side[1]}x{side[0]}"
            folder.mkdir()
            write_photos(sharp, side, folder)
            for name, (checkout, arguments) in versions.items():
                found = measure(checkout, folder, arguments, Path(temporary) / f"cache_{name}_{folder.name}")
                rows.append({"size": folder.name, "version": name, **found})
                bar.update()
                bar.write(f"{folder.name} {name}: " + ", ".join(f"{key} {value:.1f}" for key, value in found.items()))
                # after each row: an older version may take long
                write_json(
                    args.out, {"rows": rows, "photo": args.photo.name, "kernel": KERNEL, **versions_and_device()}
                )
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
