"""Checkpoints of a run's state, with Orbax."""

from __future__ import annotations

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def _is_key(x) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _as_bits(state: Any) -> Any:
    """The state with its typed keys as arrays of integers, which can be stored."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, state)


@functools.cache
def _orbax() -> tuple[Any, type, type, type]:
    """Orbax, a handler for lists of arrays, and the classes of its arguments to save and restore.

    Orbax's own handlers write NumPy arrays from the first process only; here each process has its own states.
    """
    import orbax.checkpoint as ocp

    class Arrays(ocp.CheckpointHandler):
        def save(self, directory, args):
            # as bytes, because NumPy's format lacks some of JAX's types
            np.savez(Path(directory) / "arrays.npz", *(np.frombuffer(x.tobytes(), np.uint8) for x in args.arrays))

        def restore(self, directory, args):
            with np.load(Path(directory) / "arrays.npz") as file:
                return [file[f"arr_{i}"] for i in range(len(file.files))]

    @ocp.args.register_with_handler(Arrays, for_save=True)
    @dataclasses.dataclass
    class Save(ocp.args.CheckpointArgs):
        arrays: list[np.ndarray]

    @ocp.args.register_with_handler(Arrays, for_restore=True)
    @dataclasses.dataclass
    class Restore(ocp.args.CheckpointArgs):
        pass

    return ocp, Arrays, Save, Restore


class Checkpoint:
    """The last state of one run, in a directory.

    Orbax writes to a temporary name and renames, so a process killed at any moment leaves the previous state intact.
    Each of several processes has its own directories and waits for no other.

    Args:
        directory: of this run alone.
        seconds: time between two saves; 0 saves after each chunk.
        final: save at the end of the run too.
        sharding: of the arrays of a loaded state; None: on the default device.

    Raises:
        ValueError: if `seconds` is negative.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        seconds: float = 30.0,
        final: bool = False,
        sharding: jax.sharding.Sharding | None = None,
    ):
        if seconds < 0:
            raise ValueError(f"`seconds` between checkpoints must be at least 0, got {seconds}")
        self.final = final
        self._sharding = sharding
        self._directory = Path(directory).absolute()
        self._seconds = seconds
        self._last = time.monotonic()
        self._opened: Any = None

    @property
    def _manager(self) -> Any:
        # opened at first use, as a batched run needs none of its own
        if self._opened is None:
            ocp, handler, _, _ = _orbax()
            self._directory.mkdir(parents=True, exist_ok=True)
            index = jax.process_index()
            alone = ocp.options.MultiprocessingOptions(
                primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process {index}"
            )
            options = ocp.CheckpointManagerOptions(
                max_to_keep=1, enable_async_checkpointing=False, create=False, multiprocessing_options=alone
            )
            self._opened = ocp.CheckpointManager(self._directory, item_handlers=handler(), options=options)
        return self._opened

    def part(self, name: str, sharding: jax.sharding.Sharding | None = None) -> Checkpoint:
        """Checkpoint of one batch of this run, in a subdirectory; kept when the batch is finished."""
        return Checkpoint(self._directory / name, seconds=self._seconds, final=True, sharding=sharding)

    def parts(self) -> list[str]:
        """Names of the batches that have a saved state."""
        # a state's directory has its step as its name
        return sorted({step.parent.name for step in self._directory.glob("*/*") if step.name.isdigit()})

    def due(self) -> bool:
        """Return True if it is time to save again."""
        return time.monotonic() - self._last >= self._seconds

    def save(self, state: Any, losses: np.ndarray, stopped: np.ndarray) -> None:
        """Replace the saved state by `state` after `len(losses)` steps, with its losses and early stops."""
        arrays = [np.asarray(x) for x in jax.device_get(jax.tree.leaves(_as_bits(state)))]
        self._manager.save(len(losses), args=_orbax()[2]([*arrays, losses, stopped]), force=True)
        self._last = time.monotonic()

    def load(self, like: Any, batch: tuple[int, ...]) -> tuple[Any, np.ndarray, np.ndarray] | None:
        """Saved state, losses and early stops; None if nothing is saved.

        Args:
            like: a state with the expected shapes and dtypes.
            batch: shape of the batch axes.

        Raises:
            ValueError: if the saved state belongs to another run.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        bits, structure = jax.tree.flatten(jax.eval_shape(_as_bits, like))
        kinds = [*bits, jax.ShapeDtypeStruct((step, *batch), np.float32), jax.ShapeDtypeStruct(batch, np.int32)]
        raw = self._manager.restore(step, args=_orbax()[3]())
        if [len(x) for x in raw] != [kind.size * kind.dtype.itemsize for kind in kinds]:
            raise ValueError(f"{self._directory}: checkpoint of a different run. Delete it or do not resume.")
        *arrays, losses, stopped = (np.frombuffer(x, kind.dtype).reshape(kind.shape) for x, kind in zip(raw, kinds))

        def place(x, kind):
            # in buffers of its own, as a fresh state has them
            x = jnp.array(x) if self._sharding is None else jax.device_put(x, self._sharding, may_alias=False)
            return jax.random.wrap_key_data(x) if _is_key(kind) else x

        state = jax.tree.map(place, jax.tree.unflatten(structure, arrays), like)
        return state, losses.copy(), stopped.copy()

    def close(self) -> None:
        """Wait for pending writes and close the directory."""
        if self._opened is not None:
            self._opened.close()
