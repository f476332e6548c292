"""Fits of a generator's parameters to an initial kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jbid.types import Params

FIT_STEPS, FIT_RATE, FIT_SAMPLES = 300, 3e-3, 2048


def _minimize(
    params: Params, distance: Callable[[Params, Array], Array], steps: int = FIT_STEPS, rate: float = FIT_RATE
) -> Params:
    """Minimize distance(params, i) by `steps` steps of Adam, whose rate decays to zero."""
    tx = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def step(i, carry):
        params, state = carry
        updates, state = tx.update(jax.grad(distance)(params, i), state, params)
        return optax.apply_updates(params, updates), state

    return jax.lax.fori_loop(0, steps, step, (params, tx.init(params)))[0]


def _mix_with_uniform(target: Array) -> Array:
    # one part in fifty of the uniform kernel, so that no pixel is excluded from the beginning
    return 0.98 * target / target.sum() + 0.02 / target.size


def fit_kernel(
    apply: Callable[[Params, Any], Array],
    params: Params,
    code: Any,
    target: Array,
    *,
    steps: int = FIT_STEPS,
    rate: float = FIT_RATE,
) -> Params:
    """Fit k = apply(params, code), which must sum to one, to a kernel: minimize -sum target log k.

    Args:
        apply: the generator.
        params: parameters to begin with.
        code: input of the generator, which stays as it is.
        target: kernel (kh, kw), not negative; one part in fifty of the uniform kernel is mixed in.
        steps: steps of Adam.
        rate: learning rate, decaying to zero.
    """
    target = _mix_with_uniform(target)

    def distance(params, i):
        return -jnp.sum(target * jnp.log(jnp.maximum(apply(params, code), 1e-12)))

    return _minimize(params, distance, steps, rate)


def fit_field(apply: Callable[..., Any], params: Params, points: Array, target: Array) -> Params:
    """Fit a field k(p) = apply(params, p) to a kernel (kh, kw) given at `points` (kh, kw, 2).

    Minimizes sum k - target log k. Its minimum is the target with its sum, so no normalization is needed and each
    step can use a sample of the points: kernels of half a photo have hundreds of thousands. Half of the sample
    follows the target, half is uniform. The target is mixed with the uniform kernel as in `fit_kernel`.
    """
    target = _mix_with_uniform(target).ravel()
    points = points.reshape(target.size, -1)
    probability = (target + 1 / target.size) / 2
    cumulative = jnp.cumsum(probability)

    def distance(params, i):
        # stratified: one sample from each interval of equal probability
        u = jax.random.uniform(jax.random.fold_in(jax.random.key(0), i), (FIT_SAMPLES,))
        u = (jnp.arange(FIT_SAMPLES) + u) / FIT_SAMPLES
        index = jnp.minimum(jnp.searchsorted(cumulative, u * cumulative[-1]), target.size - 1)
        k = apply(params, points[index])
        return jnp.mean((k - target[index] * jnp.log(jnp.maximum(k, 1e-12))) / probability[index])

    return _minimize(params, distance)
