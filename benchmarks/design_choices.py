"""Worth of the design choices that decide speed on this machine.

    python -m benchmarks.design_choices --out benchmarks/results/design_choices_cpu.json

Each question compares ways of computing the same thing, compiled, in alternating rounds of one process; the best round
of each counts. Sizes are those of Levin's images (latent 275x275) at 32 channels unless setup otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.step_time import alternate, jbid_step
from jbid.runtime.memory import tune_malloc

H = 275


def call(g: Callable, *args) -> Callable[[], Any]:
    """g(*args) as a function without arguments, which waits for the result."""
    import jax

    return lambda: jax.block_until_ready(g(*args))


def convolutions(channels: int) -> dict[str, dict]:
    """Question -> answer -> function without arguments, for the convolutions of the networks."""
    import jax
    import jax.numpy as jnp

    from jbid.nets import layers
    from jbid.runtime.compile import jit

    x = jax.random.normal(jax.random.key(0), (H, H, channels))
    w3 = jax.random.normal(jax.random.key(1), (3, 3, channels, channels)) / channels
    seeds = 4
    xs = jnp.stack([x] * seeds)
    ws = jnp.stack([w3] * seeds)

    def gradients(f, jit=jit):
        """f's value and both gradients, as a step needs them."""

        def g(a, b):
            y, back = jax.vjp(f, a, b)
            return y, back(jnp.ones_like(y))

        return jit(g)

    def lax_conv(x, w, stride=1):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x[None], w, (stride, stride), [(0, 0)] * 2, dimension_numbers=layout)[0]

    def channels_first(x, w):
        x = x.transpose(2, 0, 1)[None]
        y = jax.lax.conv_general_dilated(x, w.transpose(3, 2, 0, 1), (1, 1), [(0, 0)] * 2)
        return y[0].transpose(1, 2, 0)

    def nine_products(x, w):
        h, w_ = x.shape[0] - 2, x.shape[1] - 2
        return sum(x[i : i + h, j : j + w_] @ w[i, j] for i in range(3) for j in range(3))

    single, grouped = gradients(layers._correlation(1, 0)), gradients(jax.vmap(lax_conv))
    separate = gradients(jax.vmap(layers._correlation(1, 0)))
    return {
        "3x3 convolution": {
            "XLA's convolution, compiler as set by run": call(gradients(lax_conv), x, w3),
            "XLA's convolution, compiler as it comes": call(gradients(lax_conv, jax.jit), x, w3),
            "channels first": call(gradients(channels_first), x, w3),
            "nine matrix products": call(gradients(nine_products), x, w3),
        },
        "1x1 convolution": {
            "matrix product": call(gradients(lambda x, w: x @ w[0, 0]), x, w3[:1, :1]),
            "convolution": call(gradients(lax_conv), x, w3[:1, :1]),
            "convolution, compiler as it comes": call(gradients(lax_conv, jax.jit), x, w3[:1, :1]),
        },
        "3x3 convolution of stride 2": {
            "strided": call(gradients(lambda x, w: lax_conv(x, w, 2)), x, w3),
            "stride 1 over 2x2 blocks": call(gradients(layers._correlate_stride2), x, w3),
        },
        f"3x3 convolution, {seeds} seeds": {
            "one seed": call(single, x, w3),
            "vmapped (grouped)": call(grouped, xs, ws),
            "one call per seed": call(separate, xs, ws),
            "batched matrix products": call(gradients(jax.vmap(nine_products)), xs, ws),
        },
    }


def norms_and_blurs(channels: int) -> dict[str, dict]:
    """Question -> answer -> function without arguments, for norms and the blur."""
    import jax
    import jax.numpy as jnp

    from jbid.nets import layers
    from jbid.ops.conv import blur
    from jbid.runtime.compile import jit

    x = jax.random.normal(jax.random.key(0), (H, H, channels))

    def norm_by_autodiff(x, eps):
        mean = x.mean((0, 1))
        return (x - mean) * jax.lax.rsqrt(jnp.square(x - mean).mean((0, 1)) + eps)

    def norm_gradient(f):
        return jit(jax.grad(lambda x: jnp.sum(f(x, 1e-5) ** 3)))

    def blur_gradient(method):
        return jit(jax.grad(lambda x, k: jnp.sum(blur(x, k, method=method) ** 2), (0, 1)))

    image = jax.random.uniform(jax.random.key(2), (H, H, 1))
    found = {
        "norm, gradient": {
            "closed form": call(norm_gradient(layers.standardize), x),
            "autodiff": call(norm_gradient(norm_by_autodiff), x),
        },
    }
    for size in (3, 5, 7, 11, 21, 55):
        kernel = jnp.ones((size, size)) / size**2
        found[f"blur {size}x{size}, gradients"] = {
            method: call(blur_gradient(method), image, kernel) for method in ("direct", "fft")
        }
    return found


def driver(channels: int, scanned_steps: int = 2) -> dict[str, float]:
    """Seconds per whole step: alone, donated or not, and inside a scan."""
    import jax
    import jax.numpy as jnp

    from jbid.methods.selfdeblur import selfdeblur
    from jbid.runtime.compile import jit

    method = selfdeblur(21, channels=channels, ssim_from=0)
    blurred = jax.random.uniform(jax.random.key(1), (255, 255, 1))

    def step(state, t):
        state, info = method.step(state, blurred, t)
        return state, info.loss

    def scan(state, t):
        return jax.lax.scan(step, state, t + jnp.arange(scanned_steps))

    ways = {"single, donated": (step, dict(donate_argnums=0), 1), "single": (step, {}, 1)}
    ways["scanned"] = (scan, dict(donate_argnums=0), scanned_steps)
    found = {}
    for name, (f, options, count) in ways.items():
        state = jit(method.init)(jax.random.key(0), blurred)
        g = jit(f, **options)

        def advance(g=g):
            nonlocal state
            state, loss = g(state, 0)
            return jax.block_until_ready(loss)

        found[name] = alternate({"": advance}, 3, 1)[""] / count
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--step", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        step, _, _ = jbid_step(args.channels, "ssim")
        print(alternate({"": step}, args.rounds, 3)[""])
        return

    from jbid.io.files import write_json
    from jbid.runtime.environment import versions_and_device

    content: dict = {"benchmark": "design_choices", "channels": args.channels, **versions_and_device(), "seconds": {}}
    for question, answers in (convolutions(args.channels) | norms_and_blurs(args.channels)).items():
        content["seconds"][question] = alternate(answers, args.rounds, 1)
        print(question, json.dumps(content["seconds"][question], indent=1), flush=True)
    content["seconds"]["whole step"] = driver(args.channels)
    call = [sys.executable, "-m", "benchmarks.design_choices", "--step", "--channels", str(args.channels)]
    bare = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    for name, environment in (
        ("allocator that keeps memory", bare),
        ("allocator as it comes", bare | {"JBID_KEEP_MEMORY": "0"}),
    ):
        done = subprocess.run(call, env=environment, check=True, capture_output=True, text=True)
        content["seconds"]["whole step"][name] = float(done.stdout.split()[-1])
    print("whole step", json.dumps(content["seconds"]["whole step"], indent=1))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.out, content)


if __name__ == "__main__":
    tune_malloc()
    main()
