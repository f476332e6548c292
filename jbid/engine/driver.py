"""Driver of a method: compiles its steps, loops over them, reports progress and saves checkpoints."""

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

CHUNK = 10  # steps between two looks at the clock, the user and the checkpoint


class Progress(NamedTuple):
    """Progress of a run, reported between chunks of steps.

    Attributes:
        step: steps done.
        steps: steps of the whole run.
        loss: of the last step, with the method's batch axes.
        first: steps that an earlier, interrupted run had done.
    """

    step: int
    steps: int
    loss: np.ndarray
    first: int = 0


class RunContext(NamedTuple):
    """Services around a run; none of them changes its result.

    Attributes:
        memory: bytes that a batch may use on each device; None: what is free.
        checkpoint: place to save the state, and to resume from.
        on_progress: called between chunks of steps.
        on_smaller_batch: called with the old and the new batch size when memory runs out.
        on_stage: called with a line that says what the estimation of a kernel does next.
        on_tile: called with the number of tiles done and their total, during the deconvolution of a large image.
        is_cancelled: asked between chunks; True stops the run, which saves its state first.
    """

    memory: int | None = None
    checkpoint: Checkpoint | None = None
    on_progress: Callable[[Progress], object] | None = None
    on_smaller_batch: Callable[[int, int], object] | None = None
    on_stage: Callable[[str], object] | None = None
    on_tile: Callable[[int, int], object] | None = None
    is_cancelled: Callable[[], bool] = lambda: False


class RunResult(NamedTuple):
    """End of a run.

    Attributes:
        state: of the method after the last step.
        output: image and kernel, with the method's batch axes.
        losses: (steps done, *batch); fewer than the steps of the run if it was cancelled.
        stopped: steps after which each seed stopped early, 0 if it did not.
        is_complete: all steps were done, or all seeds stopped early; False if the run was cancelled.
    """

    state: Any
    output: MethodOutput
    losses: np.ndarray
    stopped: np.ndarray
    is_complete: bool


class _Compiled(NamedTuple):
    """Compiled functions of a method; `lower` is the step's, for its memory."""

    init: Callable
    advance: Callable
    restore: Callable
    lower: Callable


# The last few methods stay compiled, so that one image after another costs no new compilation
@functools.lru_cache(maxsize=8)
def _compile(method: Method) -> _Compiled:
    def step(state, blurred, t):
        state, info = method.step(state, blurred, t)
        return state, (info.loss, info.stopped)

    def scan(state, blurred, t, n):
        return jax.lax.scan(lambda state, i: step(state, blurred, i), state, t + jnp.arange(n))

    jit_step = jit(step, donate_argnums=0)
    jit_scan = jit(scan, donate_argnums=0, static_argnums=3)

    def loop(state, blurred, t, n):
        infos = []
        for i in range(t, t + n):
            state, info = jit_step(state, blurred, jnp.asarray(i))
            infos.append(info)
        return state, jax.tree.map(lambda *parts: jnp.stack(parts), *infos)

    # XLA's CPU backend compiles convolutions inside a loop body to much slower code than outside
    if jax.default_backend() == "cpu":
        advance, lower = loop, lambda state, blurred: jit_step.lower(state, blurred, jnp.asarray(0))
    else:
        advance, lower = jit_scan, lambda state, blurred: jit_scan.lower(state, blurred, 0, CHUNK)
    restore = jit(lambda state, blurred: method.restore(method.estimate(state), blurred))
    return _Compiled(jit(method.init), advance, restore, lower)


def step_memory(method: Method, key: Array, blurred: Array, init_kernel: Array | None = None) -> int:
    """Bytes on each device that a step of `method` needs, as the compiler counts them; 0 if it does not.

    This compiles the step; `run` with arguments of the same shapes uses the compiled program.
    """
    compiled = _compile(method)
    sharding = blurred.sharding if len(blurred.sharding.device_set) > 1 else None
    state = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(compiled.init, key, blurred, init_kernel),
    )
    analysis = compiled.lower(state, blurred).compile().memory_analysis()
    if analysis is None:
        return 0
    arguments = analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return int(arguments + analysis.temp_size_in_bytes)


def run(
    method: Method,
    key: Array,
    blurred: Array,
    steps: int,
    *,
    init_kernel: Array | None = None,
    context: RunContext | None = None,
    chunk: int = CHUNK,
) -> RunResult:
    """Run `steps` steps of a method.

    Chunks of steps are scanned on accelerators and looped over on CPU, with the same result. A run that resumes from
    a checkpoint ends bit for bit like an uninterrupted one.

    Args:
        method: for one image and one seed, or batched by `over_seeds` or `over_images`.
        key: typed random keys, with the method's batch axes.
        blurred: observed image (h, w, c) in [0, 1], with the method's batch axes; NaN pixels are unknown.
        steps: number of steps.
        init_kernel: initial kernel with sum one, with the batch axes of `key`; None: the method's own.
        context: checkpoint, progress and cancellation.
        chunk: steps between two reports.

    Example:
        >>> import jbid
        >>> method = jbid.selfdeblur(5, out_channels=1, channels=4, skip_channels=2, scales=1)
        >>> run(method, jax.random.key(0), jnp.full((32, 32, 1), 0.5), 2).output.image.shape
        (32, 32, 1)
    """
    context = context or RunContext()
    checkpoint = context.checkpoint
    compiled = _compile(method)
    saved = checkpoint.load(jax.eval_shape(compiled.init, key, blurred, init_kernel), key.shape) if checkpoint else None
    if saved:
        state, losses, stopped = saved
    else:
        state = compiled.init(key, blurred, init_kernel)
        losses, stopped = np.zeros((0, *key.shape), np.float32), np.zeros(key.shape, np.int32)
    first, is_cancelled = len(losses), False
    while not (is_complete := len(losses) >= steps or bool(stopped.all())) and not is_cancelled:
        t = len(losses)
        state, infos = compiled.advance(state, blurred, t, min(chunk, steps - t))
        new_losses, has_stopped = (np.asarray(info) for info in infos)
        losses = np.concatenate([losses, new_losses])
        stopped = np.where((stopped == 0) & has_stopped[-1], t + 1 + has_stopped.argmax(0), stopped).astype(np.int32)
        if context.on_progress:
            context.on_progress(Progress(len(losses), steps, losses[-1], first))
        is_cancelled = context.is_cancelled()
        is_over = len(losses) >= steps or bool(stopped.all())
        if checkpoint and (is_cancelled or (is_over and checkpoint.final) or checkpoint.due()):
            checkpoint.save(state, losses, stopped)
    return RunResult(state, compiled.restore(state, blurred), losses, stopped, is_complete)
