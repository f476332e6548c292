"""Kernel networks and the frequencies that they learn (Zhuang et al., Fig. 12).

    python -m benchmarks.kernel_nets --out kernel_nets.json

A simulated motion kernel is fitted by each kernel network: directly, min ||k - k_hat||^2, and from an image with the
sharp image known, min mean (y - k_hat * x)^2. The frequency band error (`jbid.metrics.frequency_band_error`, five
rings) is measured along the way. One seed; Adam at each of `--rates`, the best of which is drawn for each network. Each
run is kept as it is done; --resume continues the run.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from skimage import data

from benchmarks.script import json_file, run_script
from jbid.engine.generators import kernel_prior
from jbid.io.files import atomic_write, read_json, write_json
from jbid.methods.robust import siren_kernel
from jbid.metrics import frequency_band_error
from jbid.nets.siren import Siren
from jbid.ops.conv import blur
from jbid.ops.motion import gaussian_process_kernel
from jbid.runtime.compile import jit
from jbid.runtime.environment import versions_and_device

EXPERIMENTS = ("regression", "estimation")
BANDS = ("lowest", "low", "middle", "high", "highest")


def networks(size: int) -> dict:
    """The kernel generators that are compared.

    SIREN divided by its sum, as `quick` has it; the same with first waves twice as fast; and as in the paper.
    """
    shape, mean = (size, size), 1 / (size * size + 1)
    return {
        "SIREN": siren_kernel(shape, Siren(mean=mean), normalize=True),
        "SIREN, first omega 60": siren_kernel(shape, Siren(first_omega=60.0, mean=mean), normalize=True),
        "SIREN, sum free": siren_kernel(shape, Siren(), normalize=False),
        "MLP": kernel_prior("mlp", shape, noise=0.0),
        "DIP": kernel_prior("skip", shape, noise=0.0),
    }


def fitted(generator, kernel, experiment: str, rate: float, steps: int, every: int) -> dict:
    """FBE at every `every`-th step."""
    x = jnp.asarray(data.camera()[100:300, 100:300, None] / 255, jnp.float32)
    y = blur(x, kernel)
    tx = optax.adam(rate)
    params, code = generator.init(jax.random.key(0), y)

    def distance(params):
        k = generator.apply(params, code, None)
        return jnp.sum((k - kernel) ** 2) if experiment == "regression" else jnp.mean((blur(x, k) - y) ** 2)

    @partial(jit, donate_argnums=0)
    def step(carry):
        params, state = carry
        updates, state = tx.update(jax.grad(distance)(params), state, params)
        return optax.apply_updates(params, updates), state

    apply = jit(lambda params: generator.apply(params, code, None))
    carry, report = (params, tx.init(params)), {"at": [], "fbe": []}
    for t in range(steps + 1):
        if t % every == 0:
            report["at"].append(t)
            report["fbe"].append(frequency_band_error(np.asarray(apply(carry[0])), np.asarray(kernel)).tolist())
        carry = step(carry)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=45, help="kernel side in pixels (default 45)")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 3e-4, 1e-3, 3e-3], help="learning rates")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=json_file, default=Path("kernel_nets.json"))
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    return run_script(lambda: run_all(args))


def run_all(args: argparse.Namespace) -> int:
    kernel = gaussian_process_kernel(jax.random.key(3), args.size)
    report: dict = {"benchmark": "kernel_nets", "size": args.size, "steps": args.steps, **versions_and_device()}
    report["runs"] = []
    if args.resume and args.out.exists():
        before = read_json(args.out)
        if (before["size"], before["steps"]) != (args.size, args.steps):
            raise ValueError(f"{args.out} has runs of {before['steps']} steps at size {before['size']}; choose another")
        report["runs"] = before["runs"]
    done = {(run["experiment"], run["network"], run["rate"]) for run in report["runs"]}
    found: dict = {}
    for experiment in EXPERIMENTS:
        for name, generator in networks(args.size).items():
            for rate in args.rates:
                if (experiment, name, rate) not in done:
                    curve = fitted(generator, kernel, experiment, rate, args.steps, max(1, args.steps // 50))
                    report["runs"].append({"experiment": experiment, "network": name, "rate": rate, **curve})
                    write_json(args.out, report)
            runs = [run for run in report["runs"] if (run["experiment"], run["network"]) == (experiment, name)]
            best = min(runs, key=lambda run: np.mean(run["fbe"][-1]))
            found.setdefault(experiment, {})[name] = best
            errors = ", ".join(f"{b} {v:.3f}" for b, v in zip(BANDS, best["fbe"][-1]))
            print(f"{experiment}, {name}, rate {best['rate']:g}: {errors}", flush=True)
    plot(args.out.with_suffix(".png"), found)
    print(f"-> {args.out}, {args.out.with_suffix('.png')}")
    return 0


def plot(path: Path, found: dict) -> None:
    """A panel for each experiment and network, a line for each band."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 5.2), layout="constrained")
    axes = figure.subplots(2, 5, sharex=True, sharey="row")
    for row, (experiment, curves) in zip(axes, found.items()):
        for axis, (name, report) in zip(row, curves.items()):
            for band, values in zip(BANDS, np.transpose(report["fbe"])):
                axis.plot(report["at"], values, label=band)
            axis.set_title(f"{experiment}, {name}, rate {report['rate']:g}", fontsize=10)
            axis.set_ylim(0, 1.5)
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("frequency band error")
    axes[1, 2].set_xlabel("steps")
    axes[0, 4].legend(fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
