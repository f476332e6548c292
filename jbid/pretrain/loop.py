"""The loop that all trainings share: steps, metrics, samples, checkpoints, export."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jbid.engine.checkpoint import Checkpoint
from jbid.engine.driver import CHUNK, Progress
from jbid.io import weights
from jbid.io.files import atomic_write
from jbid.io.images import write_image
from jbid.runtime.compile import jit


class Training(NamedTuple):
    """A training as pure functions; all that is random in step t comes from the state's key and t.

    `init(key)` is the first state; `step(state, batch, t)` the next one and its metrics, in the order of `metrics`,
    the loss first; `batch(t)` what comes from outside for step t, a pytree of arrays, or None; `measured(state)`
    figures on data that training does not see, `samples(state)` pictures of one size, (n, h, w); `network(state)` the
    variables to ship; `made_with` the checksums of other weights that it needs.
    """

    name: str  # of the file, <kind>_<size>
    metrics: tuple[str, ...]
    init: Callable[[Any], Any]
    step: Callable[[Any, Any, Any], tuple[Any, Any]]
    batch: Callable[[int], Any]
    measured: Callable[[Any], dict[str, float]]
    samples: Callable[[Any], NDArray]
    network: Callable[[Any], Mapping[str, Any]]
    made_with: Mapping[str, str] = {}


class State(NamedTuple):
    """What a step changes where one optimizer trains one set of variables."""

    key: Any
    variables: Any
    opt_state: Any


class Ahead:
    """`make(t)` of the next step, made while this one is computed."""

    def __init__(self, make: Callable[[int], Any]):
        self._make, self._pool = make, ThreadPoolExecutor(1)
        self._next: dict[int, Any] = {}

    def __call__(self, t: int) -> Any:
        now = self._next.pop(t, None) or self._pool.submit(self._make, t)
        self._next = {t + 1: self._pool.submit(self._make, t + 1)}
        return now.result()


def grid(pictures: NDArray, columns: int = 8) -> NDArray[np.float32]:
    """Pictures (n, h, w), each scaled by its maximum, side by side in rows with a gray line between: (H, W, 1)."""
    n, h, w = pictures.shape
    rows = -(-n // columns)
    out = np.full((rows, columns, h + 1, w + 1), 0.3, np.float32)
    peak = np.maximum(pictures.max((1, 2), keepdims=True), 1e-12)
    out.reshape(-1, h + 1, w + 1)[:n, :h, :w] = pictures / peak
    return out.transpose(0, 2, 1, 3).reshape(rows * (h + 1), columns * (w + 1), 1)


class _Log:
    """Metrics as lines of JSON and, where tensorboardX is installed, as TensorBoard's events."""

    def __init__(self, folder: Path, done: int):
        self._path = folder / "metrics.jsonl"
        lines = self._path.read_text().splitlines(keepends=True) if self._path.exists() else []
        # what was written after the checkpoint that is gone on from will be written again
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= done] if done else []
        with atomic_write(self._path) as temporary:
            temporary.write_text("".join(kept))
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            self._board = None
        else:
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step} | {name: float(f"{v:.7g}") for name, v in values.items()}) + "\n")
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        if self._board:
            self._board.close()


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
    on_chunk: Callable[[Progress], bool | None] | None = None,
) -> bool:
    """`steps` steps in `folder`; True where all were done, False where `on_chunk` stopped it.

    Writes metrics.jsonl (means over ten steps; figures on held-out data each `every` steps), samples/<step>.png,
    checkpoint/ each `seconds`, and at the end weights/ with the network and a manifest that holds `about`. With
    `resume` it goes on from the checkpoint and ends with the same bits as a run that was never stopped, killed or
    not; without, what is in the folder is begun anew. Raises ValueError where the checkpoint is of another training,
    by its name, seed, `settings` and other weights.
    """
    held = folder / "checkpoint"
    said = json.dumps([training.name, seed, settings, training.made_with], sort_keys=True)
    identity = hashlib.sha256(said.encode()).hexdigest()
    mark = folder / "training.sha256"
    if not resume:
        for old in (held, folder / "weights", folder / "samples"):
            shutil.rmtree(old, ignore_errors=True)
    elif held.exists() and mark.exists() and mark.read_text() != identity:
        raise ValueError(f"{folder}: holds a training with other settings; choose another --workdir or drop --resume")
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    with atomic_write(mark) as temporary:
        temporary.write_text(identity)
    key = jax.random.key(seed)
    n = len(training.metrics)
    checkpoint = Checkpoint(held, seconds=seconds)
    saved = checkpoint.load(jax.eval_shape(training.init, key), (n,))
    state, told, _ = saved or (jit(training.init)(key), np.zeros((0, n), np.float32), None)
    step = jit(training.step, donate_argnums=0)
    log = _Log(folder, len(told))
    asked, measured = False, None
    while (t := len(told)) < steps and not asked:
        new = []
        for i in range(t, min(t + CHUNK, steps)):
            state, values = step(state, training.batch(i), jnp.asarray(i))
            new.append(values)
        told = np.concatenate([told, np.asarray(jax.device_get(new), np.float32).reshape(-1, n)])
        t = len(told)
        log.write(t, dict(zip(training.metrics, told[t - len(new) :].mean(0))))
        if t % every < CHUNK or t == steps:
            measured = training.measured(state)
            log.write(t, measured)
            write_image(folder / "samples" / f"{t:06}.png", grid(training.samples(state)))
        if on_chunk:
            asked = bool(on_chunk(Progress(t, steps, told[-1, :1])))
        if asked or t == steps or checkpoint.due():
            checkpoint.save(state, told, np.zeros(n, np.int32))
    checkpoint.close()
    log.close()
    if t < steps:
        return False
    # none yet where a finished training is resumed
    measured = measured or training.measured(state)
    figures = {name: float(f"{value:.5g}") for name, value in measured.items()}
    others = {"made_with": dict(training.made_with)} if training.made_with else {}
    content = {**(about or {}), **others, "held_out": figures}
    ship(folder / "weights", training.name, training.network(state), content)
    return True


def ship(folder: Path, name: str, variables: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write a network to a folder of weights, and into the manifest there its checksum and what it is."""
    folder.mkdir(parents=True, exist_ok=True)
    content = weights.pack(jax.device_get(variables))
    with atomic_write(folder / f"{name}.npz") as temporary:
        temporary.write_bytes(content)
    entries = weights.manifest(folder)
    entries[f"{name}.npz"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), **about}
    with atomic_write(folder / weights.MANIFEST) as temporary:
        temporary.write_text(json.dumps(dict(sorted(entries.items())), indent=2) + "\n", encoding="utf-8")


def export(source: Path, folder: Path, name: str) -> None:
    """Add the network `name` of a folder of weights to another. Raises ValueError where it is missing or damaged."""
    about = {k: v for k, v in weights.manifest(source).get(f"{name}.npz", {}).items() if k not in ("sha256", "bytes")}
    ship(folder, name, weights.load(name, source), about)
