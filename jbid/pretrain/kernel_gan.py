"""Training of the kernel generator on simulated kernels.

The GAN of GKPILE (Zhang et al., ECCV 2024, section 3.1), with steps as a variational autoencoder before it if asked.
"""

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

from jbid.nets.kernel_gan import GENERATORS, LATENT, Discriminator, KernelGenerator, KernelPosterior, layers_of
from jbid.ops import motion
from jbid.pretrain.loop import Training
from jbid.runtime.compile import jit

HELD_OUT = 1000  # kernels that the distance is taken between


class Settings(NamedTuple):
    """What a training of the generator goes by; the defaults are the authors', with 20 epochs of 100,000 kernels.

    size: of the kernels. shares: how many of them come from each of `jbid.motion.MODELS`. rate and b1: of Adam, for
    both networks; with schedule "cosine" the rate falls to zero over the steps. scaled: the discriminator sees kernels
    divided by the root mean square of the simulated ones' pixels; the authors' sees them as they are, with sum one.
    autoencoded: number of steps, at first, in which the generator is the decoder of a variational autoencoder in place
    of a GAN's, at autoencoder_rate, which falls to zero; photons: how many a kernel is taken to be drawn by there.
    """

    size: int = 31
    steps: int = 15625
    batch: int = 128
    rate: float = 2e-4
    b1: float = 0.5
    schedule: Literal["constant", "cosine"] = "constant"
    scaled: bool = False
    autoencoded: int = 0
    autoencoder_rate: float = 1e-3
    photons: float = 300.0
    shares: Mapping[str, float] = {"camera": 1.0}
    seed: int = 0


class State(NamedTuple):
    key: Array
    generator: Any
    generator_opt: Any
    discriminator: Any  # none where there are autoencoder's steps alone
    discriminator_opt: Any
    posterior: Any  # none without autoencoder's steps
    autoencoder_opt: Any


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
    """The generator's training.

    As a GAN, in each step the discriminator on simulated and generated kernels, then the generator. Losses are binary
    cross-entropies with labels 1 for simulated and 0 for generated kernels; the generator's is that of its kernels
    with label 1.

    As a variational autoencoder (Kingma and Welling 2014, Eq. 3): -E log p(k | z) + KL(q(z | k), N(0, I)), lowered
    over generator and `KernelPosterior`, where k is seen as the shares of `photons` that fell on each pixel, so that
    -log p(k | z) = -photons sum k log G(z). The loss told is divided by photons, and the last two metrics are the
    cross-entropy sum k log G(z) and the divergence in place of the discriminator's means.

    `folder` is not used. Raises ValueError for sizes, models and schedules that do not exist.
    """
    size, batch = settings.size, settings.batch
    if min(settings.steps, batch) < 1 or not 0 <= settings.autoencoded <= settings.steps:
        told = f"steps {settings.steps}, batch {batch} and autoencoded {settings.autoencoded}"
        raise ValueError(f"got {told}; expected steps and batch of at least 1, autoencoded of at most steps")
    # flax would only refuse a size at the first call
    layers_of(size, GENERATORS)
    generator, discriminator, posterior = KernelGenerator(size), Discriminator(size), KernelPosterior(size)
    adversarial = settings.steps - settings.autoencoded
    falling = settings.schedule == "cosine"
    tx = optax.adam(
        optax.cosine_decay_schedule(settings.rate, max(1, adversarial)) if falling else settings.rate,
        b1=settings.b1,
        b2=0.999,
    )
    tx_autoencoder = optax.adam(optax.cosine_decay_schedule(settings.autoencoder_rate, max(1, settings.autoencoded)))
    simulated = partial(motion.mixed_kernels, size=size, shares=settings.shares)
    # a number by which all are divided; from a key of its own, so that it does not depend on where a run resumes
    unit = jnp.ones(())
    if settings.scaled and adversarial:
        some = jit(partial(simulated, count=256))(jax.random.fold_in(jax.random.key(settings.seed), 1 << 30))
        unit = jnp.sqrt(jnp.mean(some**2))

    def init(key):
        for_generator, for_discriminator, for_posterior, key = jax.random.split(key, 4)
        g = dict(generator.init(for_generator, jnp.zeros((2, LATENT))))
        state = State(key, g, (), (), (), (), ())
        some = jnp.zeros((2, size, size))
        if adversarial:
            d = dict(discriminator.init(for_discriminator, some))
            state = state._replace(
                discriminator=d, generator_opt=tx.init(g["params"]), discriminator_opt=tx.init(d["params"])
            )
        if settings.autoencoded:
            q = dict(posterior.init(for_posterior, some))
            opt = tx_autoencoder.init((g["params"], q["params"]))
            state = state._replace(posterior=q, autoencoder_opt=opt)
        return state

    def judged(params, d, kernels):
        logit, moved = discriminator.apply(d | {"params": params}, kernels / unit, True, mutable=["batch_stats"])
        return logit, d | moved

    def cross_entropy(logit, label):
        return optax.sigmoid_binary_cross_entropy(logit, jnp.full_like(logit, label)).mean()

    def as_gan(state, real, key):
        z = jax.random.normal(key, (batch, LATENT))
        g, d = state.generator, state.discriminator

        def made(params):
            return generator.apply(g | {"params": params}, z, True, mutable=["batch_stats"])

        fake, moved = made(g["params"])

        def of_discriminator(params):
            on_real, d_ = judged(params, d, real)
            on_fake, d_ = judged(params, d_, fake)
            return cross_entropy(on_real, 1.0) + cross_entropy(on_fake, 0.0), (d_, on_real, on_fake)

        (loss_d, (d, on_real, on_fake)), grad = jax.value_and_grad(of_discriminator, has_aux=True)(d["params"])
        updates, d_opt = tx.update(grad, state.discriminator_opt)
        d = d | {"params": optax.apply_updates(d["params"], updates)}

        def of_generator(params):
            logit, d_ = judged(d["params"], d, made(params)[0])
            return cross_entropy(logit, 1.0), d_

        (loss_g, d), grad = jax.value_and_grad(of_generator, has_aux=True)(g["params"])
        updates, g_opt = tx.update(grad, state.generator_opt)
        g = g | moved | {"params": optax.apply_updates(g["params"], updates)}
        state = state._replace(generator=g, discriminator=d, generator_opt=g_opt, discriminator_opt=d_opt)
        return state, jnp.stack([loss_g, loss_d, jax.nn.sigmoid(on_real).mean(), jax.nn.sigmoid(on_fake).mean()])

    def as_autoencoder(state, real, key):
        g, q = state.generator, state.posterior

        def loss(params):
            (mean, log_deviation), q_ = posterior.apply(q | {"params": params[1]}, real, True, mutable=["batch_stats"])
            z = mean + jnp.exp(log_deviation) * jax.random.normal(key, mean.shape)
            k, g_ = generator.apply(g | {"params": params[0]}, z, True, mutable=["batch_stats"])
            entropy = -jnp.mean(jnp.sum(real * jnp.log(k + 1e-9), (1, 2)))
            divergence = jnp.mean(jnp.sum((mean**2 + jnp.exp(2 * log_deviation) - 1) / 2 - log_deviation, -1))
            return entropy + divergence / settings.photons, (g_, q_, entropy, divergence)

        params = (g["params"], q["params"])
        (value, (g_, q_, entropy, divergence)), grad = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt = tx_autoencoder.update(grad, state.autoencoder_opt)
        params = optax.apply_updates(params, updates)
        g, q = g | g_ | {"params": params[0]}, q | q_ | {"params": params[1]}
        state = state._replace(generator=g, posterior=q, autoencoder_opt=opt)
        return state, jnp.stack([value, jnp.zeros(()), entropy, divergence])

    def step(state, _, t):
        for_kernels, key = jax.random.split(jax.random.fold_in(state.key, t))
        real = simulated(for_kernels, count=batch)
        if not settings.autoencoded:
            return as_gan(state, real, key)
        if not adversarial:
            return as_autoencoder(state, real, key)
        return jax.lax.cond(t < settings.autoencoded, as_autoencoder, as_gan, state, real, key)

    sampled = jit(lambda g, z: generator.apply(g, z))
    distance = jit(energy_distance)
    held_out = jit(partial(simulated, count=HELD_OUT))
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
        metrics=("loss", "loss_discriminator", "on_simulated", "on_generated"),
        init=init,
        step=step,
        batch=lambda t: None,
        measured=measured,
        samples=lambda state: np.asarray(sampled(state.generator, jax.random.normal(for_z, (64, LATENT)))),
        network=lambda state: state.generator,
    )
