"""Training of a learned deconvolution on the errors that real kernel estimates make."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from jbid.deconvolution.learned import (
    LEVELS,
    MAPS,
    correct,
    kernel_levels,
    observe,
    periodic_shape,
    place_latent,
    predict_correction,
)
from jbid.metrics import psnr
from jbid.nets.deconvolver import FACTOR, DeconvolutionNet
from jbid.pretrain.deconvolutions import Config, Item, pool
from jbid.pretrain.loop import Ahead, State, Training, descend
from jbid.runtime.compile import jit

LEAST_ERROR = 1e-6  # added to squared errors
WORSE = 2.0  # additional weight of an image that the networks make worse
INTERMEDIATE = 0.3  # weight of the loss of each stage before the last
BORDER = 8  # pixels that do not count in the loss
SIZES = (25, 45, 71, 101)  # sides of kernels in a batch, so that few programs are compiled


class Batch(NamedTuple):
    """Deconvolutions of a step.

    Attributes:
        blurred, sharp: (n, h, w), in [0, 1].
        kernel: (n, s, s).
        latent: (n, H, W), of `place_latent`, not scaled.
        scale, noise: (n,), of `observe`.
        levels: (n, 2), of `kernel_levels`.
    """

    blurred: Any
    sharp: Any
    kernel: Any
    latent: Any
    scale: Any
    noise: Any
    levels: Any


def _inner(x: Any) -> Any:
    return x[..., BORDER:-BORDER, BORDER:-BORDER]


def _size(item: Item) -> int:
    """The least of `SIZES` that a kernel fits into; larger ones are a size of their own."""
    side = item.kernel.shape[0]
    return next((size for size in SIZES if side <= size), side)


def _stack(items: Sequence[Item]) -> Batch:
    """Batch of deconvolutions with kernels of one of `SIZES`."""
    size, window = _size(items[0]), items[0].blurred.shape
    shape = periodic_shape(window, size)
    rows = []
    for item in items:
        side = item.kernel.shape[0]
        kernel = np.pad(item.kernel, (size - side) // 2)
        latent = place_latent(item.latent, side, shape)
        numbers = item.scale, item.estimate, kernel_levels(item.kernel)
        rows.append((item.blurred / np.float32(255), item.sharp, kernel, latent, *numbers))
    return Batch(*(np.stack(column).astype(np.float32) for column in zip(*rows)))


def _turn(item: Item, rng: np.random.Generator) -> Item:
    """A deconvolution, rotated by a random multiple of 90 degrees and mirrored at random."""
    quarter, is_mirrored = int(rng.integers(4)), bool(rng.integers(2))

    def turn(x):
        x = np.rot90(x, quarter)
        return np.ascontiguousarray(x[:, ::-1] if is_mirrored else x)

    turned = {name: turn(getattr(item, name)) for name in ("blurred", "kernel", "latent", "sharp")}
    return item._replace(**turned)


class TrainingState(NamedTuple):
    """State of a training and the mean of its weights.

    Attributes:
        state: of the training.
        mean: exponential mean of its variables.
    """

    state: State
    mean: Any


class _Deconvolver:
    """Networks, data and steps of the training."""

    def __init__(self, config: Config, folder: Path):
        if config.crop % FACTOR:
            raise ValueError(f"`crop` must be a multiple of {FACTOR}, got {config.crop}")
        if config.warm_up >= config.steps:
            raise ValueError(f"`warm_up` must be less than `steps`, got {config.warm_up} of {config.steps}")
        self.config, self.net = config, DeconvolutionNet(config.width, config.deep_width)
        schedule = optax.warmup_cosine_decay_schedule(0, config.rate, config.warm_up, config.steps)
        self.tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=config.decay))
        self.held_out = pool(config, folder, held_out=True)
        self.groups: dict[int, list[Item]] = {}
        for item in pool(config, folder, held_out=False):
            self.groups.setdefault(_size(item), []).append(item)
        counts = np.array([len(items) for items in self.groups.values()])
        self.shares = counts / counts.sum()
        self.restore = jit(lambda state, batch: self._restore(state.mean["params"], batch)[-1])

    def init(self, key: Array) -> TrainingState:
        key, *keys = jax.random.split(key, 1 + self.config.stages)
        side = self.config.crop
        shapes = jnp.zeros((1, side, side, MAPS)), jnp.zeros((1, LEVELS))
        params = {f"stage_{i}": self.net.init(key, *shapes)["params"] for i, key in enumerate(keys)}
        variables = {"params": params}
        return TrainingState(State(key, variables, self.tx.init(params)), variables)

    def _restore(self, params: Any, batch: Batch) -> list[Array]:
        """Scaled images (n, h, w): the sparse deconvolution and those after each stage."""
        networks = [partial(predict_correction, self.net, params[name]) for name in sorted(params)]
        h, w = batch.blurred.shape[1:]

        def restore(row):
            observed = observe(row.blurred, row.kernel, scale=row.scale, noise=row.noise, levels=row.levels)
            latent = row.latent * row.scale
            return [latent[:h, :w], *correct(observed, latent, networks)]

        return jax.vmap(restore)(batch)

    def step(self, state: TrainingState, batch: Batch, t: Array) -> tuple[TrainingState, Array]:
        sharp = _inner(batch.sharp * batch.scale[:, None, None])

        def loss(params):
            images = self._restore(params, batch)
            before, *errors = [jnp.mean((_inner(x) - sharp) ** 2, (1, 2)) + LEAST_ERROR for x in images]
            value = 0
            for error, share in zip(errors, [INTERMEDIATE] * (len(errors) - 1) + [1]):
                decibels = 10 * jnp.log10(error / before)
                value += share * jnp.mean(decibels + WORSE * jnp.maximum(decibels, 0))
            return value

        inner, value = descend(self.tx, state.state, loss)
        # at first the mean of all, so that the random weights of the beginning do not stay in it
        share = jnp.minimum(self.config.average, t / (t + 1))
        mean = jax.tree.map(lambda m, v: share * m + (1 - share) * v, state.mean, inner.variables)
        return TrainingState(inner, mean), value

    def batch(self, t: int) -> Batch:
        """Random deconvolutions with kernels of one of `SIZES`."""
        rng = np.random.default_rng([self.config.seed, t])
        items = list(self.groups.values())[rng.choice(len(self.shares), p=self.shares)]
        return _stack([_turn(items[i], rng) for i in rng.integers(len(items), size=self.config.batch)])

    def _images(self, state: TrainingState, item: Item) -> list[NDArray[np.float32]]:
        """Sparse, learned and sharp image in [0, 1]."""
        batch = _stack([item])
        learned = np.asarray(self.restore(state, batch)[0]) / item.scale
        h, w = learned.shape
        return [np.clip(x, 0, 1) for x in (batch.latent[0, :h, :w], learned, batch.sharp[0])]

    def measure(self, state: TrainingState) -> dict[str, float]:
        """Mean PSNR of the sparse and of the learned deconvolution, by kind of the kernel."""
        metrics: dict[str, list[float]] = {}
        for item in self.held_out:
            *images, sharp = (_inner(x) for x in self._images(state, item))
            for name, x in zip(("sparse", "learned"), images):
                metrics.setdefault(f"psnr_{name}_{item.kind}", []).append(psnr(x, sharp))
        return {name: float(np.mean(values)) for name, values in sorted(metrics.items())}

    def samples(self, state: TrainingState) -> NDArray:
        """Sparse, learned and sharp images."""
        rows = [self._images(state, item) for item in self.held_out[:8]]
        return np.concatenate([np.stack(row) for row in zip(*rows)])


def training(config: Config, folder: Path) -> Training:
    """Training of a `DeconvolutionNet` by AdamW.

    The loss of an image is d + `WORSE` max(d, 0), d = 10 log10 of the squared error over the sparse deconvolution's,
    after the last stage, and `INTERMEDIATE` times that after each stage before.

    Raises:
        ValueError: for wrong settings, or a folder without photos.
    """
    deconvolver = _Deconvolver(config, folder)
    return Training(
        name="deconvolver",
        metrics=("loss",),
        init=deconvolver.init,
        step=deconvolver.step,
        batch=Ahead(deconvolver.batch),
        measure=deconvolver.measure,
        samples=deconvolver.samples,
        network=lambda state: state.mean,
    )
