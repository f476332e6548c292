"""Driving a method: the only place in jbid that compiles, loops and knows about backends."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jbid.checkpoint import Checkpoint
from jbid.types import Method, Restored, State

CHUNK = 10  # steps between looks at the clock, the user and the checkpoint


class Progress(NamedTuple):
    """What `run` tells between chunks."""

    step: int
    steps: int
    loss: np.ndarray  # of the last step, with the method's batch axes


class Result(NamedTuple):
    """The end of a run. `losses` is (steps done, *batch); fewer than asked for where `on_chunk` stopped it."""

    state: State
    restored: Restored
    losses: np.ndarray


@functools.cache
def _compiler_options(backend: str) -> dict[str, str]:
    """On CPU, XLA's own convolutions in place of YNNPACK's, whose gradients take twice as long; reductions stay there.

    Measured by benchmarks/design_choices.py. Ignored by versions of jaxlib that do not know the flag.
    """
    if backend != "cpu":
        return {}
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
    try:
        jax.jit(jnp.negative, compiler_options=options)(jnp.zeros(()))
    except Exception:  # the type differs between versions
        return {}
    return options


def compiled(f: Callable, **kwargs) -> Callable:
    """`jax.jit(f, **kwargs)` with the compiler options that suit the backend."""
    return jax.jit(f, compiler_options=_compiler_options(jax.default_backend()), **kwargs)


# Keeps the compiled functions of the last few methods, so that image after image costs no new compilation
@functools.lru_cache(maxsize=8)
def _driver(method: Method) -> tuple[Callable, Callable, Callable]:
    def step(state, blurred, t):
        state, info = method.step(state, blurred, t)
        return state, info.loss

    def scanned(state, blurred, t, n):
        return jax.lax.scan(lambda state, i: step(state, blurred, i), state, t + jnp.arange(n))

    one = compiled(step, donate_argnums=0)

    def looped(state, blurred, t, n):
        losses = []
        for i in range(t, t + n):
            state, loss = one(state, blurred, jnp.asarray(i))
            losses.append(loss)
        return state, jnp.stack(losses)

    # XLA's CPU backend compiles convolutions inside a loop body to much slower code than outside
    advance = looped if jax.default_backend() == "cpu" else compiled(scanned, donate_argnums=0, static_argnums=3)
    return compiled(method.init), advance, compiled(method.restore)


def run(
    method: Method,
    key: Array,
    blurred: Array,
    steps: int,
    *,
    start: Array | None = None,
    chunk: int = CHUNK,
    on_chunk: Callable[[Progress], bool | None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Result:
    """`steps` steps of `method` from `key` (typed keys, with the method's batch axes) on `blurred`.

    `start` is a kernel (for each image, where they are batched) that the kernel generator is fitted to beforehand.

    Steps are driven `chunk` at a time: scanned on accelerators, one compiled step after the other on CPU, with the
    same result. `on_chunk` is called in between and stops the run by returning True. With `checkpoint`, the run starts
    from what that holds, if anything, and is saved there between chunks and at an early end; it then ends bit for bit
    like one that was never stopped.
    """
    init, advance, restore = _driver(method)
    saved = checkpoint.load(jax.eval_shape(init, key, blurred, start)) if checkpoint else None
    state, losses = saved if saved else (init(key, blurred, start), np.zeros((0, *key.shape), np.float32))
    stopped = False
    while len(losses) < steps and not stopped:
        t = len(losses)
        state, told = advance(state, blurred, t, min(chunk, steps - t))
        losses = np.concatenate([losses, np.asarray(told)])
        if on_chunk:
            stopped = bool(on_chunk(Progress(len(losses), steps, losses[-1])))
        if checkpoint and (stopped or checkpoint.due()):
            checkpoint.save(state, losses)
    return Result(state, restore(state, blurred), losses)
