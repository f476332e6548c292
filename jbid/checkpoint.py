"""Saving a run's state, with Orbax."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def _is_key(x) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _as_bits(state: Any) -> Any:
    """The state with its typed keys as arrays of numbers, which is how they can be stored."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, state)


class Checkpoint:
    """The last state of one run in a directory, saved at most every `seconds`, and with `final` at its end.

    Orbax writes under a temporary name and renames, so a process killed at any moment leaves the state before intact.
    """

    def __init__(self, directory: str | Path, *, seconds: float = 30.0, final: bool = False):
        self.final = final
        self._directory = Path(directory).absolute()
        self._seconds = seconds
        self._last = time.monotonic()
        self._opened: Any = None

    @property
    def _manager(self) -> Any:
        # opened at first use, as a run in parts needs none of its own
        if self._opened is None:
            import orbax.checkpoint as ocp

            options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
            self._opened = ocp.CheckpointManager(self._directory, options=options)
        return self._opened

    def part(self, name: str) -> Checkpoint:
        """The checkpoint of a part of this run, in a directory within; kept when the part is done."""
        return Checkpoint(self._directory / name, seconds=self._seconds, final=True)

    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._last >= self._seconds

    def save(self, state: Any, losses: np.ndarray, stopped: np.ndarray) -> None:
        """Replace what is held by `state` after `len(losses)` steps, and by what was told on the way."""
        import orbax.checkpoint as ocp

        tree = {"state": jax.device_get(_as_bits(state)), "losses": losses, "stopped": stopped}
        self._manager.save(len(losses), args=ocp.args.StandardSave(tree), force=True)
        self._last = time.monotonic()

    def load(self, like: Any, batch: tuple[int, ...]) -> tuple[Any, np.ndarray, np.ndarray] | None:
        """The state, losses and stops held, or None.

        `like` has the shapes and dtypes of the state to expect, `batch` is the shape of images and seeds.
        """
        import orbax.checkpoint as ocp

        step = self._manager.latest_step()
        if step is None:
            return None
        losses = jax.ShapeDtypeStruct((step, *batch), np.float32)
        stopped = jax.ShapeDtypeStruct(batch, np.int32)
        target = {"state": jax.eval_shape(_as_bits, like), "losses": losses, "stopped": stopped}
        tree = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        # own buffers on the default device, as a fresh state has them
        state = jax.tree.map(
            lambda x, kind: jax.random.wrap_key_data(jnp.asarray(x)) if _is_key(kind) else jnp.asarray(x),
            tree["state"],
            like,
        )
        return state, np.asarray(tree["losses"]), np.asarray(tree["stopped"])

    def close(self) -> None:
        """Wait for what is being written and let go of the directory."""
        if self._opened is not None:
            self._opened.close()
