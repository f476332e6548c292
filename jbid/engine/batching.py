"""Many images and seeds at once: parts that fit the memory, spread over the devices of this machine."""

from __future__ import annotations

import functools
import gc
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding
from jax.typing import ArrayLike

from jbid.engine.checkpoint import Checkpoint
from jbid.engine.driver import Progress, RunResult, run, step_memory
from jbid.engine.wrappers import device_axis, over_devices
from jbid.types import Method

# seeds or images on each CPU device: more take as long for each, and the compiler several seconds more for each
CPU_BATCH = 8
SHARE = 0.8  # of the free memory that a step may take: what is compiled, fitted and restored needs some too
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_memory(text: str) -> int:
    """The bytes that a text such as "6GiB", "800M" or "2.5g" stands for. Raises ValueError for another one."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", text, re.IGNORECASE)
    if not found or not float(found[1]):
        raise ValueError(f"got memory {text!r}, expected a size such as 6GiB or 800MB")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def free_memory() -> int:
    """Bytes that a launch may take on each of this process's devices."""
    devices = jax.local_devices()
    told = devices[0].memory_stats() if devices[0].platform != "cpu" else None
    if told and "bytes_limit" in told:
        return int(SHARE * (told["bytes_limit"] - told["bytes_in_use"]))
    import psutil

    return int(SHARE * psutil.virtual_memory().available / len(devices))


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, jax.errors.JaxRuntimeError)
        and ("RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower())
    )


def even_batch(units: int, most: int, devices: int) -> int:
    """The size of equal parts of at most `most` on each device; the last one is filled up with copies."""
    parts = math.ceil(units / (most * devices))
    return math.ceil(units / (parts * devices)) * devices


@functools.lru_cache(maxsize=8)
def _spread(method: Method, devices: tuple) -> Method:
    # one object per method, so that `run` finds its compiled functions again
    return over_devices(method, devices)


def run_batched(
    method: Method,
    keys: Array,
    blurred: ArrayLike,
    steps: int,
    *,
    start: ArrayLike | None = None,
    memory: int | None = None,
    on_chunk: Callable[[Progress], bool | None] | None = None,
    on_fewer: Callable[[int, int], object] | None = None,
    checkpoint: Checkpoint | None = None,
) -> RunResult:
    """`jbid.run.run` for a method `over_images`, in as many parts as the memory asks for, on all local devices.

    keys (n,), blurred (n, h, w, c) and start (n, kh, kw) are of n units, an image and a seed each, which know nothing
    of each other: every unit ends as it would alone, up to the rounding of larger batches. A part is as many units as
    need, by the compiler's count for a step, no more than `memory` bytes on each device (default: `SHARE` of what is
    free), and on CPUs at most `CPU_MOST` on each. Where that was too much all the same, the part is halved and begins
    anew, and `on_fewer(before, now)` is told. With `checkpoint` each part is saved by itself, those that are done for
    good; what it holds goes on in parts of the same size, whatever is free now, unless `memory` or another number of
    devices forbids it.

    Raises ValueError where a single unit does not fit.
    """
    devices = tuple(jax.local_devices())[: len(keys)]
    spread, place, sharding = method, jnp.asarray, None
    if len(devices) > 1:
        spread = _spread(method, devices)
        sharding = NamedSharding(*device_axis(devices))
        place = functools.partial(jax.device_put, device=sharding)
    units = len(keys)

    def taken(at):
        return tuple(None if each is None else place(each[at]) for each in (keys, blurred, start))

    most = math.ceil(units / len(devices))
    if devices[0].platform == "cpu":
        most = min(most, CPU_BATCH)
    budget = free_memory() if memory is None else memory

    def begun(first: int) -> int | None:
        """The size of the part from there on that a checkpoint holds; of several, all but the least were too large."""
        ends = [name.split("-") for name in checkpoint.parts()] if checkpoint else []
        sizes = [int(end) - int(start) for start, end in ends if int(start) == first]
        fitting = [size for size in sizes if size % len(devices) == 0 and size // len(devices) <= most]
        return min(fitting, default=None)

    # what was begun goes on in the same parts, or it would begin anew, but for a memory that is asked for
    while most > 1 and (memory is not None or not begun(0)):
        # a single unit is let through whatever it needs: the machine has the last word
        each = even_batch(units, most, len(devices)) // len(devices)
        try:
            needed = step_memory(spread, *taken(np.arange(each * len(devices)) % units))
        except jax.errors.JaxRuntimeError as error:
            if not _out_of_memory(error):
                raise
            # some compilers refuse what does not fit
            needed = 2 * budget
        if needed <= budget:
            break
        most = max(1, min(each - 1, int(each * budget / needed)))

    done: list[RunResult] = []
    first, wanted, asked = 0, steps, False
    usual = begun(0) or even_batch(units, most, len(devices))
    while first < units:
        size = begun(first) or usual
        last = min(first + size, units)
        # the last unit fills up what is missing to equal parts, so that one program does for all
        at = np.minimum(np.arange(first, first + size), units - 1)

        def told(now, first=first, last=last):
            nonlocal asked
            share = (first * steps + (last - first) * now.step) / units
            asked = bool(on_chunk and on_chunk(Progress(int(share), steps, now.loss[: last - first])))
            return asked

        part = checkpoint.part(f"{first}-{first + size}", sharding) if checkpoint and wanted else None
        part_keys, part_blurred, part_start = taken(at)
        try:
            answer = run(spread, part_keys, part_blurred, wanted, start=part_start, on_chunk=told, checkpoint=part)
            answer = jax.device_get(answer._replace(state=None))
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not _out_of_memory(error):
                raise
            if size == len(devices):
                raise ValueError(
                    "out of memory with a single image and seed: use a smaller --patch or network (--set channels=32)"
                ) from None
            before, most = size, max(1, size // len(devices) // 2)
            usual = even_batch(units - first, most, len(devices))
            if on_fewer:
                on_fewer(before, usual)
            # programs for the larger part, and arrays that the error's traceback holds, are in the way now
            del error
            jax.clear_caches()
            gc.collect()
            continue
        finally:
            if part:
                part.close()
        done.append(_without_copies(answer._replace(complete=answer.complete and wanted == steps), last - first))
        # after a stop, what was never begun is told as it starts
        wanted = 0 if asked else wanted
        first = last
    return _joined(done)


def _without_copies(answer: RunResult, count: int) -> RunResult:
    restored = jax.tree.map(lambda x: x[:count], answer.restored)
    return answer._replace(restored=restored, losses=answer.losses[:, :count], stopped=answer.stopped[:count])


def _joined(parts: list[RunResult]) -> RunResult:
    """The parts as one; losses of units that ended before others go on with their last."""
    steps = max(len(part.losses) for part in parts)

    def extended(losses):
        if not len(losses):
            return np.full((steps, losses.shape[1]), np.nan, np.float32)
        return np.pad(losses, ((0, steps - len(losses)), (0, 0)), mode="edge")

    restored: Any = jax.tree.map(lambda *each: np.concatenate(each), *(part.restored for part in parts))
    return RunResult(
        None,
        restored,
        np.concatenate([extended(part.losses) for part in parts], 1),
        np.concatenate([part.stopped for part in parts]),
        all(part.complete for part in parts),
    )
