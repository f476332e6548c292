"""From a method to others: for many seeds and images, and one that stops itself."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from jbid.ops.noise import estimate_noise
from jbid.types import Estimate, Method, StepInfo


def _batched(method: Method, blurred_axis: int | None) -> Method:
    def init(key, blurred, start=None):
        return jax.vmap(method.init, (0, blurred_axis, 0))(key, blurred, start)

    return Method(
        init,
        jax.vmap(method.step, (0, blurred_axis, None)),
        jax.vmap(method.estimate),
        jax.vmap(method.restore, (0, blurred_axis)),
    )


def over_seeds(method: Method) -> Method:
    """The method with a leading seed axis on keys, states and results, and on starts; all seeds share `blurred`.

    Seed i of `keys` is the single run with `keys[i]`, up to rounding.
    """
    return _batched(method, None)


def over_images(method: Method) -> Method:
    """The method with a leading image axis on keys, `blurred`, starts, states and results; images must be of one size.

    `over_images(over_seeds(method))` takes keys of shape (images, seeds).
    """
    return _batched(method, 0)


def device_axis(devices: Sequence[jax.Device]) -> tuple[Mesh, PartitionSpec]:
    """The devices in a row, and how a leading axis is split over them."""
    return Mesh(np.asarray(devices), ("units",)), PartitionSpec("units")


def over_devices(method: Method, devices: Sequence[jax.Device]) -> Method:
    """A method with one leading axis, whose length the number of devices divides, split over them along that axis.

    Each device runs `method` on its own share and nothing passes between them, so a share ends as it would alone.
    """
    mesh, split = device_axis(devices)

    def spread(f, *specs):
        return jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)

    def init(key, blurred, start=None):
        if start is None:
            return spread(method.init, split, split)(key, blurred)
        return spread(method.init, split, split, split)(key, blurred, start)

    return Method(
        init,
        spread(method.step, split, split, PartitionSpec()),
        spread(method.estimate, split),
        spread(method.restore, split, split),
    )


class EarlyStoppingState(NamedTuple):
    """The state of a method under `early_stopping`; frozen once `stopped`."""

    inner: Any
    pixels: Int[Array, " samples"]  # where the image is looked at
    window: Float[Array, "window samples"]  # what it was there in the last steps
    variance: Float[Array, ""]  # of the window; inf until it is full
    least: Float[Array, ""]  # the least variance so far
    best: Estimate  # the estimate at that step
    since: Int[Array, ""]  # steps without a lower variance
    patience: Int[Array, ""]
    stopped: Bool[Array, ""]


HIGH_NOISE = 0.02  # standard deviation from which on noise counts as high
PATIENCE = (5, 2)  # windows, for low and for high noise


def default_patience(noise: Float[Array, ""], window: int) -> Int[Array, ""]:
    """The patience in steps at this noise level: two windows beyond `HIGH_NOISE`, else five."""
    return window * jnp.where(noise > HIGH_NOISE, PATIENCE[1], PATIENCE[0])


def early_stopping(method: Method, *, window: int = 100, patience: int | None = None, samples: int = 4096) -> Method:
    """The method stopped at the first valley of the windowed moving variance of its images (WMV).

    VAR_t = mean over the last `window` images x_i of mean over pixels (x_i - x_bar)^2. The answer is the estimate at
    the step of the least VAR; the run stops after `patience` steps without a lower one (Zhuang et al., Algorithm 1,
    after Wang et al. 2021, Early Stopping for Deep Image Prior). With patience None it goes by the picture's estimated
    noise level, `patience_for`; with the paper's window of 100 these are its 200 and 500.

    Differs from the authors' code: the mean over pixels is taken at `samples` random pixels, so that the window costs
    window x samples numbers and not a hundred latent images. Pixels are picked and not averaged, because it is the
    noise from pixel to pixel whose return the variance tells of.

    What is kept is the step's estimate as the loss saw it. A seed that has stopped stays as it is; steps go on for
    those beside it that have not. Values that are no numbers count as no lower: the last sound estimate is the answer.

    Raises ValueError for a window under 2, whose variance is none, and for a patience or samples under 1.
    """
    for name, value, smallest in (("window", window, 2), ("patience", patience, 1), ("samples", samples, 1)):
        if value is not None and value < smallest:
            raise ValueError(f"got {name} {value}, expected at least {smallest}")

    def init(key, blurred, start=None):
        inner = method.init(key, blurred, start)
        # only its shape: a second program with the whole network in it would cost some 50 MB more to compile
        shape = jax.eval_shape(method.estimate, inner)
        size = shape.image.size
        n = min(samples, size)
        # spread evenly over the image, with a random place within each stretch
        pixels = ((jnp.arange(n) + jax.random.uniform(jax.random.fold_in(key, 0), (n,))) * (size / n)).astype(int)
        wait = default_patience(estimate_noise(blurred), window) if patience is None else patience
        return EarlyStoppingState(
            inner,
            jnp.minimum(pixels, size - 1),
            jnp.zeros((window, n)),
            jnp.array(jnp.inf),
            jnp.array(jnp.inf),
            jax.tree.map(lambda part: jnp.zeros(part.shape, part.dtype), shape),
            jnp.array(0),
            jnp.asarray(wait),
            jnp.array(False),
        )

    def step(state, blurred, t):
        inner, info = method.step(state.inner, blurred, t)
        seen = state.window.at[t % window].set(info.estimate.image.ravel()[state.pixels])
        variance = jnp.where(t >= window - 1, seen.var(0).mean(), jnp.inf)
        lower = (variance < state.least) | ((t < window - 1) & jnp.isfinite(info.loss))
        best = jax.tree.map(lambda new, old: jnp.where(lower, new, old), info.estimate, state.best)
        since = jnp.where(lower, 0, state.since + 1)
        following = state._replace(
            inner=inner,
            window=seen,
            variance=variance,
            least=jnp.where(lower, variance, state.least),
            best=best,
            since=since,
            stopped=since >= state.patience,
        )
        state = jax.tree.map(lambda new, old: jnp.where(state.stopped, old, new), following, state)
        return state, StepInfo(info.loss, info.estimate, state.stopped)

    return Method(init, step, lambda state: state.best, method.restore)


class LowestLossState(NamedTuple):
    """The state of a method under `keeping_lowest`."""

    inner: Any
    least: Float[Array, ""]  # the lowest loss so far
    best: Estimate  # the estimate of that step


def lowest_loss(method: Method, changes: Sequence[int] = ()) -> Method:
    """The method whose answer is the estimate of the step with the lowest loss, not the last one.

    The loss is the method's own, so the true image has no say. At `changes`, steps from which on the loss is another
    one, all that was before is forgotten. At first the answer is the first estimate.
    """

    def init(key, blurred, start=None):
        inner = method.init(key, blurred, start)
        return LowestLossState(inner, jnp.array(jnp.inf), method.estimate(inner))

    def step(state, blurred, t):
        inner, info = method.step(state.inner, blurred, t)
        other = functools.reduce(jnp.logical_or, [t == change for change in changes], jnp.array(False))
        least = jnp.where(other, jnp.inf, state.least)
        lower = info.loss < least
        best = jax.tree.map(lambda new, old: jnp.where(lower, new, old), info.estimate, state.best)
        return LowestLossState(inner, jnp.where(lower, info.loss, least), best), info

    return Method(init, step, lambda state: state.best, method.restore)
