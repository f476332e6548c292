"""The few types that everything in jbid is built from.

h w c is the observed image, H W c the latent one (H = h + kh - 1, W = w + kw - 1), kh kw the kernel. Nothing carries a
leading batch axis: images and seeds are batched by `jbid.transforms`, that is by `jax.vmap`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array
from jaxtyping import Bool, Float

Params = Any  # a pytree of arrays


class Estimate(NamedTuple):
    """What is believed of image and kernel; also used for pairs of anything that belongs to the two."""

    image: Any  # H W c, in [0, 1]
    kernel: Any  # kh kw


class Generator(NamedTuple):
    """A parametrized prior: `apply(params, code, key)` is an image or a kernel.

    `init(key, blurred)` draws parameters (optimized) and code (the fixed network input, not optimized). `apply` takes
    a key for whatever is random at each step, or None for the plain output. `fit(params, code, start)` gives the
    parameters to set out from with a kernel `start`, with which a kernel is close to it and an image to the picture's
    deconvolution with it; None where the parameters that were drawn are kept.
    """

    init: Callable[[Array, Array], tuple[Params, Any]]
    apply: Callable[[Params, Any, Array | None], Array]
    fit: Callable[[Params, Any, Array], Params] | None = None


# y = k * x, or whatever stands for it
Forward = Callable[[Array, Array], Array]
# (estimate, reblurred, blurred, t) -> scalar; t counts steps from 0 and is never batched
Loss = Callable[[Estimate, Array, Array, Array], Float[Array, ""]]


class State(NamedTuple):
    """All that a step changes, and all that a checkpoint holds beside t."""

    key: Array
    params: Estimate
    code: Estimate
    opt_state: Estimate


class StepInfo(NamedTuple):
    """What a step tells: its loss and its estimate, both before the update, and whether the run has stopped itself."""

    loss: Float[Array, ""]
    estimate: Estimate
    stopped: Bool[Array, ""]


class MethodOutput(NamedTuple):
    """A method's answer: the sharp image on the observed window, and a kernel that sums to one."""

    image: Float[Array, "h w c"]
    kernel: Float[Array, "kh kw"]


class Method(NamedTuple):
    """A deblurring method as four pure functions.

    `init(key, blurred, start=None)` is the state before the first step, with the generators fitted to the kernel
    `start` if one is given; `step(state, blurred, t)` the next state and what it told; `estimate(state)` the pair that
    is believed in by then, and `restore(estimate, blurred)` the answer that it gives. The key of step t is
    `fold_in(state.key, t)`, so (state, t) is all that is needed to go on exactly as if never stopped.
    """

    init: Callable[..., Any]
    step: Callable[[Any, Array, Array], tuple[Any, StepInfo]]
    estimate: Callable[[Any], Estimate]
    restore: Callable[[Estimate, Array], MethodOutput]
