"""The engine that all methods share: two generators, a forward model and a loss make a `Method`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jbid.deconvolution.sparse import CLIPPED
from jbid.engine.updates import Updates, joint
from jbid.ops.conv import blur, crop_center
from jbid.ops.kernels import normalize_kernel
from jbid.types import Estimate, Forward, Generator, Loss, Method, MethodOutput, Params, State, StepInfo

Restore = Callable[[Estimate, Array], MethodOutput]


def restore_center(estimate: Estimate, blurred: Array) -> MethodOutput:
    """The center of the latent image, which the observed window shows, and the kernel normalized to sum one."""
    return MethodOutput(crop_center(estimate.image, estimate.kernel.shape), normalize_kernel(estimate.kernel))


class _Problem(NamedTuple):
    """The parts of `deep_prior` that its steps share."""

    image: Generator
    kernel: Generator
    loss: Loss
    optimizers: Estimate
    forward: Forward
    updates: Updates
    penalty: Callable[[Params], Array] | None

    def estimate(self, params: Estimate, code: Estimate, key: Array | None = None) -> Estimate:
        """Image and kernel of the two generators; without a key, free of their perturbations."""
        keys = (None, None) if key is None else jax.random.split(key)
        return Estimate(
            self.image.apply(params.image, code.image, keys[0]), self.kernel.apply(params.kernel, code.kernel, keys[1])
        )

    def objective(self, params: Estimate, state: State, blurred: Array, key: Array, t: Array) -> tuple[Array, Estimate]:
        """The loss and the estimate that it belongs to."""
        estimate = self.estimate(params, state.code, key)
        reblurred = self.forward(estimate.image, estimate.kernel)
        # a clipped pixel shows a bound: y = min(1, k * x)
        is_beyond = ((blurred >= CLIPPED[1]) & (reblurred > blurred)) | (
            (blurred <= CLIPPED[0]) & (reblurred < blurred)
        )
        # an unknown pixel shows the model's own prediction, so it has no residual and no gradient
        observed = jnp.where(jnp.isnan(blurred) | is_beyond, jax.lax.stop_gradient(reblurred), blurred)
        value = self.loss(estimate, reblurred, observed, t)
        return (value if self.penalty is None else value + self.penalty(params.image)), estimate


def _update(params: Params, tx: optax.GradientTransformation, gradient: Any, opt_state: Any) -> tuple[Params, Any]:
    updates, opt_state = tx.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def _keep(is_kept: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda n, o: jnp.where(is_kept, n, o), new, old)


def _joint_step(problem: _Problem, state: State, blurred: Array, t: Array) -> tuple[State, StepInfo]:
    key = jax.random.fold_in(state.key, t)
    gradient = jax.value_and_grad(problem.objective, has_aux=True)
    (value, estimate), grad = gradient(state.params, state, blurred, key, t)
    moved = [_update(*parts) for parts in zip(state.params, problem.optimizers, grad, state.opt_state)]
    params, opt_state = (Estimate(*pair) for pair in zip(*moved))
    return state._replace(params=params, opt_state=opt_state), StepInfo(value, estimate, jnp.array(False))


def _alternate_step(problem: _Problem, state: State, blurred: Array, t: Array) -> tuple[State, StepInfo]:
    key = jax.random.fold_in(state.key, t)

    def kernel_objective(part):
        return problem.objective(state.params._replace(kernel=part), state, blurred, key, t)

    (value, estimate), grad = jax.value_and_grad(kernel_objective, has_aux=True)(state.params.kernel)
    kernel = _update(state.params.kernel, problem.optimizers.kernel, grad, state.opt_state.kernel)
    kernel_params, kernel_opt = kernel
    if problem.updates.warm_up:
        is_over = t >= problem.updates.warm_up
        kernel_params = _keep(is_over, kernel_params, state.params.kernel)
        kernel_opt = _keep(is_over | problem.updates.warm_optimizer, kernel_opt, state.opt_state.kernel)

    def image_objective(part):
        return problem.objective(Estimate(part, kernel_params), state, blurred, key, t)

    grad, _ = jax.grad(image_objective, has_aux=True)(state.params.image)
    image_params, image_opt = _update(state.params.image, problem.optimizers.image, grad, state.opt_state.image)
    state = state._replace(params=Estimate(image_params, kernel_params), opt_state=Estimate(image_opt, kernel_opt))
    return state, StepInfo(value, estimate, jnp.array(False))


def _reset_kernel(problem: _Problem, state: State, blurred: Array, key: Array) -> State:
    params, code = problem.kernel.init(key, blurred)
    return State(
        state.key,
        state.params._replace(kernel=params),
        state.code._replace(kernel=code),
        state.opt_state._replace(kernel=problem.optimizers.kernel.init(params)),
    )


def _turns_step(problem: _Problem, state: State, blurred: Array, t: Array) -> tuple[State, StepInfo]:
    updates = problem.updates
    is_warm_up = t < updates.warm_up
    moves_image, moves_kernel = jnp.array(True), ~is_warm_up
    if updates.kind == "turns":
        period = updates.kernel + updates.image
        phase = (t - updates.warm_up + (updates.kernel if updates.image_first else 0)) % period
        moves_image, moves_kernel = is_warm_up | (phase >= updates.kernel), ~is_warm_up & (phase < updates.kernel)
        if updates.reset_kernel:
            key = jax.random.fold_in(jax.random.fold_in(state.key, t), 1)
            is_new_turn = (phase == 0) & (t > updates.warm_up)
            state = jax.lax.cond(
                is_new_turn, lambda *args: _reset_kernel(problem, *args), lambda state, *_: state, state, blurred, key
            )
    # both updates are computed and one is kept: XLA's CPU backend compiles convolutions in a branch to slow code
    after, info = _joint_step(problem, state, blurred, t)

    def keep(new: Estimate, old: Estimate, keeps_kernel: Array) -> Estimate:
        return Estimate(_keep(moves_image, new.image, old.image), _keep(keeps_kernel, new.kernel, old.kernel))

    moves_optimizer = moves_kernel | is_warm_up if updates.warm_optimizer else moves_kernel
    params = keep(after.params, state.params, moves_kernel)
    return state._replace(params=params, opt_state=keep(after.opt_state, state.opt_state, moves_optimizer)), info


def _choose_step(updates: Updates) -> Callable[[_Problem, State, Array, Array], tuple[State, StepInfo]]:
    if updates.kind == "alternate":
        return _alternate_step
    return _turns_step if updates.kind == "turns" or updates.warm_up else _joint_step


def deep_prior(
    image: Generator,
    kernel: Generator,
    *,
    loss: Loss,
    optimizers: Estimate,
    forward: Forward = blur,
    restore: Restore = restore_center,
    updates: Updates | None = None,
    penalty: Callable[[Params], Array] | None = None,
) -> Method:
    """Minimize loss(x, k, forward(x, k), y) over the parameters of x = G_x(z_x) and k = G_k(z_k).

    Pixels of y that are NaN are masked: the loss sees the model's prediction there, so their residual is zero. A
    loss of windows, such as SSIM, still reaches half a window beyond the known pixels.

    Args:
        image: generator of the latent image, (H, W, c) in [0, 1].
        kernel: generator of the kernel, (kh, kw).
        loss: data term and regularizers, see `jbid.losses`.
        optimizers: one optax transformation for the parameters of each.
        forward: the blur model, by default truncated convolution.
        restore: makes the answer of the final estimate.
        updates: schedule of the updates, by default `joint`; see `jbid.engine.updates`.
        penalty: added to the loss, a function of the image's parameters.

    Returns:
        A method for one image and one seed, whose estimate is that of the generators without perturbation.

    Example:
        >>> import jbid
        >>> from jbid.engine.generators import image_prior, kernel_prior
        >>> priors = image_prior((9, 9), out_channels=1), kernel_prior("linear", (9, 9))
        >>> optimizers = Estimate(optax.adam(1e-2), optax.adam(1e-4))
        >>> method = deep_prior(*priors, loss=jbid.losses.data_term("mse"), optimizers=optimizers)
    """
    problem = _Problem(image, kernel, loss, optimizers, forward, updates or joint(), penalty)

    def init(key, blurred, init_kernel=None):
        key, image_key, kernel_key = jax.random.split(key, 3)
        image_params, image_code = image.init(image_key, blurred)
        kernel_params, kernel_code = kernel.init(kernel_key, blurred)
        if init_kernel is not None and image.fit is not None:
            image_params = image.fit(image_params, image_code, init_kernel)
        if init_kernel is not None and kernel.fit is not None:
            kernel_params = kernel.fit(kernel_params, kernel_code, init_kernel)
        opt_state = Estimate(optimizers.image.init(image_params), optimizers.kernel.init(kernel_params))
        return State(key, Estimate(image_params, kernel_params), Estimate(image_code, kernel_code), opt_state)

    advance = _choose_step(problem.updates)

    def step(state, blurred, t):
        return advance(problem, state, blurred, t)

    return Method(init, step, lambda state: problem.estimate(state.params, state.code), restore)
