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

HELD_OUT = 32  # pairs that figures are measured on
FOR_CODES = 512  # pairs whose codes tell how codes are distributed


class Settings(NamedTuple):
    """What a training of the operator goes by; the defaults are the authors', without the VAE.

    pairs, frames, photos, kernels, size, shares, mix: where pairs come from, `jbid.data.pairs.pairs`; size is that of
    the simulated kernels. crop: side of the crops, a multiple of 128. margin: pixels along their sides that do not
    count, as they depend on what lies outside. single: one color of each crop, in turn, for a network that treats
    colors alike: more blurs for the same work. width: "published" (49 M parameters) or "compact" (1.5 M). variational:
    the code is drawn from a normal distribution; kl_weight: of `divergence` from the standard one, summed over a pair.
    initial: a folder of weights whose `operator` the training sets out from, as far as shapes agree. schedule:
    "restarts", cosine from `rate` to `least` over each of `periods`; or "cosine", rising over the first `warm_up` steps
    and falling to zero over the others.
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


def divergence(mean: Array, deviation: Array) -> Array:
    """sum mean^2 + deviation^2 - log(1e-8 + deviation^2) - 1: twice KL(N(mean, deviation^2) || N(0, 1))."""
    variance = jnp.square(deviation)
    return jnp.sum(jnp.square(mean) + variance - jnp.log(1e-8 + variance) - 1)


def _schedule(settings: Settings) -> optax.Schedule:
    if settings.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(0, settings.rate, settings.warm_up, settings.steps)
    each = [optax.cosine_decay_schedule(settings.rate, n, settings.least / settings.rate) for n in settings.periods]
    return optax.join_schedules(each, np.cumsum(settings.periods)[:-1].tolist())


def _over(first: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """`first` with those arrays of `other` that are of the same name and shape."""
    made: dict[str, Any] = {}
    for name, value in first.items():
        there = other.get(name)
        if isinstance(value, Mapping):
            made[name] = _over(value, there if isinstance(there, Mapping) else {})
        else:
            made[name] = jnp.asarray(there) if getattr(there, "shape", None) == value.shape else value
    return made


def training(settings: Settings, folder: Path | None = None) -> Training:
    """The training that the settings ask for. Raises ValueError for pictures or weights that do not exist."""
    s = settings
    if min(s.steps, s.batch, *s.periods) < 1:
        raise ValueError("expected steps, batch and periods of at least 1")
    if not 0 <= s.warm_up < s.steps:
        raise ValueError(f"got warm_up {s.warm_up}, expected at least 0 and fewer than the steps, {s.steps}")
    if s.crop < STRIDE or s.crop % STRIDE:
        raise ValueError(f"got crop {s.crop}, expected a multiple of {STRIDE}")
    if not 0 <= s.margin < s.crop // 2:
        raise ValueError(f"got margin {s.margin}, expected at least 0 and less than half of crop {s.crop}")
    net = build_wizard(s.width, s.variational)
    if s.single and isinstance(net, KernelWizard):
        raise ValueError(f"the width {s.width} needs three colors: give single = false, or another width")
    inner = slice(s.margin, s.crop - s.margin)
    name = "operator_vae" if s.variational else "operator"
    source = partial(
        pairs,
        s.crop,
        s.seed,
        folder=s.pairs,
        frames=s.frames,
        photos=s.photos,
        kernels=s.kernels,
        size=s.size,
        shares=s.shares,
        mix=s.mix,
    )
    shown, apart = source(), source(held_out=True)
    initial = weights.load("operator", s.initial) if s.initial else {}
    if s.initial and (width := weights.manifest(s.initial)["operator.npz"]["settings"]["width"]) != s.width:
        raise ValueError(f"{s.initial}: its operator has the width {width}, expected {s.width}")
    made_with = {"operator.npz": weights.checksums(s.initial)["operator.npz"]} if s.initial else {}
    tx = optax.adam(_schedule(s), b2=s.b2)

    def drawn(data, first: int, n: int) -> Pair:
        found = ((i, data[i]) for i in range(first, first + n))
        chosen = ([x[..., i % 3, None] for x in pair] if s.single else pair for i, pair in found)
        return Pair(*(np.stack(column) for column in zip(*chosen)))

    def init(key):
        key, for_net = jax.random.split(key)
        x = jnp.zeros((1, STRIDE, STRIDE, 3))
        variables = _over(net.init(for_net, x, x), initial)
        return State(key, variables, tx.init(variables["params"]))

    def step(state, pair, t):
        n = len(pair.sharp)
        key = jax.random.fold_in(state.key, t) if s.variational else None

        def loss(params):
            made, mean, deviation = net.apply({"params": params}, pair.sharp, pair.blurred, key)
            distance = losses.charbonnier_distance(made[:, inner, inner], pair.blurred[:, inner, inner]) / n
            told = divergence(mean, deviation) / n if s.variational else jnp.zeros(())
            return distance + s.kl_weight * told, (distance / made[0, inner, inner].size, told)

        (value, told), grad = jax.value_and_grad(loss, has_aux=True)(state.variables["params"])
        updates, opt_state = tx.update(grad, state.opt_state)
        params = optax.apply_updates(state.variables["params"], updates)
        return State(state.key, {"params": params}, opt_state), jnp.stack([value, *told])

    reblur = jit(lambda variables, x, y: net.apply(variables, x, y)[0])

    def reblurred(state, pair):
        parts = range(0, len(pair.sharp), 8)
        made = [reblur(state.variables, pair.sharp[i : i + 8], pair.blurred[i : i + 8]) for i in parts]
        return np.concatenate(made)

    def inside(of, truth):
        return float(np.mean([psnr(x[inner, inner], y[inner, inner]) for x, y in zip(of, truth)]))

    def measured(state):
        pair = drawn(apart, 0, HELD_OUT)
        return {
            "psnr": inside(reblurred(state, pair), pair.blurred),
            "psnr_of_sharp": inside(pair.sharp, pair.blurred),
        }

    def samples(state):
        pair = drawn(apart, 0, 8)
        return np.concatenate([luma(x)[..., 0] for x in (*pair, reblurred(state, pair))])

    coded = jit(lambda variables, x, y: net.apply(variables, x, y, method="extract")[0])

    def network_with_codes(state):
        if not s.variational:
            return state.variables
        pairs = (drawn(shown, i, 8) for i in range(0, FOR_CODES, 8))
        means = np.concatenate([np.asarray(coded(state.variables, *pair)) for pair in pairs])
        codes = blur_operator.fit_codes(jnp.asarray(means.reshape(-1, means.shape[-1])))
        return {**state.variables, "codes": codes._asdict()}

    return Training(
        name=name,
        metrics=("loss", "charbonnier", "divergence"),
        init=init,
        step=step,
        batch=Ahead(lambda t: drawn(shown, t * s.batch, s.batch)),
        measured=measured,
        samples=samples,
        network=network_with_codes,
        made_with=made_with,
    )
