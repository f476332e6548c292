"""Training of the blur-operator family and its kernel extractor: Tran et al., CVPR 2021, section 3.1."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from jbid import losses
from jbid.data.pairs import Pair, pairs
from jbid.io import weights
from jbid.methods.explore import blur_operator
from jbid.metrics import psnr
from jbid.nets.kernel_wizard import STRIDE, KernelWizard
from jbid.nets.wizards import build_wizard
from jbid.ops.color import luma
from jbid.pretrain.loop import Ahead, State, Training
from jbid.runtime.compile import jit


class Config(NamedTuple):
    """Settings of the training; the defaults are the authors', without the VAE.

    Attributes:
        pairs, frames, photos, kernels, shares, mix: sources of the pairs, see `jbid.data.pairs.pairs`.
        size: of the simulated kernels.
        crop: side of the crops, a multiple of 128.
        margin: pixels along the sides of a crop that do not count, because they depend on pixels outside of it.
        single: one color channel of each crop, in turn, for a network that treats channels equally.
        width: "published" (49 M parameters) or "compact" (1.5 M).
        variational: the code is drawn from a normal distribution.
        kl_weight: of `divergence` from the standard normal distribution, summed over a pair.
        initial: folder of weights whose `operator` initializes the network, as far as shapes agree.
        steps, batch: of the training.
        rate, least, b2: of Adam; least: the rate at the end of each of `periods`.
        schedule: "restarts": a cosine over each of `periods`; "cosine": a linear `warm_up`, then a cosine to zero.
        seed: random seed.
        held_out: pairs that metrics are measured on.
        code_pairs: pairs that the distribution of codes is estimated from.
    """

    pairs: str = ""
    frames: str = ""
    photos: str = ""
    kernels: str = ""
    size: int = 31
    shares: Mapping[str, float] = {"camera": 1.0}
    mix: Mapping[str, float] = {}
    crop: int = 256
    margin: int = 0
    single: bool = False
    width: Literal["published", "compact"] = "published"
    variational: bool = False
    kl_weight: float = 10.0
    initial: str = ""
    steps: int = 600_000
    batch: int = 16
    rate: float = 1e-4
    least: float = 1e-8
    b2: float = 0.99
    schedule: Literal["restarts", "cosine"] = "restarts"
    warm_up: int = 0
    periods: tuple[int, ...] | list[int] = (50_000, 100_000, 150_000, 150_000, 150_000)
    seed: int = 0
    held_out: int = 32
    code_pairs: int = 512


def divergence(mean: Array, deviation: Array) -> Array:
    """Twice KL(N(mean, deviation^2) || N(0, 1)): sum mean^2 + deviation^2 - log(1e-8 + deviation^2) - 1."""
    variance = jnp.square(deviation)
    return jnp.sum(jnp.square(mean) + variance - jnp.log(1e-8 + variance) - 1)


def _schedule(config: Config) -> optax.Schedule:
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(0, config.rate, config.warm_up, config.steps)
    parts = [optax.cosine_decay_schedule(config.rate, n, config.least / config.rate) for n in config.periods]
    return optax.join_schedules(parts, np.cumsum(config.periods)[:-1].tolist())


def _merge(first: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """`first` with the arrays of `other` that have the same name and shape."""
    merged: dict[str, Any] = {}
    for name, value in first.items():
        candidate = other.get(name)
        if isinstance(value, Mapping):
            merged[name] = _merge(value, candidate if isinstance(candidate, Mapping) else {})
        else:
            is_equal = getattr(candidate, "shape", None) == value.shape
            merged[name] = jnp.asarray(candidate) if is_equal else value
    return merged


def _check(config: Config) -> None:
    c = config
    if min(c.steps, c.batch, *c.periods) < 1:
        raise ValueError("`steps`, `batch` and `periods` must be at least 1")
    if not 0 <= c.warm_up < c.steps:
        raise ValueError(f"`warm_up` must be at least 0 and below the {c.steps} steps, got {c.warm_up}")
    if c.crop < STRIDE or c.crop % STRIDE:
        raise ValueError(f"`crop` must be a multiple of {STRIDE}, got {c.crop}")
    if not 0 <= c.margin < c.crop // 2:
        raise ValueError(f"`margin` must be at least 0 and below half of crop {c.crop}, got {c.margin}")


class _Operator:
    """Network, optimizer, data and steps of the training."""

    def __init__(self, config: Config):
        self.config = config
        self.net = build_wizard(config.width, config.variational)
        if config.single and isinstance(self.net, KernelWizard):
            raise ValueError(f"`single` must be False for the width {config.width}, which needs three channels")
        self.inner = slice(config.margin, config.crop - config.margin)
        names = ("frames", "photos", "kernels", "size", "shares", "mix")
        sources = {name: getattr(config, name) for name in names}
        source = partial(pairs, config.crop, config.seed, folder=config.pairs, **sources)
        self.training_pairs, self.held_out_pairs = source(), source(held_out=True)
        self.initial, self.made_with = self._initial_weights()
        self.tx = optax.adam(_schedule(config), b2=config.b2)
        self.apply = jit(lambda variables, x, y: self.net.apply(variables, x, y)[0])
        self.extract = jit(lambda variables, x, y: self.net.apply(variables, x, y, method="extract")[0])

    def _initial_weights(self) -> tuple[dict[str, Any], dict[str, str]]:
        folder = self.config.initial
        if not folder:
            return {}, {}
        variables = weights.load("operator", folder)
        width = weights.manifest(folder)["operator.npz"]["settings"]["width"]
        if width != self.config.width:
            raise ValueError(f"{folder}: the operator has the width {width}, expected {self.config.width}")
        return variables, {"operator.npz": weights.checksums(folder)["operator.npz"]}

    def draw(self, data: Any, first: int, n: int) -> Pair:
        """`n` consecutive pairs, stacked."""
        items = ((i, data[i]) for i in range(first, first + n))
        chosen = ([x[..., i % 3, None] for x in pair] if self.config.single else pair for i, pair in items)
        return Pair(*(np.stack(column) for column in zip(*chosen)))

    def init(self, key: Array) -> State:
        key, net_key = jax.random.split(key)
        x = jnp.zeros((1, STRIDE, STRIDE, 3))
        variables = _merge(self.net.init(net_key, x, x), self.initial)
        return State(key, variables, self.tx.init(variables["params"]))

    def step(self, state: State, pair: Pair, t: Array) -> tuple[State, Array]:
        config, inner, n = self.config, self.inner, len(pair.sharp)
        key = jax.random.fold_in(state.key, t) if config.variational else None

        def loss(params):
            reblurred, mean, deviation = self.net.apply({"params": params}, pair.sharp, pair.blurred, key)
            distance = losses.charbonnier_distance(reblurred[:, inner, inner], pair.blurred[:, inner, inner]) / n
            kl = divergence(mean, deviation) / n if config.variational else jnp.zeros(())
            return distance + config.kl_weight * kl, (distance / reblurred[0, inner, inner].size, kl)

        (value, terms), grad = jax.value_and_grad(loss, has_aux=True)(state.variables["params"])
        updates, opt_state = self.tx.update(grad, state.opt_state)
        params = optax.apply_updates(state.variables["params"], updates)
        return State(state.key, {"params": params}, opt_state), jnp.stack([value, *terms])

    def reblur(self, state: State, pair: Pair) -> NDArray:
        """F(x, G(x, y)) of each pair."""
        parts = range(0, len(pair.sharp), 8)
        return np.concatenate(
            [self.apply(state.variables, pair.sharp[i : i + 8], pair.blurred[i : i + 8]) for i in parts]
        )

    def _psnr(self, images: NDArray, references: NDArray) -> float:
        inner = self.inner
        return float(np.mean([psnr(x[inner, inner], y[inner, inner]) for x, y in zip(images, references)]))

    def measure(self, state: State) -> dict[str, float]:
        pair = self.draw(self.held_out_pairs, 0, self.config.held_out)
        return {
            "psnr": self._psnr(self.reblur(state, pair), pair.blurred),
            "psnr_of_sharp": self._psnr(pair.sharp, pair.blurred),
        }

    def samples(self, state: State) -> NDArray:
        pair = self.draw(self.held_out_pairs, 0, 8)
        return np.concatenate([luma(x)[..., 0] for x in (*pair, self.reblur(state, pair))])

    def network(self, state: State) -> dict[str, Any]:
        """Variables to ship; with the VAE, also the distribution of the codes of the training's blurs."""
        if not self.config.variational:
            return state.variables
        batches = (self.draw(self.training_pairs, i, 8) for i in range(0, self.config.code_pairs, 8))
        means = np.concatenate([np.asarray(self.extract(state.variables, *pair)) for pair in batches])
        codes = blur_operator.fit_codes(jnp.asarray(means.reshape(-1, means.shape[-1])))
        return {**state.variables, "codes": codes._asdict()}


def training(config: Config, folder: Path | None = None) -> Training:
    """Training of the blur operator.

    Args:
        config: settings.
        folder: not needed, because crops are drawn anew in each step.

    Raises:
        ValueError: for settings out of range, and for images or weights that do not exist.
    """
    _check(config)
    operator = _Operator(config)
    return Training(
        name="operator_vae" if config.variational else "operator",
        metrics=("loss", "charbonnier", "divergence"),
        init=operator.init,
        step=operator.step,
        batch=Ahead(lambda t: operator.draw(operator.training_pairs, t * config.batch, config.batch)),
        measure=operator.measure,
        samples=operator.samples,
        network=operator.network,
        made_with=operator.made_with,
    )
