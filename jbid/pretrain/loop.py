"""Loop that all trainings share: steps, metrics, samples, checkpoints, export."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from jbid.engine.checkpoint import Checkpoint
from jbid.engine.driver import CHUNK, Progress
from jbid.io import weights
from jbid.io.files import atomic_write
from jbid.io.images import image_grid, write_image
from jbid.io.tensorboard import open_board
from jbid.pipeline.resume import fingerprint
from jbid.runtime.compile import jit


class Training(NamedTuple):
    """A training as pure functions; the randomness of step t depends on the state's key and t only.

    Attributes:
        name: of the weight file, <kind>_<size>.
        metrics: names of the metrics of a step, the loss first.
        init: init(key) is the first state.
        step: step(state, batch, t) is the next state and the metrics.
        batch: batch(t) is the data of step t, a pytree of arrays, or None.
        measure: measure(state) is metrics on held-out data.
        samples: samples(state) is images of one size, (n, h, w).
        network: network(state) is the variables to ship.
        made_with: checksums of other weights that the training needs.
    """

    name: str
    metrics: tuple[str, ...]
    init: Callable[[Any], Any]
    step: Callable[[Any, Any, Any], tuple[Any, Any]]
    batch: Callable[[int], Any]
    measure: Callable[[Any], dict[str, float]]
    samples: Callable[[Any], NDArray]
    network: Callable[[Any], Mapping[str, Any]]
    made_with: Mapping[str, str] = {}


class State(NamedTuple):
    """State of a training with one optimizer and one set of variables."""

    key: Any
    variables: Any
    opt_state: Any


def descend(tx: optax.GradientTransformation, state: State, loss: Callable[[Any], Any]) -> tuple[State, Any]:
    """The state after one step of the optimizer down loss(params), and the loss, (1,)."""
    params = state.variables["params"]
    value, grad = jax.value_and_grad(loss)(params)
    updates, opt_state = tx.update(grad, state.opt_state, params)
    return State(state.key, {"params": optax.apply_updates(params, updates)}, opt_state), value[None]


class Ahead:
    """Computes make(t + 1) in a thread while step t runs."""

    def __init__(self, make: Callable[[int], Any]):
        self._make, self._pool = make, ThreadPoolExecutor(1)
        self._next: dict[int, Any] = {}

    def __call__(self, t: int) -> Any:
        """make(t)."""
        future = self._next.pop(t, None) or self._pool.submit(self._make, t)
        self._next = {t + 1: self._pool.submit(self._make, t + 1)}
        return future.result()


class _Log:
    """Metrics as lines of JSON and, if tensorboardX is installed, as TensorBoard events."""

    def __init__(self, folder: Path, done: int):
        self._path = folder / "metrics.jsonl"
        lines = self._path.read_text().splitlines(keepends=True) if self._path.exists() else []
        # lines after the checkpoint will be written again
        valid = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= done] if done else []
        with atomic_write(self._path) as temporary:
            temporary.write_text("".join(valid))
        self._board = open_board(folder / "tensorboard", purge_step=done + 1)

    def write(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step} | {name: float(f"{v:.7g}") for name, v in values.items()}) + "\n")
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        if self._board:
            self._board.close()


def _prepare_folder(training: Training, folder: Path, seed: int, settings: Mapping[str, Any], resume: bool) -> None:
    """Check that the folder belongs to the same training, or empty it if the training does not resume."""
    identity = fingerprint([training.name, seed, settings, training.made_with])
    mark = folder / "training.sha256"
    if not resume:
        for name in ("checkpoint", "weights", "samples"):
            shutil.rmtree(folder / name, ignore_errors=True)
    elif (folder / "checkpoint").exists() and mark.exists() and mark.read_text() != identity:
        raise ValueError(
            f"{folder}: belongs to a training with other settings. Choose another `workdir`, or do not `resume`."
        )
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    with atomic_write(mark) as temporary:
        temporary.write_text(identity)


def train(
    training: Training,
    steps: int,
    folder: Path,
    *,
    seed: int = 0,
    resume: bool = False,
    seconds: float = 60.0,
    every: int = 500,
    settings: Mapping[str, Any],
    about: Mapping[str, Any] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> bool:
    """Run a training in a folder.

    Writes metrics.jsonl (means over ten steps, and metrics on held-out data), samples/<step>.png, checkpoint/, and at
    the end weights/. A resumed training ends with the same bits as an uninterrupted one.

    Args:
        training, steps, seed: the training, its length and random seed.
        folder: of the training; without `resume`, an earlier training in it is removed.
        resume: continue from the checkpoint.
        seconds, every: time between two checkpoints, and steps between two measurements on held-out data.
        settings, about: of the training; entries of the manifest.
        on_progress, is_cancelled: called between chunks of steps; True stops the training after saving its state.

    Returns:
        True if all steps are done, False if the training was cancelled.
    """
    _prepare_folder(training, folder, seed, settings, resume)
    key, n = jax.random.key(seed), len(training.metrics)
    checkpoint = Checkpoint(folder / "checkpoint", seconds=seconds)
    saved = checkpoint.load(jax.eval_shape(training.init, key), (n,))
    state, history, _ = saved or (jit(training.init)(key), np.zeros((0, n), np.float32), None)
    step = jit(training.step, donate_argnums=0)
    log = _Log(folder, len(history))
    first, measured, is_stopped = len(history), None, False
    while (t := len(history)) < steps and not is_stopped:
        rows = []
        for i in range(t, min(t + CHUNK, steps)):
            state, values = step(state, training.batch(i), jnp.asarray(i))
            rows.append(values)
        history = np.concatenate([history, np.asarray(jax.device_get(rows), np.float32).reshape(-1, n)])
        t = len(history)
        log.write(t, dict(zip(training.metrics, history[t - len(rows) :].mean(0))))
        if t % every < CHUNK or t == steps:
            measured = _measure(training, state, t, folder, log)
        if on_progress:
            on_progress(Progress(t, steps, history[-1, :1], first))
        is_stopped = is_cancelled()
        if is_stopped or t == steps or checkpoint.due():
            checkpoint.save(state, history, np.zeros(n, np.int32))
    checkpoint.close()
    log.close()
    if t < steps:
        return False
    # a resumed training that was finished has no measurement yet
    _ship_result(training, state, measured or training.measure(state), folder, about or {})
    return True


def _measure(training: Training, state: Any, t: int, folder: Path, log: _Log) -> dict[str, float]:
    measured = training.measure(state)
    log.write(t, measured)
    write_image(folder / "samples" / f"{t:06}.png", image_grid(training.samples(state)))
    return measured


def _ship_result(
    training: Training, state: Any, measured: Mapping[str, float], folder: Path, about: Mapping[str, Any]
) -> None:
    figures = {name: float(f"{value:.5g}") for name, value in measured.items()}
    others = {"made_with": dict(training.made_with)} if training.made_with else {}
    content = {**about, **others, "held_out": figures}
    ship(folder / "weights", training.name, training.network(state), content)


def ship(folder: Path, name: str, variables: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write a network to a folder of weights, and its checksum and description to the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    content = weights.pack(jax.device_get(variables))
    with atomic_write(folder / f"{name}.npz") as temporary:
        temporary.write_bytes(content)
    entries = weights.manifest(folder)
    entries[f"{name}.npz"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), **about}
    with atomic_write(folder / weights.MANIFEST) as temporary:
        temporary.write_text(json.dumps(dict(sorted(entries.items())), indent=2) + "\n", encoding="utf-8")


def export(source: Path, folder: Path, name: str) -> None:
    """Add the network `name` of a folder of weights to another.

    Raises:
        ValueError: if it is missing or damaged.
    """
    about = {k: v for k, v in weights.manifest(source).get(f"{name}.npz", {}).items() if k not in ("sha256", "bytes")}
    ship(folder, name, weights.load(name, source), about)
