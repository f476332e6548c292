"""Saving a run's state, with Orbax."""

from __future__ import annotations

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jbid.types import State


class Checkpoint:
    """The last state of one run in a directory, saved at most every `seconds`.

    Orbax writes under a temporary name and renames, so a process killed at any moment leaves the state before intact.
    """

    def __init__(self, directory: str | Path, *, seconds: float = 30.0):
        import orbax.checkpoint as ocp

        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        self._ocp = ocp
        self._manager = ocp.CheckpointManager(Path(directory).absolute(), options=options)
        self._seconds = seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._last >= self._seconds

    def save(self, state: State, losses: np.ndarray) -> None:
        """Replace what is held by `state` after `len(losses)` steps."""
        # typed keys are stored as their bits
        tree = {"state": jax.device_get(state._replace(key=jax.random.key_data(state.key))), "losses": losses}
        self._manager.save(len(losses), args=self._ocp.args.StandardSave(tree), force=True)
        self._last = time.monotonic()

    def load(self, like: State) -> tuple[State, np.ndarray] | None:
        """The state and losses held, or None. `like` has the shapes and dtypes of the state to expect."""
        step = self._manager.latest_step()
        if step is None:
            return None
        bits = jax.eval_shape(jax.random.key_data, like.key)
        losses = jax.ShapeDtypeStruct((step, *like.key.shape), np.float32)
        target = {"state": like._replace(key=bits), "losses": losses}
        tree = self._manager.restore(step, args=self._ocp.args.StandardRestore(target))
        # own buffers on the default device, as a fresh state has them
        state = jax.tree.map(jnp.asarray, tree["state"])
        return state._replace(key=jax.random.wrap_key_data(state.key)), np.asarray(tree["losses"])

    def close(self) -> None:
        """Wait for what is being written and let go of the directory."""
        self._manager.close()
