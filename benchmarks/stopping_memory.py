"""Memory of early stopping, at 320x320 pixels in color with a kernel of half the image.

    python -m benchmarks.stopping_memory --out stopping_memory.json

A few steps of `robust` with and without stopping, each in a process of its own, in turn: the state, the temporaries of
a step as the compiler plans them, and the peak of the process, in which the compiler itself has its share.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.script import json_file, run_script
from jbid.engine.driver import run
from jbid.io.files import write_json
from jbid.methods.robust import robust
from jbid.runtime.compile import jit
from jbid.runtime.environment import versions_and_device

SIDE, STEPS = 320, 6


def measured(stop: bool, window: int) -> dict[str, float]:
    """In MiB, of this process."""
    method = robust(SIDE // 2 | 1, channels=32, steps=STEPS, stop=stop, window=window, normalize="sum")
    key, image = jax.random.key(0), jax.random.uniform(jax.random.key(1), (SIDE, SIDE, 3))
    state = jax.eval_shape(method.init, key, image)
    step = jit(method.step, donate_argnums=0).lower(state, image, jnp.array(0)).compile()
    run(method, key, image, STEPS)
    leaves = [leaf for leaf in jax.tree.leaves(state) if hasattr(leaf.dtype, "itemsize")]
    return {
        "state": sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) / 2**20,
        "temporaries": step.memory_analysis().temp_size_in_bytes / 2**20,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--window", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=json_file, default=Path("stopping_memory.json"))
    parser.add_argument("--one", choices=("with", "without"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measured(args.one == "with", args.window)))
        return 0
    return run_script(lambda: compare(args))


def compare(args: argparse.Namespace) -> int:
    report: dict[str, list] = {"without": [], "with": []}
    for _ in range(args.repeats):
        for which, rows in report.items():
            command = [sys.executable, "-m", "benchmarks.stopping_memory", "--one", which, "--window", str(args.window)]
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows.append(json.loads(found.splitlines()[-1]))
            print(which, ", ".join(f"{k} {v:.0f} MiB" for k, v in rows[-1].items()), flush=True)
    means = {which: {k: float(np.mean([row[k] for row in rows])) for k in rows[0]} for which, rows in report.items()}
    difference = {k: means["with"][k] - means["without"][k] for k in means["with"]}
    print("difference", ", ".join(f"{k} {v:.0f} MiB" for k, v in difference.items()))
    header = {"benchmark": "stopping_memory", "window": args.window, **versions_and_device()}
    write_json(args.out, {**header, "mib": report, "difference_of_means": difference})
    return 0


if __name__ == "__main__":
    sys.exit(main())
