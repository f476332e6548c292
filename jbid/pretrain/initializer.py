"""Training of the initializer: Zhang et al. (ECCV 2024), Algorithm 1, or a corrector of edge-based kernels."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.ndimage
from numpy.typing import NDArray
from skimage.registration import phase_cross_correlation
from tqdm import tqdm

from jbid import images, motion, weights
from jbid.auto import edge_start
from jbid.blur import blur
from jbid.data.crops import crops
from jbid.encoder import estimates
from jbid.metrics import kernel_similarity
from jbid.nets.corrector import KernelCorrector
from jbid.nets.dcgan import KernelGenerator
from jbid.nets.resnet import KernelEncoder
from jbid.pretrain.degrade import Degradation, degraded
from jbid.pretrain.loop import Ahead, State, Training
from jbid.run import compiled

HELD_OUT = 50  # pairs that similarities are measured on


class Settings(NamedTuple):
    """What a training of the initializer goes by; the defaults are the authors', with 60 epochs of 100,000 pairs.

    photos: a folder or a TFDS data set, `jbid.data.crops`. size: of the kernels; crop: side of the blurred crops, which
    for other sizes in `pool` is larger or smaller by twice the difference.
    input: "picture", a ResNet-18 of `width` channels that gives z = E(y); or "edges", a `KernelCorrector` of `width`
    channels that is given the estimates of `jbid.auto.edge_start`. weights: a folder of weights with the generator
    for "picture"; empty for the shipped ones. outer: whether G(E(y)) is led to the true kernel (published code) or to
    the inner optimisation's (paper, Eq. 4). inner_steps and inner_rate: of that optimisation by Adam; code_weight: of
    the distance to its code. milestones: steps at which the rate falls to a tenth. pool: number of pairs made for
    "edges" by kernel size, whose estimates take 0.7 (31) to 4 s (75) each; a batch is of one size, in the proportion of
    these numbers. shares: as for the generator. The rest: `Degradation`.
    """

    photos: str = ""
    size: int = 31
    steps: int = 46875
    batch: int = 128
    crop: int = 256
    input: Literal["picture", "edges"] = "picture"
    width: int = 64
    weights: str = ""
    outer: Literal["truth", "inverted"] = "truth"
    inner_steps: int = 100
    inner_rate: float = 0.01
    code_weight: float = 0.1
    rate: float = 1e-4
    schedule: Literal["milestones", "cosine"] = "milestones"
    milestones: tuple[int, ...] | list[int] = (31250, 39062)
    pool: Mapping[str, int] = {"31": 1000}
    shares: Mapping[str, float] = {"camera": 1.0}
    noise: float = 0.0
    gamma: float = 0.0
    jpeg: int = 100
    rounded: bool = False
    clean: float = 0.0
    seed: int = 0


class Pair(NamedTuple):
    """Blurred pictures (n, h, w), or edge-based kernels and fits (n, m, 2, s, s), and the true kernels (n, s, s)."""

    seen: Any
    kernel: Any


def training(settings: Settings, folder: Path | None = None) -> Training:
    """The training that the settings ask for; `folder` keeps the edge-based estimates, which are costly.

    Raises ValueError for photos, weights or sizes that do not exist.
    """
    if min(settings.steps, settings.batch, settings.crop, settings.width, *settings.pool.values()) < 1:
        raise ValueError("expected steps, batch, crop, width and the numbers in pool of at least 1")
    if not settings.pool or not all(size.isdecimal() and int(size) % 2 for size in settings.pool):
        raise ValueError(f"got pool {dict(settings.pool)}, expected numbers of pairs by odd kernel size")
    if not settings.photos:
        raise ValueError("no photos to train on: add --set photos=FOLDER, or the name of a TFDS data set")
    if settings.schedule == "cosine":
        rate = optax.cosine_decay_schedule(settings.rate, settings.steps)
    else:
        rate = optax.piecewise_constant_schedule(settings.rate, {int(m): 0.1 for m in settings.milestones})
    build = _of_pictures if settings.input == "picture" else partial(_of_edges, folder=folder)
    return build(settings, optax.adam(rate))


def _blurrer(settings: Settings, held_out: bool) -> Callable[[int, int], Pair]:
    """(first, n) -> n pairs of degraded blurred crops and kernels, the same ones each time."""
    seed = settings.seed + held_out
    source = crops(settings.photos, settings.crop + settings.size - 1, seed, held_out=held_out)
    most = Degradation(settings.noise, settings.gamma, settings.jpeg, settings.rounded, settings.clean)

    @compiled
    def made(key, sharp):
        for_kernel, for_camera = jax.random.split(key)
        kernel = motion.mixture(for_kernel, settings.size, len(sharp), settings.shares)
        blurred = jax.vmap(blur)(sharp[..., None], kernel)[..., 0]
        return Pair(jax.vmap(partial(degraded, most=most))(jax.random.split(for_camera, len(sharp)), blurred), kernel)

    def pairs(first: int, n: int) -> Pair:
        sharp = np.stack([source[i] for i in range(first, first + n)])
        return made(jax.random.fold_in(jax.random.key(seed), first), sharp)

    return pairs


def _similarity(kernels: NDArray, truth: NDArray) -> float:
    return float(np.mean([kernel_similarity(k, t) for k, t in zip(np.asarray(kernels), np.asarray(truth))]))


def _of_pictures(settings: Settings, tx: optax.GradientTransformation) -> Training:
    """Algorithm 1: E's code is led to one that the inner optimisation finds from it, and its kernel to the true one.

    z0 = E(y), held; z_n by `inner_steps` steps of Adam on mean |G(z) - k|; then one step of Adam on E with mean
    |G(E(y)) - k| + code_weight mean (E(y) - z_n)^2.
    """
    size, batch = settings.size, settings.batch
    generator, encoder = KernelGenerator(size), KernelEncoder(settings.width)
    folder, name = weights.folder_of(settings.weights), f"generator_{size}"
    learnt = weights.load(name, folder)
    made_with = {f"{name}.npz": weights.checksums(folder)[f"{name}.npz"]}
    pairs = _blurrer(settings, False)
    inner = optax.adam(settings.inner_rate)

    def init(key):
        key, for_encoder = jax.random.split(key)
        variables = dict(encoder.init(for_encoder, jnp.zeros((2, settings.crop, settings.crop))))
        return State(key, variables, tx.init(variables["params"]))

    def inverted(z, kernel):
        def distance(z):
            # each picture's code has a mean of its own, so the batch's size does not matter
            return jnp.sum(jnp.mean(jnp.abs(generator.apply(learnt, z) - kernel), (1, 2)))

        def step(_, carry):
            z, state = carry
            updates, state = inner.update(jax.grad(distance)(z), state)
            return optax.apply_updates(z, updates), state

        return jax.lax.fori_loop(0, settings.inner_steps, step, (z, inner.init(z)))[0]

    def step(state, pair, t):
        v = state.variables
        z, _ = encoder.apply(v, pair.seen, True, mutable=["batch_stats"])
        found = inverted(jax.lax.stop_gradient(z), pair.kernel)
        target = pair.kernel if settings.outer == "truth" else generator.apply(learnt, found)

        def loss(params):
            z, moved = encoder.apply({**v, "params": params}, pair.seen, True, mutable=["batch_stats"])
            of_kernel = jnp.mean(jnp.abs(generator.apply(learnt, z) - target))
            of_code = jnp.mean((z - found) ** 2)
            return of_kernel + settings.code_weight * of_code, (of_kernel, of_code, moved)

        (value, (of_kernel, of_code, moved)), grad = jax.value_and_grad(loss, has_aux=True)(v["params"])
        updates, opt_state = tx.update(grad, state.opt_state)
        v = v | moved | {"params": optax.apply_updates(v["params"], updates)}
        return State(state.key, v, opt_state), jnp.stack([value, of_kernel, of_code])

    held_out = _blurrer(settings, True)
    read = compiled(lambda v, y: generator.apply(learnt, encoder.apply(v, y)))

    def measured(state):
        pair = held_out(0, HELD_OUT)
        return {"similarity": _similarity(read(state.variables, pair.seen), pair.kernel)}

    def samples(state):
        pair = held_out(0, 32)
        return np.concatenate([pair.kernel, read(state.variables, pair.seen)])

    return Training(
        name=f"initializer_{size}",
        metrics=("loss", "kernel", "code"),
        init=init,
        step=step,
        batch=Ahead(lambda t: pairs(t * batch, batch)),
        measured=measured,
        samples=samples,
        network=lambda state: state.variables,
        made_with=made_with,
    )


PART = 50  # pairs in one file of the pool
POOL = 2  # to be raised where pairs are made in another way, so that none of the old ones is used


def onto(kernel: NDArray, seen: NDArray) -> NDArray[np.float32]:
    """Estimates (m, 2, s, s) moved so that the first fits the true kernel, by fractions of a pixel: what nobody can
    know, where the kernel lies, is not to be learned. They are smooth, so interpolation does them little harm."""
    shift = phase_cross_correlation(kernel, seen[0, 0], upsample_factor=8, normalization=None)[0]
    return scipy.ndimage.shift(seen, (0, 0, *shift), order=3)


def _pool(settings: Settings, size: int, count: int, folder: Path | None, held_out: bool) -> Pair:
    """`count` pairs of estimates and true kernels of one size; made once for `folder`."""
    settings = settings._replace(size=size, crop=settings.crop + 2 * (size - settings.size))
    pairs = _blurrer(settings, held_out)
    irrelevant = ("steps", "batch", "width", "rate", "schedule", "milestones", "pool")
    said = {key: value for key, value in settings._asdict().items() if key not in irrelevant}
    mark = hashlib.sha256(json.dumps([POOL, said, held_out], sort_keys=True).encode()).hexdigest()[:12]
    parts = []
    name = "held-out pairs" if held_out else "training pairs"
    for first in tqdm(range(0, count, PART), desc=f"{name}, size {size}", unit="part", dynamic_ncols=True):
        path = folder / "pool" / f"{mark}_{first:06}.npz" if folder else None
        if path and path.exists():
            with np.load(path) as saved:
                parts.append(Pair(saved["seen"], saved["kernel"]))
            continue
        made = jax.device_get(pairs(first, PART))
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            found = threads.map(lambda picture: edge_start(picture, settings.size), made.seen)
            near = np.stack([onto(k, estimates(edges, settings.size)) for k, edges in zip(made.kernel, found)])
        parts.append(Pair(near.astype(np.float16), made.kernel.astype(np.float16)))
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            with images.replacing(path) as temporary, open(temporary, "wb") as file:
                np.savez_compressed(file, **parts[-1]._asdict())
    return Pair(*(np.concatenate(column)[:count].astype(np.float32) for column in zip(*parts)))


def _of_edges(settings: Settings, tx: optax.GradientTransformation, folder: Path | None) -> Training:
    """A `KernelCorrector` trained on -sum k log k_hat, with pairs turned and mirrored at random."""
    net, batch = KernelCorrector(settings.width), settings.batch
    pools = [_pool(settings, int(size), n, folder, held_out=False) for size, n in settings.pool.items()]
    held_out = {size: _pool(settings, int(size), HELD_OUT, folder, held_out=True) for size in settings.pool}
    largest = held_out[max(held_out, key=int)]

    def init(key):
        key, for_net = jax.random.split(key)
        variables = dict(net.init(for_net, pools[0].seen[:2]))
        return State(key, variables, tx.init(variables["params"]))

    def turned(key, pair):
        quarter, mirrored = jax.random.randint(key, (2,), 0, jnp.array([4, 2]))
        turns = [partial(jnp.rot90, k=k, axes=(-2, -1)) for k in range(4)]

        def turn(x):
            x = jax.lax.switch(quarter, turns, x)
            return jnp.where(mirrored, x[..., ::-1], x)

        return jax.tree.map(turn, pair)

    def step(state, pair, t):
        # one turn for the whole batch: a switch over a batched index would do all four
        pair = turned(jax.random.fold_in(state.key, t), pair)

        def loss(params):
            k = net.apply({"params": params}, pair.seen)
            return -jnp.mean(jnp.sum(pair.kernel * jnp.log(jnp.maximum(k, 1e-12)), (1, 2)))

        value, grad = jax.value_and_grad(loss)(state.variables["params"])
        updates, opt_state = tx.update(grad, state.opt_state)
        params = optax.apply_updates(state.variables["params"], updates)
        return State(state.key, {"params": params}, opt_state), value[None]

    numbers = np.array(list(settings.pool.values()))
    chances = numbers / numbers.sum()

    def drawn(t: int) -> Pair:
        rng = np.random.default_rng([settings.seed, t])
        # one size to a batch, each pair as likely as any other
        pool = pools[rng.choice(len(pools), p=chances)]
        at = rng.choice(len(pool.kernel), batch, len(pool.kernel) < batch)
        return Pair(pool.seen[at], pool.kernel[at])

    read = compiled(net.apply)

    def measured(state):
        told = {}
        for size, pair in held_out.items():
            told[f"similarity_{size}"] = _similarity(read(state.variables, pair.seen), pair.kernel)
            told[f"similarity_{size}_of_edges"] = _similarity(pair.seen[:, 0, 0], pair.kernel)
        return told

    def samples(state):
        n = 16
        made = read(state.variables, largest.seen[:n])
        return np.concatenate([largest.kernel[:n], largest.seen[:n, 0, 0], made])

    return Training(
        name="corrector",
        metrics=("loss",),
        init=init,
        step=step,
        batch=drawn,
        measured=measured,
        samples=samples,
        network=lambda state: state.variables,
    )
