"""Training of the kernel generator: the GAN of GKPILE (Zhang et al., ECCV 2024, section 3.1) on simulated kernels."""

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
from jaxtyping import Float

from jbid import motion
from jbid.nets.dcgan import LATENT, Discriminator, KernelGenerator
from jbid.pretrain.loop import Training
from jbid.run import compiled

HELD_OUT = 1000  # kernels that the distance is taken between


class Settings(NamedTuple):
    """What a training of the generator goes by; the defaults are the authors', with 20 epochs of 100,000 kernels.

    size: of the kernels. shares: how many of them come from each of `jbid.motion.MODELS`. rate and b1: of Adam, for
    both networks; with schedule "cosine" the rate falls to zero over the steps. scaled: the discriminator sees kernels
    divided by the root mean square of the simulated ones' pixels; the authors' sees them as they are, with sum one.
    """

    size: int = 31
    steps: int = 15625
    batch: int = 128
    rate: float = 2e-4
    b1: float = 0.5
    schedule: Literal["constant", "cosine"] = "constant"
    scaled: bool = False
    shares: Mapping[str, float] = {"camera": 1.0}
    seed: int = 0


class State(NamedTuple):
    key: Array
    generator: Any
    discriminator: Any
    generator_opt: Any
    discriminator_opt: Any


def energy_distance(a: Float[Array, "n h w"], b: Float[Array, "m h w"]) -> Float[Array, ""]:
    """2 E d(a, b) - E d(a, a') - E d(b, b') (Szekely and Rizzo 2013, Eq. 5) between two sets of kernels of sum one.

    d is the Hellinger distance, d^2 = 1 - sum sqrt(a b), a metric between 0 and 1. 0 for equal distributions, and
    about 1/n + 1/m for two samples of one.
    """
    a, b = (jnp.sqrt(v.reshape(len(v), -1)) for v in (a, b))

    def mean(u, v):
        return jnp.mean(jnp.sqrt(jnp.maximum(1 - u @ v.T, 0)))

    return 2 * mean(a, b) - mean(a, a) - mean(b, b)


def training(settings: Settings, folder: Path | None = None) -> Training:
    """The GAN's training: in each step the discriminator on simulated and generated kernels, then the generator.

    Losses are binary cross-entropies with labels 1 for simulated and 0 for generated kernels; the generator's is
    that of its kernels with label 1. `folder` is not used. Raises ValueError for sizes, models
    and schedules that do not exist.
    """
    size, batch = settings.size, settings.batch
    generator, discriminator = KernelGenerator(size), Discriminator(size)
    if min(settings.steps, batch) < 1:
        raise ValueError(f"got steps {settings.steps} and batch {batch}, expected at least 1")
    rate = (
        optax.cosine_decay_schedule(settings.rate, settings.steps) if settings.schedule == "cosine" else settings.rate
    )
    tx = optax.adam(rate, b1=settings.b1, b2=0.999)
    simulated = partial(motion.mixture, size=size, shares=settings.shares)
    # a number by which all are divided; from a key of its own, so that it does not depend on where a run resumes
    unit = jnp.ones(())
    if settings.scaled:
        some = compiled(partial(simulated, count=256))(jax.random.fold_in(jax.random.key(settings.seed), 1 << 30))
        unit = jnp.sqrt(jnp.mean(some**2))

    def init(key):
        for_generator, for_discriminator, key = jax.random.split(key, 3)
        g = dict(generator.init(for_generator, jnp.zeros((2, LATENT))))
        d = dict(discriminator.init(for_discriminator, jnp.zeros((2, size, size))))
        return State(key, g, d, tx.init(g["params"]), tx.init(d["params"]))

    def judged(params, d, kernels):
        logit, moved = discriminator.apply(d | {"params": params}, kernels / unit, True, mutable=["batch_stats"])
        return logit, d | moved

    def cross_entropy(logit, label):
        return optax.sigmoid_binary_cross_entropy(logit, jnp.full_like(logit, label)).mean()

    def step(state, _, t):
        for_kernels, for_z = jax.random.split(jax.random.fold_in(state.key, t))
        real = simulated(for_kernels, count=batch)
        z = jax.random.normal(for_z, (batch, LATENT))
        g, d = state.generator, state.discriminator

        def made(params):
            return generator.apply(g | {"params": params}, z, True, mutable=["batch_stats"])

        fake, moved = made(g["params"])

        def of_discriminator(params):
            on_real, d_ = judged(params, d, real)
            on_fake, d_ = judged(params, d_, fake)
            return cross_entropy(on_real, 1.0) + cross_entropy(on_fake, 0.0), (d_, on_real, on_fake)

        grad, (d, on_real, on_fake) = jax.grad(of_discriminator, has_aux=True)(d["params"])
        updates, d_opt = tx.update(grad, state.discriminator_opt)
        d = d | {"params": optax.apply_updates(d["params"], updates)}
        loss_d = cross_entropy(on_real, 1.0) + cross_entropy(on_fake, 0.0)

        def of_generator(params):
            logit, d_ = judged(d["params"], d, made(params)[0])
            return cross_entropy(logit, 1.0), d_

        (loss_g, d), grad = jax.value_and_grad(of_generator, has_aux=True)(g["params"])
        updates, g_opt = tx.update(grad, state.generator_opt)
        g = g | moved | {"params": optax.apply_updates(g["params"], updates)}
        told = jnp.stack([loss_g, loss_d, jax.nn.sigmoid(on_real).mean(), jax.nn.sigmoid(on_fake).mean()])
        return State(state.key, g, d, g_opt, d_opt), told

    sampled = compiled(lambda g, z: generator.apply(g, z))
    distance = compiled(energy_distance)
    held_out = compiled(partial(simulated, count=HELD_OUT))
    # never trained on: keys beyond every step's
    for_held_out, for_another, for_z = jax.random.split(jax.random.fold_in(jax.random.key(settings.seed), 1 << 31), 3)

    def measured(state):
        fake = sampled(state.generator, jax.random.normal(for_z, (HELD_OUT, LATENT)))
        real, another = held_out(for_held_out), held_out(for_another)
        return {
            "energy_distance": float(distance(fake, real)),
            "energy_distance_of_simulated": float(distance(another, real)),
        }

    return Training(
        name=f"generator_{size}",
        metrics=("loss_generator", "loss_discriminator", "probability_simulated", "probability_generated"),
        init=init,
        step=step,
        batch=lambda t: None,
        measured=measured,
        samples=lambda state: np.asarray(sampled(state.generator, jax.random.normal(for_z, (64, LATENT)))),
        network=lambda state: state.generator,
    )
