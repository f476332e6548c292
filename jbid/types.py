"""Types that all of jbid builds on.

h w c is the observed image, H W c the latent one (H = h + kh - 1, W = w + kw - 1), kh kw the kernel. Nothing has a
leading batch axis: `jbid.engine.wrappers` batches images and seeds by `jax.vmap`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array
from jaxtyping import Bool, Float

Params = Any  # a pytree of arrays


class Estimate(NamedTuple):
    """Current estimates of image and kernel; also any pair of things that belong to the two.

    Attributes:
        image: latent image (H, W, c) in [0, 1].
        kernel: (kh, kw).
    """

    image: Any
    kernel: Any


class Generator(NamedTuple):
    """A parametrized prior, of an image or a kernel.

    Attributes:
        init: init(key, blurred) draws parameters, which are optimized, and a code, which is not: the network's input.
        apply: apply(params, code, key) is the image or kernel. The key is for random perturbations; None: without.
        fit: fit(params, code, init_kernel) makes the parameters with which a kernel is close to the initial one, and
            an image close to the deconvolution with it; None: the drawn parameters stay.
    """

    init: Callable[[Array, Array], tuple[Params, Any]]
    apply: Callable[[Params, Any, Array | None], Array]
    fit: Callable[[Params, Any, Array], Params] | None = None


# blur model forward(image, kernel) = k * x, or another one
Forward = Callable[[Array, Array], Array]
# loss(estimate, reblurred, blurred, t) is a scalar; t counts steps from 0 and is never batched
Loss = Callable[[Estimate, Array, Array, Array], Float[Array, ""]]


class State(NamedTuple):
    """State of a run: everything that a step changes, and a checkpoint saves.

    Attributes:
        key: of the run; step t uses fold_in(key, t).
        params: of the two generators.
        code: of the two generators.
        opt_state: of the two optimizers.
    """

    key: Array
    params: Estimate
    code: Estimate
    opt_state: Estimate


class StepInfo(NamedTuple):
    """Auxiliary output of a step.

    Attributes:
        loss: before the update.
        estimate: before the update.
        stopped: the run has stopped early.
    """

    loss: Float[Array, ""]
    estimate: Estimate
    stopped: Bool[Array, ""]


class MethodOutput(NamedTuple):
    """Answer of a method.

    Attributes:
        image: sharp image on the observed window.
        kernel: sums to one.
    """

    image: Float[Array, "h w c"]
    kernel: Float[Array, "kh kw"]


class Method(NamedTuple):
    """A deblurring method as four pure functions.

    The key of step t is fold_in(state.key, t), so state and t suffice to resume a run exactly.

    Attributes:
        init: init(key, blurred, init_kernel=None) is the state before the first step.
        step: step(state, blurred, t) is the next state and a `StepInfo`.
        estimate: estimate(state) is the current estimate.
        restore: restore(estimate, blurred) is the answer. It takes an estimate and not a state, so that wrappers can
            substitute their own.
    """

    init: Callable[..., Any]
    step: Callable[[Any, Array, Array], tuple[Any, StepInfo]]
    estimate: Callable[[Any], Estimate]
    restore: Callable[[Estimate, Array], MethodOutput]
