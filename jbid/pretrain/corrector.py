"""Training of a corrector of edge-based kernels."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.ndimage
from jax import Array
from numpy.typing import NDArray
from skimage.registration import phase_cross_correlation
from tqdm import tqdm

from jbid.io.files import atomic_write
from jbid.kernel_estimation.learned import corrector_input
from jbid.kernel_estimation.search import search_kernel
from jbid.nets.corrector import KernelCorrector
from jbid.pretrain.loop import State, Training, descend
from jbid.pretrain.pairs import Config, Pair, mean_similarity, pair_maker
from jbid.runtime.compile import jit

POOL_VERSION = 2  # to be raised when pairs change, so that no earlier file is used


def align_to(kernel: NDArray, estimates: NDArray) -> NDArray[np.float32]:
    """Estimates (m, 2, s, s) shifted so that the first fits the true kernel, by fractions of a pixel.

    The position of a kernel is unobservable, so the corrector must not learn it. The estimates are smooth, so
    interpolation does little harm.
    """
    shift = phase_cross_correlation(kernel, estimates[0, 0], upsample_factor=8, normalization=None)[0]
    return scipy.ndimage.shift(estimates, (0, 0, *shift), order=3)


def _make_part(config: Config, pair: Pair) -> Pair:
    estimates = [search_kernel(image, config.size) for image in pair.input]
    inputs = [align_to(k, corrector_input(e, config.size)) for k, e in zip(pair.kernel, estimates)]
    return Pair(np.stack(inputs).astype(np.float16), pair.kernel.astype(np.float16))


def _pool(config: Config, size: int, count: int, folder: Path | None, held_out: bool) -> Pair:
    """`count` pairs of estimates and true kernels of one size; `folder` keeps them."""
    config = config._replace(size=size, crop=config.crop + 2 * (size - config.size))
    pairs = pair_maker(config, held_out)
    irrelevant = ("steps", "batch", "width", "rate", "schedule", "milestones", "pool", "held_out")
    relevant = {key: value for key, value in config._asdict().items() if key not in irrelevant}
    if config.part == Config().part:
        del relevant["part"]  # keeps the files of earlier versions, whose parts had this size
    mark = hashlib.sha256(json.dumps([POOL_VERSION, relevant, held_out], sort_keys=True).encode()).hexdigest()[:12]
    parts = []
    name = "held-out pairs" if held_out else "training pairs"
    for first in tqdm(range(0, count, config.part), f"{name}, size {size}", unit="part", dynamic_ncols=True):
        path = folder / "pool" / f"{mark}_{first:06}.npz" if folder else None
        if path and path.exists():
            with np.load(path) as saved:
                parts.append(Pair(saved["input"], saved["kernel"]))
            continue
        parts.append(_make_part(config, jax.device_get(pairs(first, config.part))))
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary, open(temporary, "wb") as file:
                np.savez_compressed(file, **parts[-1]._asdict())
    return Pair(*(np.concatenate(column)[:count].astype(np.float32) for column in zip(*parts)))


def _turn(key: Array, pair: Pair) -> Pair:
    """The pair, rotated by a random multiple of 90 degrees and mirrored at random."""
    quarter, is_mirrored = jax.random.randint(key, (2,), 0, jnp.array([4, 2]))
    turns = [partial(jnp.rot90, k=k, axes=(-2, -1)) for k in range(4)]

    def turn(x):
        x = jax.lax.switch(quarter, turns, x)
        return jnp.where(is_mirrored, x[..., ::-1], x)

    return jax.tree.map(turn, pair)


class _Corrector:
    """Network, data and steps of the training."""

    def __init__(self, config: Config, tx: optax.GradientTransformation, folder: Path | None):
        self.config, self.tx, self.net = config, tx, KernelCorrector(config.width)
        self.pools = [_pool(config, int(size), n, folder, held_out=False) for size, n in config.pool.items()]
        self.held_out = {size: _pool(config, int(size), config.held_out, folder, held_out=True) for size in config.pool}
        numbers = np.array(list(config.pool.values()))
        self.probabilities = numbers / numbers.sum()
        self.predict = jit(self.net.apply)

    def init(self, key: Array) -> State:
        key, net_key = jax.random.split(key)
        variables = dict(self.net.init(net_key, self.pools[0].input[:2]))
        return State(key, variables, self.tx.init(variables["params"]))

    def step(self, state: State, pair: Pair, t: Array) -> tuple[State, Array]:
        # one turn for the whole batch: a switch over a batched index would compute all four
        pair = _turn(jax.random.fold_in(state.key, t), pair)

        def loss(params):
            k = self.net.apply({"params": params}, pair.input)
            return -jnp.mean(jnp.sum(pair.kernel * jnp.log(jnp.maximum(k, 1e-12)), (1, 2)))

        return descend(self.tx, state, loss)

    def batch(self, t: int) -> Pair:
        """Random pairs of one size; each pair is equally likely."""
        rng = np.random.default_rng([self.config.seed, t])
        pool = self.pools[rng.choice(len(self.pools), p=self.probabilities)]
        indices = rng.choice(len(pool.kernel), self.config.batch, len(pool.kernel) < self.config.batch)
        return Pair(pool.input[indices], pool.kernel[indices])

    def measure(self, state: State) -> dict[str, float]:
        metrics = {}
        for size, pair in self.held_out.items():
            metrics[f"similarity_{size}"] = mean_similarity(self.predict(state.variables, pair.input), pair.kernel)
            metrics[f"similarity_{size}_of_edges"] = mean_similarity(pair.input[:, 0, 0], pair.kernel)
        return metrics

    def samples(self, state: State) -> NDArray:
        pair, n = self.held_out[max(self.held_out, key=int)], 16
        predicted = self.predict(state.variables, pair.input[:n])
        return np.concatenate([pair.kernel[:n], pair.input[:n, 0, 0], predicted])


def corrector_training(config: Config, tx: optax.GradientTransformation, folder: Path | None) -> Training:
    """Training of a `KernelCorrector` on -sum k log k_hat, with pairs rotated and mirrored at random."""
    corrector = _Corrector(config, tx, folder)
    return Training(
        name="corrector",
        metrics=("loss",),
        init=corrector.init,
        step=corrector.step,
        batch=corrector.batch,
        measure=corrector.measure,
        samples=corrector.samples,
        network=lambda state: state.variables,
    )
