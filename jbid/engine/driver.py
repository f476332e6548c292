"""Driving a method: the only place in jbid that compiles, loops and knows about backends."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jbid.engine.checkpoint import Checkpoint
from jbid.runtime.compile import jit
from jbid.types import Method, MethodOutput

CHUNK = 10  # steps between looks at the clock, the user and the checkpoint


class Progress(NamedTuple):
    """What `run` tells between chunks."""

    step: int
    steps: int
    loss: np.ndarray  # of the last step, with the method's batch axes


class RunResult(NamedTuple):
    """The end of a run. `losses` is (steps done, *batch); fewer than asked for where it was stopped.

    `complete`: all steps were done, or all seeds have stopped themselves; else `on_chunk` stopped it. `stopped`:
    the number of steps after which each seed stopped itself, 0 where it did not.
    """

    state: Any
    restored: MethodOutput
    losses: np.ndarray
    stopped: np.ndarray
    complete: bool


# Keeps the compiled functions of the last few methods, so that image after image costs no new compilation
@functools.lru_cache(maxsize=8)
def _driver(method: Method) -> tuple[Callable, Callable, Callable, Callable]:
    def step(state, blurred, t):
        state, info = method.step(state, blurred, t)
        return state, (info.loss, info.stopped)

    def several(state, blurred, t, n):
        return jax.lax.scan(lambda state, i: step(state, blurred, i), state, t + jnp.arange(n))

    one = jit(step, donate_argnums=0)
    scanned = jit(several, donate_argnums=0, static_argnums=3)

    def looped(state, blurred, t, n):
        told = []
        for i in range(t, t + n):
            state, now = one(state, blurred, jnp.asarray(i))
            told.append(now)
        return state, jax.tree.map(lambda *each: jnp.stack(each), *told)

    # XLA's CPU backend compiles convolutions inside a loop body to much slower code than outside
    if jax.default_backend() == "cpu":
        advance, lowered = looped, lambda state, blurred: one.lower(state, blurred, jnp.asarray(0))
    else:
        advance, lowered = scanned, lambda state, blurred: scanned.lower(state, blurred, 0, CHUNK)
    restore = jit(lambda state, blurred: method.restore(method.estimate(state), blurred))
    return jit(method.init), advance, restore, lowered


def step_memory(method: Method, key: Array, blurred: Array, start: Array | None = None) -> int:
    """The bytes on each device that a step of `method` takes, by the compiler's count; 0 where it does not tell.

    The step is compiled for it, and `run` with arguments of these shapes uses what was compiled.
    """
    init, _, _, lowered = _driver(method)
    spread = blurred.sharding if len(blurred.sharding.device_set) > 1 else None
    state = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=spread), jax.eval_shape(init, key, blurred, start)
    )
    told = lowered(state, blurred).compile().memory_analysis()
    if told is None:
        return 0
    taken = told.argument_size_in_bytes + told.output_size_in_bytes - told.alias_size_in_bytes
    return int(taken + told.temp_size_in_bytes)


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
) -> RunResult:
    """`steps` steps of `method` from `key` (typed keys, with the method's batch axes) on `blurred`.

    `start` is a kernel that the kernel generator is fitted to beforehand, with the batch axes of `key`.

    Steps are driven `chunk` at a time: scanned on accelerators, one compiled step after the other on CPU, with the
    same result. `on_chunk` is called in between and stops the run by returning True. With `checkpoint`, the run starts
    from what that holds, if anything, and is saved there between chunks and at an early end; it then ends bit for bit
    like one that was never stopped.
    """
    init, advance, restore, _ = _driver(method)
    saved = checkpoint.load(jax.eval_shape(init, key, blurred, start), key.shape) if checkpoint else None
    if saved:
        state, losses, stopped = saved
    else:
        state = init(key, blurred, start)
        losses, stopped = np.zeros((0, *key.shape), np.float32), np.zeros(key.shape, np.int32)
    asked = False
    while not (complete := len(losses) >= steps or bool(stopped.all())) and not asked:
        t = len(losses)
        state, told = advance(state, blurred, t, min(chunk, steps - t))
        more, ended = (np.asarray(each) for each in told)
        losses = np.concatenate([losses, more])
        stopped = np.where((stopped == 0) & ended[-1], t + 1 + ended.argmax(0), stopped).astype(np.int32)
        if on_chunk:
            asked = bool(on_chunk(Progress(len(losses), steps, losses[-1])))
        over = len(losses) >= steps or bool(stopped.all())
        if checkpoint and (asked or (over and checkpoint.final) or checkpoint.due()):
            checkpoint.save(state, losses, stopped)
    return RunResult(state, restore(state, blurred), losses, stopped, complete)
