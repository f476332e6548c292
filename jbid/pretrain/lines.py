"""Training of the generator of text lines, an image manifold that needs nobody's weights (Tran et al. 2021, 3.3)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jbid.data import lines
from jbid.metrics import psnr
from jbid.nets.lines import HEIGHT, LATENT, PLACE, LineDecoder, LineEncoder
from jbid.pretrain.loop import Ahead, State, Training
from jbid.run import compiled

HELD_OUT = 64  # lines that figures are measured on


class Settings(NamedTuple):
    """What a training goes by. width: of the lines in pixels, a multiple of 8. divergence: of the latents' divergence
    from N(0, I), per line, beside the squared differences divided by twice `deviation`^2; it rises over the first
    half of the steps, as letters are learned only while it is light."""

    width: int = 128
    steps: int = 20_000
    batch: int = 32
    rate: float = 1e-3
    deviation: float = 0.1
    divergence: float = 1.0
    seed: int = 0


def training(settings: Settings, folder: Path | None = None) -> Training:
    """A variational autoencoder of rendered lines, whose decoder ships. Raises ValueError for bad sizes or no fonts."""
    s = settings
    if min(s.steps, s.batch) < 1 or s.width < PLACE or s.width % PLACE or min(s.deviation, s.divergence) <= 0:
        raise ValueError(f"expected positive numbers, and a width that is a multiple of {PLACE}")
    lines.fonts()
    encoder, decoder = LineEncoder(), LineDecoder()
    tx = optax.adam(optax.cosine_decay_schedule(s.rate, s.steps), b2=0.99)

    def drawn(first: int, n: int, held_out: bool) -> np.ndarray:
        rngs = (np.random.default_rng([s.seed, held_out, i]) for i in range(first, first + n))
        return np.stack([lines.line(rng, s.width, held_out=held_out)[..., 0] for rng in rngs])

    def init(key):
        key, for_encoder, for_decoder = jax.random.split(key, 3)
        variables = {
            "encoder": encoder.init(for_encoder, jnp.zeros((1, HEIGHT, s.width))),
            "decoder": decoder.init(for_decoder, jnp.zeros((1, s.width // PLACE, LATENT))),
        }
        return State(key, variables, tx.init(variables))

    def step(state, x, t):
        noise = jax.random.normal(jax.random.fold_in(state.key, t), (len(x), s.width // PLACE, LATENT))
        share = s.divergence * jnp.minimum(1, t / max(1, s.steps // 2))

        def loss(variables):
            mean, log = encoder.apply(variables["encoder"], x)
            made = decoder.apply(variables["decoder"], mean + jnp.exp(log) * noise)
            apart = jnp.sum(jnp.square(made - x)) / (2 * s.deviation**2 * len(x))
            divergence = jnp.sum(jnp.square(mean) + jnp.exp(2 * log) - 2 * log - 1) / (2 * len(x))
            return apart + share * divergence, (apart, divergence)

        (value, told), grad = jax.value_and_grad(loss, has_aux=True)(state.variables)
        updates, opt_state = tx.update(grad, state.opt_state)
        return State(state.key, optax.apply_updates(state.variables, updates), opt_state), jnp.stack([value, *told])

    again = compiled(lambda v, x: decoder.apply(v["decoder"], encoder.apply(v["encoder"], x)[0]))
    sampled = compiled(lambda v, z: decoder.apply(v["decoder"], z))

    def measured(state):
        x = drawn(0, HELD_OUT, True)
        return {"psnr": psnr(again(state.variables, x), x)}

    def samples(state):
        x = drawn(0, 8, True)
        codes = jax.random.normal(jax.random.key(0), (8, s.width // PLACE, LATENT))
        return np.concatenate([x, again(state.variables, x), sampled(state.variables, codes)])

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
