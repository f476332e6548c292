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

SLOPE = 5.0  # inverse slope of the last leaky ReLU of the mapping network, 0.2
TRAINED_NOISES = 5  # number of noise maps that are optimized with the latents


class _SphericalState(NamedTuple):
    inner: Any
    radii: Any


def _length(x: Array) -> Array:
    """Length of the vectors along the last axis: each latent, or a whole noise map."""
    return jnp.sqrt(jnp.sum(jnp.square(x), -1, keepdims=True))


def spherical(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Spherical projected gradient descent: after each step of `tx`, vectors are scaled to their initial length.

    Vectors lie along the last axis of each array of the parameters.
    """

    def init(params):
        return _SphericalState(tx.init(params), jax.tree.map(_length, params))

    def update(gradient, state, params):
        updates, inner = tx.update(gradient, state.inner, params)

        def project(p, u, radius):
            moved = p + u
            return moved * (radius / jnp.maximum(_length(moved), 1e-12)) - p

        return jax.tree.map(project, params, updates, state.radii), state._replace(inner=inner)

    return optax.GradientTransformation(init, update)


def geocross(latents: Float[Array, "n d"]) -> Float[Array, ""]:
    """Penalty of distant latents: d / 8 times the mean squared angle between those of all layers.

    The angle of u and v is 2 atan2(|u - v|, |u + v|). The generator was trained with equal latents in all layers (Menon
    et al. 2020, section 3).
    """
    u, v = latents[:, None], latents[None]
    apart, together = (jnp.sqrt(jnp.sum(jnp.square(w) + 1e-9, -1)) for w in (u - v, u + v))
    return jnp.mean(jnp.square(2 * jnp.arctan2(apart, together))) * latents.shape[-1] / 8


def one_cycle(rate: float, steps: int) -> optax.Schedule:
    """One-cycle schedule: linearly from a tenth of `rate` to `rate` and back, then down to a thousandth of it.

    The cycle takes nine tenths of the steps.
    """
    cycle_steps = 0.9 * steps

    def schedule(t):
        cycle = (9 * (1 - jnp.abs(t / cycle_steps - 0.5) * 2) + 1) / 10
        drop = 0.1 + (t - cycle_steps) / (0.1 * steps) * (1e-3 - 0.1)
        return rate * jnp.where(t < cycle_steps, cycle, jnp.maximum(drop, 1e-3))

    return schedule


def fit_gaussian(
    mapping: Callable[[Array], Array], key: Array, width: int, count: int = 1_000_000, part: int = 10_000
) -> tuple[Array, Array]:
    """Mean and standard deviation of the latents of random inputs, before the last leaky ReLU of the mapping network.

    The distribution is nearly Gaussian, so w = leaky_relu(deviation * v + mean) with v ~ N(0, I) are likely latents.

    Args:
        mapping: the mapping network, from inputs (n, width) to latents.
        key: random key.
        width: dimensions of an input.
        count: number of inputs.
        part: inputs per evaluation.
    """

    def sums(key):
        w = mapping(jax.random.normal(key, (part, width)))
        x = jnp.where(w < 0, SLOPE * w, w)
        return x.sum(0), jnp.square(x).sum(0)

    # in parts, because a million latents at once would take gigabytes
    total, squares = jax.lax.map(sums, jax.random.split(key, count // part))
    mean = total.sum(0) / count
    return mean, jnp.sqrt(jnp.maximum(squares.sum(0) / count - mean**2, 0))


def style_manifold(weights: Mapping[str, Any], statistics: tuple[Array, Array]) -> Generator:
    """Images x = G(w) of StyleGAN2 with latents w_i = leaky_relu(deviation v_i + mean).

    The parameters are v (n, d) and the first noise maps. v_i ~ N(0, I) at first, and `spherical` keeps their lengths.

    Args:
        weights: see `jbid.nets.stylegan2`.
        statistics: mean and deviation, from `fit_gaussian`.
    """
    mean, deviation = statistics
    shapes = stylegan2.noise_shapes(weights)

    def init(key, blurred):
        keys = jax.random.split(key, len(shapes) + 1)
        noises = [jax.random.normal(k, (h * w,)) for k, (h, w) in zip(keys[1:], shapes)]
        # the other noise maps stay random; the last one is zero, because it would show as grain
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
    """Gray lines of text x = D(v): latents v_i ~ N(0, I) of the letters at first, and medium gray levels.

    Args:
        decoder: see `jbid.nets.text_lines.LineDecoder`.

    Raises:
        ValueError: from `init`, for an image that is not (32, 12 n, 1).
    """

    def init(key, blurred):
        h, w, c = blurred.shape
        if (h, w % PLACE, c) != (HEIGHT, 0, 1):
            hint = 'Set `color` to "luma".' if c == 3 else "Crop and resize it."
            raise ValueError(
                f"the images must be gray lines {HEIGHT} pixels high with a width that is a multiple of {PLACE}, "
                f"got {w}x{h} in {c} channels. {hint}"
            )
        return {"latents": jax.random.normal(key, (w // PLACE, LATENT)), "levels": jnp.zeros(2)}, {}

    def apply(params, code, key):
        return decoder(Latents(params["latents"][None], params["levels"][None]))[0, ..., None]

    return Generator(init, apply)


def geocross_penalty(weight: float) -> Callable[[Any], Array]:
    """Penalty weight * `geocross` of the parameters of `style_manifold`."""
    return lambda params: weight * geocross(params["latents"])
