"""Training of the generator of text lines, an image manifold that needs no other weights (Tran et al. 2021, 3.3)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from jbid.data import text_lines
from jbid.metrics import psnr
from jbid.nets.text_lines import HEIGHT, LATENT, PLACE, Latents, LineDecoder, LineEncoder
from jbid.pretrain.loop import Ahead, State, Training
from jbid.runtime.compile import jit


class Config(NamedTuple):
    """Settings of the training.

    Attributes:
        width: of the lines in pixels, a multiple of 12.
        steps, batch: of the training.
        rate: of Adam, decaying to zero by a cosine.
        deviation: standard deviation of a rendered line's gray levels, in [0, 1], from the generated one's.
        divergence: weight of the latents' divergence from N(0, I) beside the squared differences divided by twice
            `deviation`^2, both sums over a line. It grows over the first third of the steps, because letters are only
            learned while it is small.
        seed: random seed.
        held_out: lines that metrics are measured on.
    """

    width: int = 144
    steps: int = 3000
    batch: int = 64
    rate: float = 1e-3
    deviation: float = 0.1
    divergence: float = 1.0
    seed: int = 0
    held_out: int = 64


class _Lines:
    """Networks, optimizer and steps of the training."""

    def __init__(self, config: Config):
        self.config, self.places = config, config.width // PLACE
        self.encoder, self.decoder = LineEncoder(), LineDecoder()
        self.tx = optax.adam(optax.cosine_decay_schedule(config.rate, config.steps), b2=0.99)
        self.reconstruct = jit(lambda v, x: self.decoder.apply(v["decoder"], self.encoder.apply(v["encoder"], x)[0]))
        self.generate = jit(lambda v, z: self.decoder.apply(v["decoder"], z))

    def draw(self, first: int, n: int, held_out: bool) -> NDArray:
        """`n` rendered lines."""
        rngs = (np.random.default_rng([self.config.seed, held_out, i]) for i in range(first, first + n))
        return np.stack([text_lines.line(rng, self.config.width, held_out=held_out)[..., 0] for rng in rngs])

    def normal(self, key: Array, n: int) -> Latents:
        """Latents of `n` lines, N(0, I)."""
        letters_key, levels_key = jax.random.split(key)
        letters = jax.random.normal(letters_key, (n, self.places, LATENT))
        return Latents(letters, jax.random.normal(levels_key, (n, 2)))

    def init(self, key: Array) -> State:
        key, encoder_key, decoder_key = jax.random.split(key, 3)
        variables = {
            "encoder": self.encoder.init(encoder_key, jnp.zeros((1, HEIGHT, self.config.width))),
            "decoder": self.decoder.init(decoder_key, self.normal(key, 1)),
        }
        return State(key, variables, self.tx.init(variables))

    def step(self, state: State, x: Array, t: Array) -> tuple[State, Array]:
        noise = self.normal(jax.random.fold_in(state.key, t), len(x))
        share = self.config.divergence * jnp.minimum(1, t / max(1, self.config.steps // 3))

        def loss(variables):
            mean, log = self.encoder.apply(variables["encoder"], x)
            latents = jax.tree.map(lambda m, s, n: m + jnp.exp(s) * n, mean, log, noise)
            lines = self.decoder.apply(variables["decoder"], latents)
            reconstruction = jnp.sum(jnp.square(lines - x)) / (2 * self.config.deviation**2 * len(x))
            terms = jax.tree.map(lambda m, s: jnp.sum(jnp.square(m) + jnp.exp(2 * s) - 2 * s - 1), mean, log)
            divergence = sum(terms) / (2 * len(x))
            return reconstruction + share * divergence, (reconstruction, divergence)

        (value, terms), grad = jax.value_and_grad(loss, has_aux=True)(state.variables)
        updates, opt_state = self.tx.update(grad, state.opt_state)
        variables = optax.apply_updates(state.variables, updates)
        return State(state.key, variables, opt_state), jnp.stack([value, *terms])

    def measure(self, state: State) -> dict[str, float]:
        x = self.draw(0, self.config.held_out, True)
        return {"psnr": psnr(self.reconstruct(state.variables, x), x)}

    def samples(self, state: State) -> NDArray:
        x = self.draw(0, 8, True)
        random = self.generate(state.variables, self.normal(jax.random.key(0), 8))
        return np.concatenate([x, self.reconstruct(state.variables, x), random])


def training(config: Config, folder: Path | None = None) -> Training:
    """Training of a variational autoencoder of rendered lines, whose decoder ships.

    Args:
        config: settings.
        folder: not needed, because lines are rendered anew in each step.

    Raises:
        ValueError: for settings out of range, and without a font.
    """
    positive = (config.rate, config.deviation, config.divergence)
    is_whole = config.width >= PLACE and config.width % PLACE == 0
    if min(config.steps, config.batch) < 1 or not is_whole or min(positive) <= 0:
        raise ValueError(f"settings must be positive numbers, and `width` a multiple of {PLACE}")
    lines = _Lines(config)
    lines.draw(0, 1, True)  # a missing font is an error before anything is written
    return Training(
        name="lines",
        metrics=("loss", "reconstruction", "divergence"),
        init=lines.init,
        step=lines.step,
        batch=Ahead(lambda t: lines.draw(t * config.batch, config.batch, False)),
        measure=lines.measure,
        samples=lines.samples,
        network=lambda state: state.variables["decoder"],
    )
