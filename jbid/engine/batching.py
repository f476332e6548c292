"""Batches of many images and seeds: sized to the memory, sharded over the devices of this machine."""

from __future__ import annotations

import functools
import gc
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding
from jax.typing import ArrayLike

from jbid.engine.checkpoint import Checkpoint
from jbid.engine.driver import Progress, RunContext, RunResult, run, step_memory
from jbid.engine.wrappers import device_axis, over_devices
from jbid.types import Method

# work items on each CPU device: more gain no speed, and cost the compiler seconds each
CPU_BATCH = 8
# of the free memory that a step may use: programs, fits and results need some too
MEMORY_SHARE = 0.8


def free_memory() -> int:
    """Bytes that a batch may use on each of this process's devices."""
    devices = jax.local_devices()
    stats = devices[0].memory_stats() if devices[0].platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return int(MEMORY_SHARE * (stats["bytes_limit"] - stats["bytes_in_use"]))
    import psutil

    return int(MEMORY_SHARE * psutil.virtual_memory().available / len(devices))


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, jax.errors.JaxRuntimeError)
        and ("RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower())
    )


def even_batch(items: int, largest: int, devices: int) -> int:
    """Size of equal batches of at most `largest` items per device; copies fill up the last batch."""
    batches = math.ceil(items / (largest * devices))
    return math.ceil(items / (batches * devices)) * devices


@functools.lru_cache(maxsize=8)
def _shard(method: Method, devices: tuple) -> Method:
    # one object per method, so that `run` reuses its compiled functions
    return over_devices(method, devices)


class _Batches:
    """The work items of one call, cut into batches that fit the memory."""

    def __init__(
        self,
        method: Method,
        arrays: tuple[Any, ...],
        devices: tuple,
        memory: int | None,
        checkpoint: Checkpoint | None,
    ):
        self.method = method if len(devices) == 1 else _shard(method, devices)
        self.arrays = arrays
        self.items = len(arrays[0])
        self.devices = len(devices)
        self.checkpoint = checkpoint
        self.sharding = None if len(devices) == 1 else NamedSharding(*device_axis(devices))
        self.largest = math.ceil(self.items / len(devices))
        if devices[0].platform == "cpu":
            self.largest = min(self.largest, CPU_BATCH)
        # a batch that was begun is resumed at the same size, or its work would be lost, unless `memory` forbids it
        if memory is not None or not self.begun(0):
            self._fit(free_memory() if memory is None else memory)
        self.usual = self.begun(0) or even_batch(self.items, self.largest, self.devices)

    def take(self, indices: np.ndarray) -> tuple[Any, ...]:
        """The arrays of some work items, on the devices."""

        def place(array):
            return jnp.asarray(array) if self.sharding is None else jax.device_put(array, self.sharding)

        return tuple(None if array is None else place(array[indices]) for array in self.arrays)

    def begun(self, first: int) -> int | None:
        """Size of the batch from item `first` that the checkpoint holds; of several, all but the least failed."""
        names = [name.split("-") for name in self.checkpoint.parts()] if self.checkpoint else []
        sizes = [int(end) - int(start) for start, end in names if int(start) == first]
        fitting = [n for n in sizes if n % self.devices == 0 and n // self.devices <= self.largest]
        return min(fitting, default=None)

    def _fit(self, budget: int) -> None:
        # a single item runs whatever it needs: the machine decides
        while self.largest > 1:
            size = even_batch(self.items, self.largest, self.devices) // self.devices
            try:
                needed = step_memory(self.method, *self.take(np.arange(size * self.devices) % self.items))
            except jax.errors.JaxRuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                # some compilers refuse what does not fit
                needed = 2 * budget
            if needed <= budget:
                break
            self.largest = max(1, min(size - 1, int(size * budget / needed)))

    def halve(self, first: int, size: int) -> None:
        """Halve the batches from item `first` on after one of `size` items ran out of memory.

        Raises:
            ValueError: if a single item per device does not fit.
        """
        if size == self.devices:
            raise ValueError(
                "out of memory with a single image and seed. Set a smaller `patch` or network, such as `channels` = 32."
            ) from None
        self.largest = max(1, size // self.devices // 2)
        self.usual = even_batch(self.items - first, self.largest, self.devices)


def run_batched(
    method: Method,
    keys: Array,
    blurred: ArrayLike,
    steps: int,
    *,
    init_kernel: ArrayLike | None = None,
    context: RunContext | None = None,
) -> RunResult:
    """`run` many work items, each an image and a seed, in batches that fit the memory, on all local devices.

    Work items are independent: each ends as it would alone, up to the rounding of larger batches. The batch size
    follows from the compiler's count of a step's memory and `context.memory`. A batch that runs out of memory all the
    same is halved and begins anew. Each batch has its own checkpoint, and finished batches keep theirs; a resumed run
    continues with the same batches.

    Args:
        method: batched by `over_images`.
        keys: typed random keys, (n,).
        blurred: observed images, (n, h, w, c).
        steps: number of steps.
        init_kernel: initial kernels, (n, kh, kw), or None.
        context: memory, checkpoint, progress and cancellation.

    Raises:
        ValueError: if a single work item does not fit the memory.
    """
    context = context or RunContext()
    devices = tuple(jax.local_devices())[: len(keys)]
    batches = _Batches(method, (keys, blurred, init_kernel), devices, context.memory, context.checkpoint)
    results: list[RunResult] = []
    first, is_cancelled = 0, False
    while first < batches.items:
        size = batches.begun(first) or batches.usual
        last = min(first + size, batches.items)

        def report(progress, first=first, last=last):
            share = (first * steps + (last - first) * progress.step) / batches.items
            if context.on_progress:
                loss = progress.loss[: last - first]
                context.on_progress(Progress(int(share), steps, loss, (first * steps) // batches.items))

        def ask():
            nonlocal is_cancelled
            is_cancelled = is_cancelled or context.is_cancelled()
            return is_cancelled

        # after a cancellation, items that never began are reported as initialized
        count = 0 if is_cancelled else steps
        result = _run_batch(batches, first, size, count, RunContext(on_progress=report, is_cancelled=ask))
        if result is None:
            batches.halve(first, size)
            if context.on_smaller_batch:
                context.on_smaller_batch(size, batches.usual)
            jax.clear_caches()  # of programs and arrays of the larger batch
            gc.collect()
            continue
        results.append(_trim(result._replace(is_complete=result.is_complete and count == steps), last - first))
        first = last
    return _join(results)


def _run_batch(batches: _Batches, first: int, size: int, steps: int, context: RunContext) -> RunResult | None:
    """One batch; None if it ran out of memory."""
    checkpoint = None
    if batches.checkpoint and steps:
        checkpoint = batches.checkpoint.part(f"{first}-{first + size}", batches.sharding)
    # copies of the last item fill up the last batch, so that one program serves all
    keys, blurred, init_kernel = batches.take(np.minimum(np.arange(first, first + size), batches.items - 1))
    try:
        context = context._replace(checkpoint=checkpoint)
        result = run(batches.method, keys, blurred, steps, init_kernel=init_kernel, context=context)
        return jax.device_get(result._replace(state=None))
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        return None
    finally:
        if checkpoint:
            checkpoint.close()


def _trim(result: RunResult, count: int) -> RunResult:
    """The result without the copies that filled up the batch."""
    output = jax.tree.map(lambda x: x[:count], result.output)
    return result._replace(output=output, losses=result.losses[:, :count], stopped=result.stopped[:count])


def _join(results: list[RunResult]) -> RunResult:
    """One result of all batches; losses of items that ended early are continued by their last value."""
    steps = max(len(result.losses) for result in results)

    def extend(losses):
        if not len(losses):
            return np.full((steps, losses.shape[1]), np.nan, np.float32)
        return np.pad(losses, ((0, steps - len(losses)), (0, 0)), mode="edge")

    output: Any = jax.tree.map(lambda *parts: np.concatenate(parts), *(result.output for result in results))
    return RunResult(
        None,
        output,
        np.concatenate([extend(result.losses) for result in results], 1),
        np.concatenate([result.stopped for result in results]),
        all(result.is_complete for result in results),
    )
