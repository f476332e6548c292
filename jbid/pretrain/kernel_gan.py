"""Training of the kernel generator on simulated kernels.

The GAN of GKPILE (Zhang et al., ECCV 2024, section 3.1), optionally after steps as a variational autoencoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
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


class Config(NamedTuple):
    """Settings of the training; the defaults are the authors', with 20 epochs of 100,000 kernels.

    Attributes:
        size: of the kernels.
        steps: of the training.
        batch: kernels per step.
        rate, b1: of Adam, for both networks.
        schedule: "cosine" decays the rate to zero.
        scaled: the discriminator sees kernels divided by the root mean square of the simulated ones' pixels; the
            authors' sees them as they are, with sum one.
        autoencoded: first steps, in which the generator is the decoder of a variational autoencoder.
        autoencoder_rate: learning rate of these steps, decaying to zero.
        photons: number of photons of a kernel in the autoencoder's likelihood.
        shares: of each of `jbid.ops.motion.KERNEL_MODELS` in the kernels.
        seed: random seed.
        held_out: kernels that the energy distance is computed between.
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
    held_out: int = 1000


class State(NamedTuple):
    """State of the training; parts that no step needs are empty."""

    key: Array
    generator: Any
    generator_opt: Any
    discriminator: Any
    discriminator_opt: Any
    posterior: Any
    autoencoder_opt: Any


def energy_distance(a: Float[Array, "n h w"], b: Float[Array, "m h w"]) -> Float[Array, ""]:
    """Energy distance of two sets of kernels: 2 E d(a, b) - E d(a, a') - E d(b, b') (Szekely and Rizzo 2013, Eq. 5).

    d is the Hellinger distance of kernels with sum one, d^2 = 1 - sum sqrt(a b), a metric between 0 and 1. The result
    is 0 for equal distributions, and about 1/n + 1/m for two samples of one distribution.
    """
    a, b = (jnp.sqrt(v.reshape(len(v), -1)) for v in (a, b))

    def mean(u, v):
        return jnp.mean(jnp.sqrt(jnp.maximum(1 - u @ v.T, 0)))

    return 2 * mean(a, b) - mean(a, a) - mean(b, b)


def _cross_entropy(logit: Array, label: float) -> Array:
    return optax.sigmoid_binary_cross_entropy(logit, jnp.full_like(logit, label)).mean()


class _Generator:
    """Networks, optimizers and steps of the training."""

    def __init__(self, config: Config):
        self.config = config
        self.generator, self.posterior = KernelGenerator(config.size), KernelPosterior(config.size)
        self.discriminator = Discriminator(config.size)
        self.gan_steps = config.steps - config.autoencoded
        rate: Any = config.rate
        if config.schedule == "cosine":
            rate = optax.cosine_decay_schedule(config.rate, max(1, self.gan_steps))
        self.tx = optax.adam(rate, b1=config.b1, b2=0.999)
        decay = optax.cosine_decay_schedule(config.autoencoder_rate, max(1, config.autoencoded))
        self.autoencoder_tx = optax.adam(decay)
        self.simulate = partial(motion.mixed_kernels, size=config.size, shares=config.shares)

    @cached_property
    def unit(self) -> Array:
        """Number that the discriminator's input is divided by; its own key makes it independent of a resumed step."""
        if not (self.config.scaled and self.gan_steps):
            return jnp.ones(())
        key = jax.random.fold_in(jax.random.key(self.config.seed), 1 << 30)
        return jnp.sqrt(jnp.mean(jit(partial(self.simulate, count=256))(key) ** 2))

    def init(self, key: Array) -> State:
        generator_key, discriminator_key, posterior_key, key = jax.random.split(key, 4)
        g = dict(self.generator.init(generator_key, jnp.zeros((2, LATENT))))
        state = State(key, g, (), (), (), (), ())
        kernels = jnp.zeros((2, self.config.size, self.config.size))
        if self.gan_steps:
            d = dict(self.discriminator.init(discriminator_key, kernels))
            state = state._replace(
                discriminator=d, generator_opt=self.tx.init(g["params"]), discriminator_opt=self.tx.init(d["params"])
            )
        if self.config.autoencoded:
            q = dict(self.posterior.init(posterior_key, kernels))
            opt = self.autoencoder_tx.init((g["params"], q["params"]))
            state = state._replace(posterior=q, autoencoder_opt=opt)
        return state

    def _discriminate(self, params: Any, d: Any, kernels: Array) -> tuple[Array, Any]:
        logit, stats = self.discriminator.apply(
            d | {"params": params}, kernels / self.unit, True, mutable=["batch_stats"]
        )
        return logit, d | stats

    def gan_step(self, state: State, real: Array, key: Array) -> tuple[State, Array]:
        """Update the discriminator on simulated and generated kernels, then the generator."""
        z = jax.random.normal(key, (self.config.batch, LATENT))
        g, d = state.generator, state.discriminator

        def generate(params):
            return self.generator.apply(g | {"params": params}, z, True, mutable=["batch_stats"])

        fake, stats = generate(g["params"])

        def discriminator_loss(params):
            on_real, d_ = self._discriminate(params, d, real)
            on_fake, d_ = self._discriminate(params, d_, fake)
            return _cross_entropy(on_real, 1.0) + _cross_entropy(on_fake, 0.0), (d_, on_real, on_fake)

        (loss_d, (d, on_real, on_fake)), grad = jax.value_and_grad(discriminator_loss, has_aux=True)(d["params"])
        updates, d_opt = self.tx.update(grad, state.discriminator_opt)
        d = d | {"params": optax.apply_updates(d["params"], updates)}

        def generator_loss(params):
            logit, d_ = self._discriminate(d["params"], d, generate(params)[0])
            return _cross_entropy(logit, 1.0), d_

        (loss_g, d), grad = jax.value_and_grad(generator_loss, has_aux=True)(g["params"])
        updates, g_opt = self.tx.update(grad, state.generator_opt)
        g = g | stats | {"params": optax.apply_updates(g["params"], updates)}
        state = state._replace(generator=g, discriminator=d, generator_opt=g_opt, discriminator_opt=d_opt)
        return state, jnp.stack([loss_g, loss_d, jax.nn.sigmoid(on_real).mean(), jax.nn.sigmoid(on_fake).mean()])

    def autoencoder_step(self, state: State, real: Array, key: Array) -> tuple[State, Array]:
        """Update generator and posterior as a variational autoencoder."""
        g, q = state.generator, state.posterior

        def loss(params):
            (mean, log_deviation), q_ = self.posterior.apply(
                q | {"params": params[1]}, real, True, mutable=["batch_stats"]
            )
            z = mean + jnp.exp(log_deviation) * jax.random.normal(key, mean.shape)
            k, g_ = self.generator.apply(g | {"params": params[0]}, z, True, mutable=["batch_stats"])
            entropy = -jnp.mean(jnp.sum(real * jnp.log(k + 1e-9), (1, 2)))
            divergence = jnp.mean(jnp.sum((mean**2 + jnp.exp(2 * log_deviation) - 1) / 2 - log_deviation, -1))
            return entropy + divergence / self.config.photons, (g_, q_, entropy, divergence)

        params = (g["params"], q["params"])
        (value, (g_, q_, entropy, divergence)), grad = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt = self.autoencoder_tx.update(grad, state.autoencoder_opt)
        params = optax.apply_updates(params, updates)
        g, q = g | g_ | {"params": params[0]}, q | q_ | {"params": params[1]}
        state = state._replace(generator=g, posterior=q, autoencoder_opt=opt)
        return state, jnp.stack([value, jnp.zeros(()), entropy, divergence])

    def step(self, state: State, _: None, t: Array) -> tuple[State, Array]:
        kernels_key, key = jax.random.split(jax.random.fold_in(state.key, t))
        real = self.simulate(kernels_key, count=self.config.batch)
        if not self.config.autoencoded:
            return self.gan_step(state, real, key)
        if not self.gan_steps:
            return self.autoencoder_step(state, real, key)
        is_autoencoder = t < self.config.autoencoded
        return jax.lax.cond(is_autoencoder, self.autoencoder_step, self.gan_step, state, real, key)


def training(config: Config, folder: Path | None = None) -> Training:
    """Training of the kernel generator.

    As a GAN, each step updates the discriminator, then the generator. The losses are binary cross-entropies with label
    1 for simulated and 0 for generated kernels; the generator's is that of its kernels with label 1.

    As a variational autoencoder (Kingma and Welling 2014, Eq. 3): -E log p(k | z) + KL(q(z | k), N(0, I)), over
    generator and `KernelPosterior`. k holds the shares of `photons` at each pixel, so that -log p(k | z) = -photons
    sum k log G(z). The reported loss is divided by photons, and the last two metrics are the cross-entropy
    sum k log G(z) and the divergence.

    Args:
        config: settings.
        folder: not needed, because kernels are simulated anew in each step.

    Raises:
        ValueError: for sizes, models and schedules that do not exist.
    """
    steps, batch = config.steps, config.batch
    if min(steps, batch) < 1 or not 0 <= config.autoencoded <= steps:
        raise ValueError(
            "`steps` and `batch` must be at least 1, and `autoencoded` at most `steps`, "
            f"got {steps}, {batch} and {config.autoencoded}"
        )
    # flax would only refuse a size at the first call
    layers_of(config.size, GENERATORS)
    networks, n = _Generator(config), config.held_out
    networks.unit  # noqa: B018 - computed outside of the compiled step
    generate = jit(lambda g, z: networks.generator.apply(g, z))
    distance = jit(energy_distance)
    simulate = jit(partial(networks.simulate, count=n))
    # held out: no step has one of these keys
    real_key, other_key, z_key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 1 << 31), 3)

    def measure(state):
        fake = generate(state.generator, jax.random.normal(z_key, (n, LATENT)))
        real, other = simulate(real_key), simulate(other_key)
        return {
            "energy_distance": float(distance(fake, real)),
            "energy_distance_of_simulated": float(distance(other, real)),
        }

    return Training(
        name=f"generator_{config.size}",
        metrics=("loss", "loss_discriminator", "on_simulated", "on_generated"),
        init=networks.init,
        step=networks.step,
        batch=lambda t: None,
        measure=measure,
        samples=lambda state: np.asarray(generate(state.generator, jax.random.normal(z_key, (64, LATENT)))),
        network=lambda state: state.generator,
    )
