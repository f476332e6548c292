"""Training of the generator of text lines, an image manifold that needs nobody's weights (Tran et al. 2021, 3.3)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jbid.data import text_lines
from jbid.metrics import psnr
from jbid.nets.text_lines import HEIGHT, LATENT, PLACE, Latents, LineDecoder, LineEncoder
from jbid.pretrain.loop import Ahead, State, Training
from jbid.runtime.compile import jit

HELD_OUT = 64  # lines that figures are measured on


class Settings(NamedTuple):
    """What a training goes by. width: of the lines in pixels, a multiple of 12. batch: lines to a step. rate: of Adam,
    falling to zero by a cosine over the steps. deviation: of a rendered line's grays, in [0, 1], from the generated
    one's. divergence: weight of the latents' divergence from N(0, I) beside the squared differences divided by twice
    `deviation`^2, both sums over a line; it rises over the first third of the steps, as letters are learned only while
    it is light."""

    width: int = 144
    steps: int = 3000
    batch: int = 64
    rate: float = 1e-3
    deviation: float = 0.1
    divergence: float = 1.0
    seed: int = 0


def training(settings: Settings, folder: Path | None = None) -> Training:
    """A variational autoencoder of rendered lines, whose decoder ships. Raises ValueError for bad sizes or no font."""
    s = settings
    if min(s.steps, s.batch) < 1 or s.width < PLACE or s.width % PLACE or min(s.rate, s.deviation, s.divergence) <= 0:
        raise ValueError(f"expected positive numbers, and a width that is a multiple of {PLACE}")
    encoder, decoder, places = LineEncoder(), LineDecoder(), s.width // PLACE
    tx = optax.adam(optax.cosine_decay_schedule(s.rate, s.steps), b2=0.99)

    def drawn(first: int, n: int, held_out: bool) -> np.ndarray:
        rngs = (np.random.default_rng([s.seed, held_out, i]) for i in range(first, first + n))
        return np.stack([text_lines.line(rng, s.width, held_out=held_out)[..., 0] for rng in rngs])

    drawn(0, 1, True)  # so that a missing font is told before anything is written

    def normal(key, n):
        for_letters, for_levels = jax.random.split(key)
        letters = jax.random.normal(for_letters, (n, places, LATENT))
        return Latents(letters, jax.random.normal(for_levels, (n, 2)))

    def init(key):
        key, for_encoder, for_decoder = jax.random.split(key, 3)
        variables = {
            "encoder": encoder.init(for_encoder, jnp.zeros((1, HEIGHT, s.width))),
            "decoder": decoder.init(for_decoder, normal(key, 1)),
        }
        return State(key, variables, tx.init(variables))

    def step(state, x, t):
        noise = normal(jax.random.fold_in(state.key, t), len(x))
        share = s.divergence * jnp.minimum(1, t / max(1, s.steps // 3))

        def loss(variables):
            mean, log = encoder.apply(variables["encoder"], x)
            latents = jax.tree.map(lambda m, s, n: m + jnp.exp(s) * n, mean, log, noise)
            made = decoder.apply(variables["decoder"], latents)
            apart = jnp.sum(jnp.square(made - x)) / (2 * s.deviation**2 * len(x))
            each = jax.tree.map(lambda m, s: jnp.sum(jnp.square(m) + jnp.exp(2 * s) - 2 * s - 1), mean, log)
            divergence = sum(each) / (2 * len(x))
            return apart + share * divergence, (apart, divergence)

        (value, told), grad = jax.value_and_grad(loss, has_aux=True)(state.variables)
        updates, opt_state = tx.update(grad, state.opt_state)
        return State(state.key, optax.apply_updates(state.variables, updates), opt_state), jnp.stack([value, *told])

    again = jit(lambda v, x: decoder.apply(v["decoder"], encoder.apply(v["encoder"], x)[0]))
    sampled = jit(lambda v, z: decoder.apply(v["decoder"], z))

    def measured(state):
        x = drawn(0, HELD_OUT, True)
        return {"psnr": psnr(again(state.variables, x), x)}

    def samples(state):
        x = drawn(0, 8, True)
        return np.concatenate([x, again(state.variables, x), sampled(state.variables, normal(jax.random.key(0), 8))])

    return Training(
        name="lines",
        metrics=("loss", "apart", "divergence"),
        init=init,
        step=step,
        batch=Ahead(lambda t: drawn(t * s.batch, s.batch, False)),
        measured=measured,
        samples=samples,
        network=lambda state: state.variables["decoder"],
    )
