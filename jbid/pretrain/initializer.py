"""Training of the initializer: Zhang et al. (ECCV 2024), Algorithm 1, or a corrector of edge-based kernels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from jbid.io import weights
from jbid.nets.kernel_gan import KernelGenerator
from jbid.nets.resnet import KernelEncoder
from jbid.pretrain.corrector import corrector_training
from jbid.pretrain.loop import Ahead, State, Training
from jbid.pretrain.pairs import Config, Pair, mean_similarity, pair_maker
from jbid.runtime.compile import jit


def training(config: Config, folder: Path | None = None) -> Training:
    """Training of the initializer.

    Args:
        config: settings.
        folder: keeps the edge-based estimates, which take long.

    Raises:
        ValueError: for settings out of range, and for photos, weights or sizes that do not exist.
    """
    if min(config.steps, config.batch, config.crop, config.width, config.part, *config.pool.values()) < 1:
        raise ValueError("`steps`, `batch`, `crop`, `width`, `part` and the numbers in `pool` must be at least 1")
    if not config.pool or not all(size.isdecimal() and int(size) % 2 for size in config.pool):
        raise ValueError(f"`pool` must be numbers of pairs by odd kernel size, got {dict(config.pool)}")
    if not config.photos:
        raise ValueError("`photos` must be a folder of photos, or the name of a TFDS data set, got none")
    if config.schedule == "cosine":
        rate = optax.cosine_decay_schedule(config.rate, config.steps)
    else:
        rate = optax.piecewise_constant_schedule(config.rate, {int(m): 0.1 for m in config.milestones})
    build = _image_training if config.input == "image" else partial(corrector_training, folder=folder)
    return build(config, optax.adam(rate))


class _Initializer:
    """Networks and steps of Algorithm 1."""

    def __init__(self, config: Config, tx: optax.GradientTransformation):
        self.config, self.tx = config, tx
        self.generator, self.encoder = KernelGenerator(config.size), KernelEncoder(config.width)
        folder, name = weights.weights_folder(config.weights), f"generator_{config.size}"
        self.generator_variables = weights.load(name, folder)
        self.made_with = {f"{name}.npz": weights.checksums(folder)[f"{name}.npz"]}
        self.inner = optax.adam(config.inner_rate)
        self.held_out = pair_maker(config, True)
        self.predict = jit(lambda v, y: self.generate(self.encoder.apply(v, y)))

    def generate(self, z: Any) -> Any:
        """Kernels G(z)."""
        return self.generator.apply(self.generator_variables, z)

    def init(self, key: Array) -> State:
        key, encoder_key = jax.random.split(key)
        variables = dict(self.encoder.init(encoder_key, jnp.zeros((2, self.config.crop, self.config.crop))))
        return State(key, variables, self.tx.init(variables["params"]))

    def invert(self, z: Array, kernel: Array) -> Array:
        """Code after the inner optimization from z: mean |G(z) - k| lowered by `inner_steps` steps of Adam."""

        def distance(z):
            # each image's code has a mean of its own, so the result does not depend on the batch size
            return jnp.sum(jnp.mean(jnp.abs(self.generate(z) - kernel), (1, 2)))

        def step(_, carry):
            z, state = carry
            updates, state = self.inner.update(jax.grad(distance)(z), state)
            return optax.apply_updates(z, updates), state

        return jax.lax.fori_loop(0, self.config.inner_steps, step, (z, self.inner.init(z)))[0]

    def step(self, state: State, pair: Pair, t: Array) -> tuple[State, Array]:
        """One step of Adam on E with mean |G(E(y)) - k| + code_weight mean (E(y) - z_n)^2."""
        v = state.variables
        z, _ = self.encoder.apply(v, pair.input, True, mutable=["batch_stats"])
        code = self.invert(jax.lax.stop_gradient(z), pair.kernel)
        target = pair.kernel if self.config.outer == "truth" else self.generate(code)

        def loss(params):
            z, stats = self.encoder.apply({**v, "params": params}, pair.input, True, mutable=["batch_stats"])
            kernel_loss = jnp.mean(jnp.abs(self.generate(z) - target))
            code_loss = jnp.mean((z - code) ** 2)
            return kernel_loss + self.config.code_weight * code_loss, (kernel_loss, code_loss, stats)

        (value, (kernel_loss, code_loss, stats)), grad = jax.value_and_grad(loss, has_aux=True)(v["params"])
        updates, opt_state = self.tx.update(grad, state.opt_state)
        v = v | stats | {"params": optax.apply_updates(v["params"], updates)}
        return State(state.key, v, opt_state), jnp.stack([value, kernel_loss, code_loss])

    def measure(self, state: State) -> dict[str, float]:
        pair = self.held_out(0, self.config.held_out)
        return {"similarity": mean_similarity(self.predict(state.variables, pair.input), pair.kernel)}

    def samples(self, state: State) -> NDArray:
        pair = self.held_out(0, 32)
        return np.concatenate([pair.kernel, self.predict(state.variables, pair.input)])


def _image_training(config: Config, tx: optax.GradientTransformation) -> Training:
    """Algorithm 1: the code E(y) approaches the inner optimization's, and its kernel the true one."""
    initializer = _Initializer(config, tx)
    pairs = pair_maker(config, False)
    return Training(
        name=f"initializer_{config.size}",
        metrics=("loss", "kernel", "code"),
        init=initializer.init,
        step=initializer.step,
        batch=Ahead(lambda t: pairs(t * config.batch, config.batch)),
        measure=initializer.measure,
        samples=initializer.samples,
        network=lambda state: state.variables,
        made_with=initializer.made_with,
    )
