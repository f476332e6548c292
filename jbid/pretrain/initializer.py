"""Training of the initializer: Zhang et al. (ECCV 2024), Algorithm 1, or a corrector of edge-based kernels."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jbid.io import weights
from jbid.nets.kernel_gan import KernelGenerator
from jbid.nets.resnet import KernelEncoder
from jbid.pretrain.corrector import of_edges
from jbid.pretrain.loop import Ahead, State, Training
from jbid.pretrain.pairs import HELD_OUT, Settings, mean_similarity, pair_maker
from jbid.runtime.compile import jit


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
    build = _of_pictures if settings.input == "picture" else partial(of_edges, folder=folder)
    return build(settings, optax.adam(rate))


def _of_pictures(settings: Settings, tx: optax.GradientTransformation) -> Training:
    """Algorithm 1: E's code is led to one that the inner optimization finds from it, and its kernel to the true one.

    z0 = E(y), held; z_n by `inner_steps` steps of Adam on mean |G(z) - k|; then one step of Adam on E with mean
    |G(E(y)) - k| + code_weight mean (E(y) - z_n)^2.
    """
    size, batch = settings.size, settings.batch
    generator, encoder = KernelGenerator(size), KernelEncoder(settings.width)
    folder, name = weights.weights_folder(settings.weights), f"generator_{size}"
    learnt = weights.load(name, folder)
    made_with = {f"{name}.npz": weights.checksums(folder)[f"{name}.npz"]}
    pairs = pair_maker(settings, False)
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

    held_out = pair_maker(settings, True)
    read = jit(lambda v, y: generator.apply(learnt, encoder.apply(v, y)))

    def measured(state):
        pair = held_out(0, HELD_OUT)
        return {"similarity": mean_similarity(read(state.variables, pair.seen), pair.kernel)}

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
