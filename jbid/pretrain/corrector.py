"""jbid.pretrain.corrector."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.ndimage
from numpy.typing import NDArray
from skimage.registration import phase_cross_correlation
from tqdm import tqdm

from jbid.io.files import atomic_write
from jbid.kernel_estimation.learned import corrector_input
from jbid.kernel_estimation.search import search_kernel
from jbid.nets.corrector import KernelCorrector
from jbid.pretrain.loop import State, Training
from jbid.pretrain.pairs import HELD_OUT, Pair, Settings, mean_similarity, pair_maker
from jbid.runtime.compile import jit

PART = 50  # pairs in one file of the pool
POOL = 2  # to be raised where pairs are made in another way, so that none of the old ones is used


def align_to(kernel: NDArray, seen: NDArray) -> NDArray[np.float32]:
    """Estimates (m, 2, s, s) moved so that the first fits the true kernel, by fractions of a pixel: what nobody can
    know, where the kernel lies, is not to be learned. They are smooth, so interpolation does them little harm."""
    shift = phase_cross_correlation(kernel, seen[0, 0], upsample_factor=8, normalization=None)[0]
    return scipy.ndimage.shift(seen, (0, 0, *shift), order=3)


def _pool(settings: Settings, size: int, count: int, folder: Path | None, held_out: bool) -> Pair:
    """`count` pairs of estimates and true kernels of one size; made once for `folder`."""
    settings = settings._replace(size=size, crop=settings.crop + 2 * (size - settings.size))
    pairs = pair_maker(settings, held_out)
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
            found = threads.map(lambda picture: search_kernel(picture, settings.size), made.seen)
            near = np.stack(
                [align_to(k, corrector_input(edges, settings.size)) for k, edges in zip(made.kernel, found)]
            )
        parts.append(Pair(near.astype(np.float16), made.kernel.astype(np.float16)))
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary, open(temporary, "wb") as file:
                np.savez_compressed(file, **parts[-1]._asdict())
    return Pair(*(np.concatenate(column)[:count].astype(np.float32) for column in zip(*parts)))


def of_edges(settings: Settings, tx: optax.GradientTransformation, folder: Path | None) -> Training:
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

    read = jit(net.apply)

    def measured(state):
        told = {}
        for size, pair in held_out.items():
            told[f"similarity_{size}"] = mean_similarity(read(state.variables, pair.seen), pair.kernel)
            told[f"similarity_{size}_of_edges"] = mean_similarity(pair.seen[:, 0, 0], pair.kernel)
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
