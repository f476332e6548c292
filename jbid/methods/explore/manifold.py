"""Images on the manifold of a generative network (Tran et al. 2021, section 3.3; Menon et al., PULSE, CVPR 2020)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jbid.nets import stylegan2
from jbid.nets.text_lines import HEIGHT, LATENT, PLACE, Latents
from jbid.types import Generator

SLOPE = 5.0  # of the leaky ReLU that undoes the mapping network's last one, 0.2
TRAINED_NOISES = 5  # the first of the noise maps, which are looked for with the latents


class _Radii(NamedTuple):
    inner: Any
    radii: Any


def _length(x: Array) -> Array:
    # each latent has a sphere of its own; a noise map is one vector
    return jnp.sqrt(jnp.sum(jnp.square(x), -1, keepdims=True))


def spherical(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Spherical projected gradient descent: after each step of `tx`, vectors go back to the length they began with.

    Vectors lie along the last axis of each array of the parameters.
    """

    def init(params):
        return _Radii(tx.init(params), jax.tree.map(_length, params))

    def update(gradient, state, params):
        updates, inner = tx.update(gradient, state.inner, params)

        def back(p, u, radius):
            moved = p + u
            return moved * (radius / jnp.maximum(_length(moved), 1e-12)) - p

        return jax.tree.map(back, params, updates, state.radii), state._replace(inner=inner)

    return optax.GradientTransformation(init, update)


def geocross(latents: Float[Array, "n d"]) -> Float[Array, ""]:
    """D / 8 times the mean squared angle between the latents of an image's layers (Menon et al. 2020, section 3).

    It keeps them near to one another, where the generator has been trained: the angle is 2 atan2(|u - v|, |u + v|).
    """
    u, v = latents[:, None], latents[None]
    apart, together = (jnp.sqrt(jnp.sum(jnp.square(w) + 1e-9, -1)) for w in (u - v, u + v))
    return jnp.mean(jnp.square(2 * jnp.arctan2(apart, together))) * latents.shape[-1] / 8


def one_cycle(rate: float, steps: int) -> optax.Schedule:
    """A tenth of `rate`, linearly up to it and back within nine tenths of the steps, then down to a thousandth."""
    most = 0.9 * steps

    def schedule(t):
        cycle = (9 * (1 - jnp.abs(t / most - 0.5) * 2) + 1) / 10
        drop = 0.1 + (t - most) / (0.1 * steps) * (1e-3 - 0.1)
        return rate * jnp.where(t < most, cycle, jnp.maximum(drop, 1e-3))

    return schedule


def fit_gaussian(
    mapping: Callable[[Array], Array], key: Array, width: int, count: int = 1_000_000, part: int = 10_000
) -> tuple[Array, Array]:
    """Mean and standard deviation of the mapping network's output with its last leaky ReLU undone, over random codes.

    There it is nearly Gaussian, so w = leaky_relu(deviation * v + mean) with v ~ N(0, I) are likely latents.
    """

    def sums(key):
        w = mapping(jax.random.normal(key, (part, width)))
        x = jnp.where(w < 0, SLOPE * w, w)
        return x.sum(0), jnp.square(x).sum(0)

    # one after the other, as a million latents at once would take gigabytes
    total, squares = jax.lax.map(sums, jax.random.split(key, count // part))
    mean = total.sum(0) / count
    return mean, jnp.sqrt(jnp.maximum(squares.sum(0) / count - mean**2, 0))


def style_manifold(weights: Mapping[str, Any], fitted: tuple[Array, Array]) -> Generator:
    """X = G(w), w_i = leaky_relu(deviation v_i + mean), of StyleGAN2: v (n, d) and the first noise maps are free.

    `fitted` is that of `gaussian_fit`. v_i ~ N(0, I) at first, to stay on their spheres by `spherical`.
    """
    mean, deviation = fitted
    shapes = stylegan2.noise_shapes(weights)

    def init(key, blurred):
        keys = jax.random.split(key, len(shapes) + 1)
        noises = [jax.random.normal(k, (h * w,)) for k, (h, w) in zip(keys[1:], shapes)]
        # what is not looked for stays as it is drawn, but the last map, which would be seen as grain
        fixed = [n * (i + 1 < len(noises)) for i, n in enumerate(noises)]
        latents = jax.random.normal(keys[0], (stylegan2.layers(weights), len(mean)))
        return {"latents": latents, "noises": noises[:TRAINED_NOISES]}, fixed[TRAINED_NOISES:]

    def apply(params, code, key):
        v = deviation * params["latents"] + mean
        noises = [n.reshape(s) for n, s in zip([*params["noises"], *code], shapes)]
        image = stylegan2.synthesis(weights, jnp.maximum(v, v / SLOPE), noises)
        return jnp.clip((image + 1) / 2, 0, 1)

    return Generator(init, apply)


def line_manifold(decoder: Callable[[Latents], Array]) -> Generator:
    """X = D(v) for gray lines of text: latents v_i ~ N(0, I) of the letters at first; the levels of gray begin midway.

    Raises ValueError for an image that is not (32, 12 n, 1).
    """

    def init(key, blurred):
        h, w, c = blurred.shape
        if (h, w % PLACE, c) != (HEIGHT, 0, 1):
            what = f"gray lines {HEIGHT} pixels high, of a width that is a multiple of {PLACE}"
            advice = "add --color luma" if c == 3 else "crop and resize it"
            raise ValueError(f"the generator makes {what}, got {w}x{h} in {c} channels; {advice}")
        return {"latents": jax.random.normal(key, (w // PLACE, LATENT)), "levels": jnp.zeros(2)}, {}

    def apply(params, code, key):
        return decoder(Latents(params["latents"][None], params["levels"][None]))[0, ..., None]

    return Generator(init, apply)


def geocross_penalty(weight: float) -> Callable[[Any], Array]:
    """Weight * `geocross` of a manifold's parameters."""
    return lambda params: weight * geocross(params["latents"])
