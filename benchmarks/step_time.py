"""Time and memory of one optimization step, beside PyTorch.

    python -m benchmarks.step_time --out benchmarks/results/step_time_cpu.json

The same network (SelfDeblur's), loss, optimizer and sizes (255x255 pixels, kernel 21) on both sides, in one process, in
alternating rounds; the best round of each counts. Compile time is apart. Memory: `working` is what a step itself
takes: XLA's own plan (temporaries, arguments, outputs), and for PyTorch the growth of the process over its steps;
`process` is the largest resident size of a fresh process that does nothing else, compiler included. jbid's networks
in bfloat16 are timed beside; on a GPU PyTorch's in TF32 and bf16 as well, and memory is what the device's allocators
report.

Needs the `bench` extra. Costs about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

from jbid.runtime.memory import tune_malloc

SIZE, KERNEL = 255, 21


def peak_mb() -> float:
    """Largest resident size of this process so far; `getrusage` would count that of the process it was started by."""
    status = Path("/proc/self/status").read_text()
    return next(float(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1e3


def torch_step(channels: int, loss: str, *, layout: str = "contiguous", autocast: str | None = None):
    import torch

    from benchmarks.torch_reference import Step

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = autocast == "tf32"
    blurred = torch.rand(1, 1, SIZE, SIZE, device=device)
    dtype = torch.bfloat16 if autocast == "bf16" else None
    return Step(blurred, KERNEL, channels=channels, loss=loss, autocast=dtype, channels_last=layout == "channels_last")


def jbid_step(channels: int, loss: str, seeds: int = 1, dtype: Literal["float32", "bfloat16"] = "float32"):
    """A function that advances its own state by one step, the seconds it took to compile, XLA's memory plan in MB."""
    import jax

    from jbid.engine.wrappers import over_seeds
    from jbid.methods.selfdeblur import selfdeblur
    from jbid.runtime.compile import jit

    ssim_from = 0 if loss == "ssim" else 10**9
    method = selfdeblur(KERNEL, channels=channels, ssim_from=ssim_from, dtype=dtype)
    if seeds > 1:
        method = over_seeds(method)
    key = jax.random.key(0) if seeds == 1 else jax.random.split(jax.random.key(0), seeds)
    blurred = jax.random.uniform(jax.random.key(1), (SIZE, SIZE, 1))
    state = jit(method.init)(key, blurred)

    def f(state, blurred, t):
        state, info = method.step(state, blurred, t)
        return state, info.loss

    start = time.perf_counter()
    step = jit(f, donate_argnums=0).lower(state, blurred, 0).compile()
    seconds = time.perf_counter() - start
    plan = step.memory_analysis()
    # the state is donated: its outputs take the place of its arguments
    working = (plan.temp_size_in_bytes + plan.argument_size_in_bytes) / 1e6

    def advance():
        nonlocal state
        state, loss = step(state, blurred, 0)
        return jax.block_until_ready(loss)

    return advance, seconds, working


def alternate(steps: dict, rounds: int, each: int) -> dict[str, float]:
    """Seconds per step of each function: the best of `rounds` rounds, in which all take turns of `each` steps.

    The first step of a turn is not timed: in it the kernel hands over the memory of the one whose turn has ended, which
    costs up to a second that a process with one of them alone never pays.
    """
    best = dict.fromkeys(steps, float("inf"))
    for step in steps.values():
        step(), step()
    for _ in range(rounds):
        for name, step in steps.items():
            step()
            start = time.perf_counter()
            for _ in range(each):
                step()
            best[name] = min(best[name], (time.perf_counter() - start) / each)
    return best


def memory(side: str, channels: int) -> dict[str, float]:
    """Peak memory of a process of its own that takes three steps."""
    call = [sys.executable, "-m", "benchmarks.step_time", "--memory", side, "--channels", str(channels)]
    return json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def measure_memory(side: str, channels: int) -> dict[str, float]:
    if side == "torch":
        import torch

        torch.zeros(1)
        before = peak_mb()
        step = torch_step(channels, "ssim")
        for _ in range(3):
            step()
        if torch.cuda.is_available():
            return {"working_mb": torch.cuda.max_memory_allocated() / 1e6, "process_mb": peak_mb()}
        return {"working_mb": peak_mb() - before, "process_mb": peak_mb()}
    import jax

    step, _, working = jbid_step(channels, "ssim")
    for _ in range(3):
        step()
    if jax.default_backend() != "cpu":
        working = jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 1e6
    return {"working_mb": working, "process_mb": peak_mb()}


def measure_width(channels: int, seeds_to_compare: list[int], rounds: int, each: int) -> dict:
    """Seconds and memory of a step at one width, of jbid and PyTorch; also of several seeds at once."""
    import jax

    gpu = jax.default_backend() != "cpu"
    row: dict = {}
    for loss in ("mse", "ssim"):
        step, compile_seconds, _ = jbid_step(channels, loss)
        steps = {"jbid": step, "jbid_bf16": jbid_step(channels, loss, dtype="bfloat16")[0]}
        layouts = ("contiguous", "channels_last")
        steps |= {f"torch_{layout}": torch_step(channels, loss, layout=layout) for layout in layouts}
        if gpu:
            for precision in ("tf32", "bf16"):
                steps[f"torch_{precision}"] = torch_step(channels, loss, autocast=precision)
        seconds = alternate(steps, rounds, each)
        ratios = {f"ratio_to_{name}": seconds["jbid"] / s for name, s in seconds.items() if name != "jbid"}
        row[loss] = {"seconds": seconds, **ratios, "compile_seconds": compile_seconds}
        print(channels, loss, json.dumps(row[loss], indent=1), flush=True)
    row["seeds"] = {}
    for seeds in seeds_to_compare:
        if not gpu and channels > 32 and seeds > 4:
            # about 11 GB and a minute a step: not what anyone would run on a CPU
            continue
        single, _, _ = jbid_step(channels, "ssim")
        many, compile_seconds, working = jbid_step(channels, "ssim", seeds)
        seconds = alternate({"one": single, "many": many}, rounds, 1)
        row["seeds"][seeds] = {
            **seconds,
            "times_one": seconds["many"] / seconds["one"],
            "compile_seconds": compile_seconds,
            "working_mb": working,
        }
        print(channels, seeds, "seeds", json.dumps(row["seeds"][seeds]), flush=True)
    row["memory"] = {side: memory(side, channels) for side in ("jbid", "torch")}
    row["memory"]["working_ratio"] = row["memory"]["jbid"]["working_mb"] / row["memory"]["torch"]["working_mb"]
    row["memory"]["process_ratio"] = row["memory"]["jbid"]["process_mb"] / row["memory"]["torch"]["process_mb"]
    print(channels, "memory", json.dumps(row["memory"]), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--each", type=int, default=2, help="steps per turn")
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--seeds", type=int, nargs="*", default=[4, 16], help="vmapped seeds to compare with one")
    parser.add_argument("--memory", choices=("jbid", "torch"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        print(json.dumps(measure_memory(args.memory, args.channels[0])))
        return

    import torch

    from jbid.io.files import write_json
    from jbid.runtime.environment import versions_and_device

    content = {
        "benchmark": "step_time",
        "size": [SIZE, SIZE],
        "kernel": KERNEL,
        **versions_and_device(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "widths": {},
    }
    for channels in args.channels:
        row = measure_width(channels, args.seeds, args.rounds, args.each)
        content["widths"][channels] = row
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(args.out, content)


if __name__ == "__main__":
    tune_malloc()
    main()
