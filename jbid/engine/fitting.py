"""jbid.engine.fitting."""

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
    """Parameters after `steps` steps of Adam on distance(params, i), the rate falling to zero."""
    tx = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def step(i, carry):
        params, state = carry
        updates, state = tx.update(jax.grad(distance)(params, i), state, params)
        return optax.apply_updates(params, updates), state

    return jax.lax.fori_loop(0, steps, step, (params, tx.init(params)))[0]


def _mix_with_uniform(target: Array) -> Array:
    # one part in fifty of the uniform kernel, so that no pixel is ruled out from the start
    return 0.98 * target / target.sum() + 0.02 / target.size


def fit_kernel(
    apply: Callable[[Params, Array], Array],
    params: Params,
    code: Array,
    target: Array,
    *,
    steps: int = FIT_STEPS,
    rate: float = FIT_RATE,
) -> Params:
    """Parameters with which `apply(params, code)`, of sum one, is close to a kernel: -sum target log k is lowered.

    The target is mixed with one part in fifty of the uniform kernel.
    """
    target = _mix_with_uniform(target)

    def distance(params, i):
        return -jnp.sum(target * jnp.log(jnp.maximum(apply(params, code), 1e-12)))

    return _minimize(params, distance, steps, rate)


def fit_field(apply: Callable[..., Any], params: Params, points: Array, target: Array) -> Params:
    """Parameters with which k(p) = `apply(params, p)` at `points` (kh, kw, 2) is close to a kernel (kh, kw).

    Lowers sum k - target log k, whose minimum is the target itself, sum and all, so that no normalization is needed and
    each step can do with a sample of points, half of them drawn by the target and half evenly: kernels of half a photo
    have hundreds of thousands of points. The target is mixed as in `fitted_kernel`.
    """
    target = _mix_with_uniform(target).ravel()
    points = points.reshape(target.size, -1)
    chance = (target + 1 / target.size) / 2
    total = jnp.cumsum(chance)

    def distance(params, i):
        # one draw from each stretch of equal probability
        u = jax.random.uniform(jax.random.fold_in(jax.random.key(0), i), (FIT_SAMPLES,))
        u = (jnp.arange(FIT_SAMPLES) + u) / FIT_SAMPLES
        drawn = jnp.minimum(jnp.searchsorted(total, u * total[-1]), target.size - 1)
        k = apply(params, points[drawn])
        return jnp.mean((k - target[drawn] * jnp.log(jnp.maximum(k, 1e-12))) / chance[drawn])

    return _minimize(params, distance)
