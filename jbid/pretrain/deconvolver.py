"""Training of a learned deconvolution on the errors that real kernel estimates make."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from jbid.deconvolution.learned import LEVELS, MAPS
from jbid.metrics import psnr
from jbid.nets.deconvolver import FACTOR, DeconvolutionNet
from jbid.pretrain.deconvolutions import Config, Item, pool
from jbid.pretrain.loop import State, Training, descend
from jbid.runtime.compile import jit

LEAST_ERROR = 1e-6  # added to squared errors
WORSE = 1.0  # additional weight of a crop that the network makes worse


class Batch(NamedTuple):
    """Crops of a step.

    Attributes:
        image, sharp: (n, h, w), scaled.
        maps, levels: (n, h, w, `MAPS`) and (n, `LEVELS`), of `correction_input`.
    """

    image: Any
    sharp: Any
    maps: Any
    levels: Any


def _turn(batch: Batch, rng: np.random.Generator) -> Batch:
    """The crops, rotated by a random multiple of 90 degrees and mirrored at random."""
    quarter, is_mirrored = int(rng.integers(4)), bool(rng.integers(2))

    def turn(x):
        x = np.rot90(x, quarter, (1, 2))
        return np.ascontiguousarray(x[:, :, ::-1] if is_mirrored else x)

    return Batch(turn(batch.image), turn(batch.sharp), turn(batch.maps), batch.levels)


class TrainingState(NamedTuple):
    """State of a training and the mean of its weights.

    Attributes:
        state: of the training.
        mean: exponential mean of its variables.
    """

    state: State
    mean: Any


class _Deconvolver:
    """Network, data and steps of the training."""

    def __init__(self, config: Config, folder: Path):
        if config.crop % FACTOR:
            raise ValueError(f"`crop` must be a multiple of {FACTOR}, got {config.crop}")
        if config.warm_up >= config.steps:
            raise ValueError(f"`warm_up` must be less than `steps`, got {config.warm_up} of {config.steps}")
        self.config, self.net = config, DeconvolutionNet(config.width, config.deep_width)
        schedule = optax.warmup_cosine_decay_schedule(0, config.rate, config.warm_up, config.steps)
        self.tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=config.decay))
        self.held_out = pool(config, folder, held_out=True)
        self.items = [x for x in pool(config, folder, held_out=False) if min(x.sharp.shape) >= config.crop]
        if not self.items:
            raise ValueError(f"no deconvolution has {config.crop}x{config.crop} pixels; choose a smaller `crop`")
        self.predict = jit(self.net.apply)

    def init(self, key: Array) -> TrainingState:
        key, net_key = jax.random.split(key)
        side = self.config.crop
        variables = dict(self.net.init(net_key, jnp.zeros((1, side, side, MAPS)), jnp.zeros((1, LEVELS))))
        return TrainingState(State(key, variables, self.tx.init(variables["params"])), variables)

    def step(self, state: TrainingState, batch: Batch, t: Array) -> tuple[TrainingState, Array]:
        def loss(params):
            found = batch.image + self.net.apply({"params": params}, batch.maps, batch.levels)
            errors = [jnp.mean((x - batch.sharp) ** 2, (1, 2)) + LEAST_ERROR for x in (found, batch.image)]
            decibels = 10 * jnp.log10(errors[0] / errors[1])
            return jnp.mean(decibels + WORSE * jnp.maximum(decibels, 0))

        inner, value = descend(self.tx, state.state, loss)
        # at first the mean of all, so that the random weights of the beginning do not stay in it
        share = jnp.minimum(self.config.average, t / (t + 1))
        mean = jax.tree.map(lambda m, v: share * m + (1 - share) * v, state.mean, inner.variables)
        return TrainingState(inner, mean), value

    def batch(self, t: int) -> Batch:
        """Random crops of random deconvolutions."""
        rng, side = np.random.default_rng([self.config.seed, t]), self.config.crop
        rows = []
        for i in rng.integers(len(self.items), size=self.config.batch):
            item = self.items[i]
            top, left = (int(rng.integers(n - side + 1)) for n in item.sharp.shape)
            window = slice(top, top + side), slice(left, left + side)
            rows.append((item.image[window], item.sharp[window], item.maps[window], item.levels))
        return _turn(Batch(*(np.stack(column).astype(np.float32) for column in zip(*rows))), rng)

    def measure(self, state: TrainingState) -> dict[str, float]:
        """Mean PSNR of the sparse and of the learned deconvolution, by kind of the kernel."""
        metrics: dict[str, list[float]] = {}
        for item in self.held_out:
            learned = self._apply(state, item)
            for name, x in (("sparse", item.image), ("learned", learned)):
                x, sharp = (np.clip(v.astype(np.float32) / item.scale, 0, 1) for v in (x, item.sharp))
                metrics.setdefault(f"psnr_{name}_{item.kind}", []).append(psnr(x, sharp))
        return {name: float(np.mean(values)) for name, values in sorted(metrics.items())}

    def _apply(self, state: TrainingState, item: Item) -> NDArray[np.float32]:
        h, w = item.sharp.shape
        # to one of few shapes, so that few programs are compiled
        padding = [(0, -n % (16 * FACTOR)) for n in (h, w)]
        maps = np.pad(item.maps.astype(np.float32), [*padding, (0, 0)])
        correction = self.predict(state.mean, maps[None], item.levels[None])[0]
        return item.image + np.asarray(correction)[:h, :w]

    def samples(self, state: TrainingState) -> NDArray:
        """Sparse, learned and sharp crops."""
        images, side = [], self.config.crop
        for item in [item for item in self.held_out if min(item.sharp.shape) >= side][:8]:
            scaled: list[NDArray] = [item.image, self._apply(state, item), item.sharp]
            images.append([np.clip(x[:side, :side].astype(np.float32) / item.scale, 0, 1) for x in scaled])
        return np.concatenate([np.stack(row) for row in zip(*images)])


def training(config: Config, folder: Path) -> Training:
    """Training of a `DeconvolutionNet` by AdamW.

    The loss of a crop is d + `WORSE` max(d, 0), d = 10 log10 of the squared error over the sparse deconvolution's.

    Raises:
        ValueError: for wrong settings, or a folder without photos.
    """
    deconvolver = _Deconvolver(config, folder)
    return Training(
        name="deconvolver",
        metrics=("loss",),
        init=deconvolver.init,
        step=deconvolver.step,
        batch=deconvolver.batch,
        measure=deconvolver.measure,
        samples=deconvolver.samples,
        network=lambda state: state.mean,
    )
