"""Wrappers of methods: many seeds, images and devices; early stopping; the lowest loss."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from jbid.engine.options import check_at_least
from jbid.ops.noise import estimate_noise
from jbid.types import Estimate, Method, StepInfo


def _batch(method: Method, blurred_axis: int | None) -> Method:
    def init(key, blurred, init_kernel=None):
        return jax.vmap(method.init, (0, blurred_axis, 0))(key, blurred, init_kernel)

    return Method(
        init,
        jax.vmap(method.step, (0, blurred_axis, None)),
        jax.vmap(method.estimate),
        jax.vmap(method.restore, (0, blurred_axis)),
    )


def over_seeds(method: Method) -> Method:
    """Batch a method over random seeds of one image.

    Keys, initial kernels, states and results get a leading seed axis; all seeds share `blurred`. Seed i is the single
    run with `keys[i]`, up to rounding.

    Example:
        >>> import jbid
        >>> method = over_seeds(jbid.selfdeblur(5, out_channels=1))
        >>> state = jax.eval_shape(method.init, jax.random.split(jax.random.key(0), 3), jnp.zeros((32, 32, 1)))
        >>> jax.eval_shape(method.estimate, state).kernel.shape
        (3, 5, 5)
    """
    return _batch(method, None)


def over_images(method: Method) -> Method:
    """Batch a method over images of one size.

    Keys, `blurred`, initial kernels, states and results get a leading image axis. `over_images(over_seeds(method))`
    takes keys of shape (images, seeds).

    Example:
        >>> import jbid
        >>> method = over_images(jbid.selfdeblur(5, out_channels=1))
        >>> state = jax.eval_shape(method.init, jax.random.split(jax.random.key(0), 2), jnp.zeros((2, 32, 32, 1)))
        >>> jax.eval_shape(method.estimate, state).image.shape
        (2, 36, 36, 1)
    """
    return _batch(method, 0)


def device_axis(devices: Sequence[jax.Device]) -> tuple[Mesh, PartitionSpec]:
    """Mesh of the devices in a row, and the partition of a leading axis over them."""
    return Mesh(np.asarray(devices), ("items",)), PartitionSpec("items")


def over_devices(method: Method, devices: Sequence[jax.Device]) -> Method:
    """Shard a batched method over devices along its leading axis, whose length they divide.

    Each device runs `method` on its share, and nothing passes between them, so a share ends as it would alone.
    """
    mesh, split = device_axis(devices)

    def shard(f, *specs):
        return jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)

    def init(key, blurred, init_kernel=None):
        if init_kernel is None:
            return shard(method.init, split, split)(key, blurred)
        return shard(method.init, split, split, split)(key, blurred, init_kernel)

    return Method(
        init,
        shard(method.step, split, split, PartitionSpec()),
        shard(method.estimate, split),
        shard(method.restore, split, split),
    )


class EarlyStoppingState(NamedTuple):
    """State of a method under `early_stopping`; it stays as it is once `stopped`."""

    inner: Any
    pixels: Int[Array, " samples"]  # indices of the pixels whose variance counts
    window: Float[Array, "window samples"]  # their values in the last steps
    variance: Float[Array, ""]  # of the window; inf until it is full
    least: Float[Array, ""]  # least variance so far
    best: Estimate  # estimate of that step
    since: Int[Array, ""]  # steps without a lower variance
    patience: Int[Array, ""]
    stopped: Bool[Array, ""]


HIGH_NOISE = 0.02  # standard deviation of high noise
PATIENCE = (5, 2)  # windows, for low and for high noise


def default_patience(noise: Float[Array, ""], window: int) -> Int[Array, ""]:
    """Patience in steps at a noise level: two windows above `HIGH_NOISE`, else five."""
    return window * jnp.where(noise > HIGH_NOISE, PATIENCE[1], PATIENCE[0])


def early_stopping(method: Method, *, window: int = 100, patience: int | None = None, samples: int = 4096) -> Method:
    """Stop a method at the first valley of the windowed moving variance of its images (WMV).

    VAR_t = mean over the last `window` images x_i of mean over pixels (x_i - x_bar)^2. The answer is the estimate at
    the step of the least VAR; the run stops after `patience` steps without a lower one (Zhuang et al., Algorithm 1,
    after Wang et al. 2021, Early Stopping for Deep Image Prior). A seed that has stopped keeps its state while others
    beside it continue. NaN values count as no lower variance, so the last valid estimate is the answer.

    Differs from the authors' code: the mean over pixels runs over `samples` random pixels, so that the window costs
    window x samples numbers instead of a hundred latent images. Pixels are sampled and not averaged, because VAR has
    to see the noise from pixel to pixel.

    Args:
        method: for one image and one seed.
        window: steps of the window, at least 2; the paper's is 100.
        patience: steps, at least 1; None: by the estimated noise level, `default_patience`.
        samples: number of pixels, at least 1.

    Raises:
        ValueError: for numbers out of range.

    Example:
        >>> import jbid
        >>> method = early_stopping(jbid.selfdeblur(31), window=50)
    """
    check_at_least(2, window=window)
    check_at_least(1, patience=1 if patience is None else patience, samples=samples)

    def init(key, blurred, init_kernel=None):
        inner = method.init(key, blurred, init_kernel)
        # the shape alone: evaluating the network here would compile it a second time
        shape = jax.eval_shape(method.estimate, inner)
        size = shape.image.size
        n = min(samples, size)
        # one random pixel in each of n intervals
        pixels = ((jnp.arange(n) + jax.random.uniform(jax.random.fold_in(key, 0), (n,))) * (size / n)).astype(int)
        steps = default_patience(estimate_noise(blurred), window) if patience is None else patience
        return EarlyStoppingState(
            inner=inner,
            pixels=jnp.minimum(pixels, size - 1),
            window=jnp.zeros((window, n)),
            variance=jnp.array(jnp.inf),
            least=jnp.array(jnp.inf),
            best=jax.tree.map(lambda part: jnp.zeros(part.shape, part.dtype), shape),
            since=jnp.array(0),
            patience=jnp.asarray(steps),
            stopped=jnp.array(False),
        )

    return Method(
        init,
        functools.partial(_early_stopping_step, method, window),
        lambda state: state.best,
        method.restore,
    )


def _early_stopping_step(
    method: Method, window: int, state: EarlyStoppingState, blurred: Array, t: Array
) -> tuple[EarlyStoppingState, StepInfo]:
    inner, info = method.step(state.inner, blurred, t)
    values = state.window.at[t % window].set(info.estimate.image.ravel()[state.pixels])
    variance = jnp.where(t >= window - 1, values.var(0).mean(), jnp.inf)
    is_lower = (variance < state.least) | ((t < window - 1) & jnp.isfinite(info.loss))
    best = jax.tree.map(lambda new, old: jnp.where(is_lower, new, old), info.estimate, state.best)
    since = jnp.where(is_lower, 0, state.since + 1)
    following = state._replace(
        inner=inner,
        window=values,
        variance=variance,
        least=jnp.where(is_lower, variance, state.least),
        best=best,
        since=since,
        stopped=since >= state.patience,
    )
    state = jax.tree.map(lambda new, old: jnp.where(state.stopped, old, new), following, state)
    return state, StepInfo(info.loss, info.estimate, state.stopped)


class LowestLossState(NamedTuple):
    """State of a method under `lowest_loss`."""

    inner: Any
    least: Float[Array, ""]  # lowest loss so far
    best: Estimate  # estimate of that step


def lowest_loss(method: Method, changes: Sequence[int] = ()) -> Method:
    """Answer with the estimate of the step with the lowest loss instead of the last one.

    The loss is the method's own, so the ground truth plays no part. Before the first step the answer is the initial
    estimate.

    Args:
        method: for one image and one seed.
        changes: steps from which on the loss is another one; earlier losses do not count any more.
    """

    def init(key, blurred, init_kernel=None):
        inner = method.init(key, blurred, init_kernel)
        return LowestLossState(inner, jnp.array(jnp.inf), method.estimate(inner))

    def step(state, blurred, t):
        inner, info = method.step(state.inner, blurred, t)
        is_new_loss = functools.reduce(jnp.logical_or, [t == change for change in changes], jnp.array(False))
        least = jnp.where(is_new_loss, jnp.inf, state.least)
        is_lower = info.loss < least
        best = jax.tree.map(lambda new, old: jnp.where(is_lower, new, old), info.estimate, state.best)
        return LowestLossState(inner, jnp.where(is_lower, info.loss, least), best), info

    return Method(init, step, lambda state: state.best, method.restore)
