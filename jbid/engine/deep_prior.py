"""The one engine: two generators, a forward model and a loss make a `Method`."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jbid.ops.conv import blur, crop_center
from jbid.ops.kernels import normalize_kernel
from jbid.types import Estimate, Forward, Generator, Loss, Method, MethodOutput, Params, State, StepInfo


def restore_center(estimate: Estimate, blurred: Array) -> MethodOutput:
    """The center of the latent image, which the observed window shows, and the kernel with sum one."""
    return MethodOutput(crop_center(estimate.image, estimate.kernel.shape), normalize_kernel(estimate.kernel))


def deep_prior(
    image: Generator,
    kernel: Generator,
    *,
    loss: Loss,
    tx: Estimate,
    forward: Forward = blur,
    restore: Callable[[Estimate, Array], MethodOutput] = restore_center,
    alternating: bool = False,
    hold: int = 0,
    turns: tuple[int, int] | None = None,
    image_first: bool = False,
    renewed: bool = False,
    penalty: Callable[[Params], Array] | None = None,
) -> Method:
    """Minimize loss(x, k, forward(x, k), y) over the parameters of x = G_x(z_x) and k = G_k(z_k).

    `tx` holds one optax transformation for each. Joint (SelfDeblur Algorithm 2): one gradient at the current pair moves
    both. `alternating` (Algorithm 1): first the kernel with the image held, then the image with the new kernel; the
    loss told is the one before either. `turns`: so many steps move the kernel alone, then so many the image alone, and
    so on, or the other way round with `image_first`; `renewed`: the kernel's parameters, code and optimizer begin anew
    in each of its turns but the first (Tran et al. 2021, Algorithm 1). In the first `hold` steps the kernel and its
    optimizer are left alone; turns begin after them. `penalty`, of the image's parameters, is added to the loss.
    Pixels of y that are not numbers are unknown: the loss sees what the model says of them, so that they ask for
    nothing themselves; a loss of windows, such as SSIM, still reaches half a window beyond the known ones. The method's
    estimate is that of the generators without perturbation, and `restore(estimate, blurred)` makes the answer of it.
    Raises ValueError for turns without a step.
    """

    def init(key, blurred, start=None):
        key, for_image, for_kernel = jax.random.split(key, 3)
        image_params, image_code = image.init(for_image, blurred)
        kernel_params, kernel_code = kernel.init(for_kernel, blurred)
        if start is not None and image.fit is not None:
            image_params = image.fit(image_params, image_code, start)
        if start is not None and kernel.fit is not None:
            kernel_params = kernel.fit(kernel_params, kernel_code, start)
        opt_state = Estimate(tx.image.init(image_params), tx.kernel.init(kernel_params))
        return State(key, Estimate(image_params, kernel_params), Estimate(image_code, kernel_code), opt_state)

    def estimate(params, code, key=None):
        keys = (None, None) if key is None else jax.random.split(key)
        return Estimate(
            image.apply(params.image, code.image, keys[0]), kernel.apply(params.kernel, code.kernel, keys[1])
        )

    def objective(params, state, blurred, key, t):
        now = estimate(params, state.code, key)
        reblurred = forward(now.image, now.kernel)
        observed = jnp.where(jnp.isnan(blurred), jax.lax.stop_gradient(reblurred), blurred)
        value = loss(now, reblurred, observed, t)
        return (value if penalty is None else value + penalty(params.image)), now

    def moved(part, transform, gradient, opt_state):
        updates, opt_state = transform.update(gradient, opt_state, part)
        return optax.apply_updates(part, updates), opt_state

    def joint(state, blurred, t):
        key = jax.random.fold_in(state.key, t)
        (value, now), grad = jax.value_and_grad(objective, has_aux=True)(state.params, state, blurred, key, t)
        parts = [moved(*args) for args in zip(state.params, tx, grad, state.opt_state)]
        params, opt_state = (Estimate(*pair) for pair in zip(*parts))
        return state._replace(params=params, opt_state=opt_state), StepInfo(value, now, jnp.array(False))

    def in_turn(state, blurred, t):
        key = jax.random.fold_in(state.key, t)

        def of_kernel(part):
            return objective(state.params._replace(kernel=part), state, blurred, key, t)

        (value, now), grad = jax.value_and_grad(of_kernel, has_aux=True)(state.params.kernel)
        kernel_params, kernel_opt = moved(state.params.kernel, tx.kernel, grad, state.opt_state.kernel)

        def of_image(part):
            return objective(Estimate(part, kernel_params), state, blurred, key, t)

        grad, _ = jax.grad(of_image, has_aux=True)(state.params.image)
        image_params, image_opt = moved(state.params.image, tx.image, grad, state.opt_state.image)
        state = state._replace(params=Estimate(image_params, kernel_params), opt_state=Estimate(image_opt, kernel_opt))
        return state, StepInfo(value, now, jnp.array(False))

    def anew(state, blurred, key):
        params, code = kernel.init(key, blurred)
        return State(
            state.key,
            state.params._replace(kernel=params),
            state.code._replace(kernel=code),
            state.opt_state._replace(kernel=tx.kernel.init(params)),
        )

    def in_parts(state, blurred, t):
        held = t < hold
        moves_image, moves_kernel = jnp.array(True), ~held
        at = (t - hold + (turns[0] if turns and image_first else 0)) % sum(turns or (1,))
        if turns is not None:
            moves_image, moves_kernel = held | (at >= turns[0]), ~held & (at < turns[0])
        if renewed:
            key = jax.random.fold_in(jax.random.fold_in(state.key, t), 1)
            state = jax.lax.cond((at == 0) & (t > hold), anew, lambda state, *_: state, state, blurred, key)
        # both are computed and one is kept: XLA's CPU backend runs convolutions in a branch ten times slower
        after, info = joint(state, blurred, t)

        def kept(new, old):
            return Estimate(
                jax.tree.map(lambda n, o: jnp.where(moves_image, n, o), new.image, old.image),
                jax.tree.map(lambda n, o: jnp.where(moves_kernel, n, o), new.kernel, old.kernel),
            )

        state = state._replace(
            params=kept(after.params, state.params), opt_state=kept(after.opt_state, state.opt_state)
        )
        return state, info

    if turns is not None and min(turns) < 1:
        raise ValueError(f"got turns {turns}, expected at least one step of kernel and image each")
    step = in_parts if turns or hold else in_turn if alternating else joint
    return Method(init, step, lambda state: estimate(state.params, state.code), restore)
