"""The one engine: two generators, a forward model and a loss make a `Method`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jbid.blur import blur, crop_centre, normalise_kernel
from jbid.nets.mlp import KernelMLP
from jbid.nets.skip import Squeezed
from jbid.types import Estimate, Forward, Generator, Info, Loss, Method, Params, Restored, State


def uniform_code(
    net, shape: Callable[[Array], tuple[int, ...]], *, scale: float = 0.1, noise: float = 0.0
) -> Generator:
    """A Flax network fed with a fixed z ~ U(0, scale) of `shape(blurred)`, to which each step adds N(0, noise^2)."""

    def init(key, blurred):
        for_z, for_net = jax.random.split(key)
        z = jax.random.uniform(for_z, shape(blurred), maxval=scale)
        return net.init(for_net, z), z

    def apply(params, z, key):
        if key is not None and noise:
            z = z + noise * jax.random.normal(key, z.shape)
        return net.apply(params, z)

    return Generator(init, apply)


def compute_dtype(name: str) -> type | None:
    """The dtype for networks to compute in, None for that of their parameters. Raises ValueError for another name."""
    known = {"float32": None, "bfloat16": jnp.bfloat16}
    if name not in known:
        raise ValueError(f"got dtype {name!r}, expected one of {', '.join(known)}")
    return known[name]


FIT_STEPS, FIT_RATE, FIT_SAMPLES = 300, 3e-3, 2048


def _fitted(
    params: Params, distance: Callable[[Params, Array], Array], steps: int = FIT_STEPS, rate: float = FIT_RATE
) -> Params:
    """Parameters after `steps` steps of Adam on distance(params, i), the rate falling to zero."""
    tx = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def step(i, carry):
        params, state = carry
        updates, state = tx.update(jax.grad(distance)(params, i), state, params)
        return optax.apply_updates(params, updates), state

    return jax.lax.fori_loop(0, steps, step, (params, tx.init(params)))[0]


def _mixed(target: Array) -> Array:
    # one part in fifty of the uniform kernel, so that no pixel is ruled out from the start
    return 0.98 * target / target.sum() + 0.02 / target.size


def fitted_kernel(
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
    target = _mixed(target)

    def distance(params, i):
        return -jnp.sum(target * jnp.log(jnp.maximum(apply(params, code), 1e-12)))

    return _fitted(params, distance, steps, rate)


def fitted_field(apply: Callable[..., Any], params: Params, points: Array, target: Array) -> Params:
    """Parameters with which k(p) = `apply(params, p)` at `points` (kh, kw, 2) is close to a kernel (kh, kw).

    Lowers sum k - target log k, whose minimum is the target itself, sum and all, so that no normalisation is needed and
    each step can do with a sample of points, half of them drawn by the target and half evenly: kernels of half a photo
    have hundreds of thousands of points. The target is mixed as in `fitted_kernel`.
    """
    target = _mixed(target).ravel()
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

    return _fitted(params, distance)


def free_kernel(shape: tuple[int, int]) -> Generator:
    """k = softmax(logits) with one free parameter a pixel, uniform at first: a kernel without any other prior."""

    def fit(params, code, target):
        return jnp.log(target / target.sum() + 1e-3 / target.size)

    return Generator(
        lambda key, blurred: (jnp.zeros(shape), {}),
        lambda params, code, key: jax.nn.softmax(params.ravel()).reshape(shape),
        fit,
    )


def fixed(value: Array) -> Generator:
    """A generator that has nothing to learn: it always gives `value` (a known kernel makes a method non-blind)."""
    return Generator(lambda key, blurred: ({}, jnp.asarray(value)), lambda params, code, key: code)


def adam(
    rate: float, *, schedule: str, steps: int, milestones: Sequence[int], hold: int = 0
) -> optax.GradientTransformation:
    """Adam whose rate is halved at each of `milestones` ("halve") or decays to zero over `steps` ("cosine").

    In the first `hold` steps nothing moves. Raises ValueError for another schedule.
    """
    if schedule == "cosine":
        decayed = optax.cosine_decay_schedule(rate, steps)
    elif schedule == "halve":
        decayed = optax.piecewise_constant_schedule(rate, {int(m): 0.5 for m in milestones})
    else:
        raise ValueError(f"got schedule {schedule!r}, expected 'halve' or 'cosine'")
    return optax.adam((lambda t: jnp.where(t < hold, 0.0, decayed(t))) if hold else decayed)


def kernel_shape(kernel_size: int | Sequence[int], kernel: Array | None = None) -> tuple[int, int]:
    """(rows, columns) of a kernel of this size. Raises ValueError for even ones, and a known kernel of other shape."""
    sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
    for side in sides:
        if side < 1 or side % 2 == 0:
            raise ValueError(f"got kernel size {side}, expected a positive odd number such as {side // 2 * 2 + 1}")
    if kernel is not None and kernel.shape != sides:
        raise ValueError(f"got a known kernel of shape {kernel.shape}, expected {sides}: set kernel_size to its size")
    return sides[0], sides[1]


def latent_shape(kernel: tuple[int, int], channels: int, blurred: Array) -> tuple[int, int, int]:
    """The size of the latent image that the observed one saw through such a kernel: h + kh - 1, w + kw - 1."""
    return blurred.shape[0] + kernel[0] - 1, blurred.shape[1] + kernel[1] - 1, channels


HIDDEN = {"mlp": (1000,), "linear": (), "deep_mlp": (1000, 1000)}
KERNEL_NETS = (*HIDDEN, "skip", "free")


def kernel_generator(name: str, shape: tuple[int, int], skip: Callable[..., Any], noise: float) -> Generator:
    """The kernel generators with softmax output that methods share, by name.

    "mlp", "linear" and "deep_mlp": fully connected, with one hidden layer, none and two, fed with U(0, 0.1) in 200
    dimensions; "skip": an image network made by `skip`; "free": a free logit for each pixel. Raises ValueError for
    another name.
    """
    if name == "free":
        return free_kernel(shape)
    if name == "skip":
        net = Squeezed(skip(output="softmax", non_local_from=None))
        made = uniform_code(net, lambda blurred: (*shape, 8), noise=noise)
    elif name in HIDDEN:
        made = uniform_code(KernelMLP(shape, HIDDEN[name]), lambda blurred: (200,))
    else:
        raise ValueError(f"got kernel_net {name!r}, expected one of {', '.join(KERNEL_NETS)}")
    return made._replace(fit=partial(fitted_kernel, lambda params, z: made.apply(params, z, None)))


def centre_crop(estimate: Estimate, blurred: Array) -> Restored:
    """The centre of the latent image, which the observed window shows, and the kernel with sum one."""
    return Restored(crop_centre(estimate.image, estimate.kernel.shape), normalise_kernel(estimate.kernel))


def deep_prior(
    image: Generator,
    kernel: Generator,
    *,
    loss: Loss,
    tx: Estimate,
    forward: Forward = blur,
    restore: Callable[[Estimate, Array], Restored] = centre_crop,
    alternating: bool = False,
    hold: int = 0,
    turns: tuple[int, int] | None = None,
    image_first: bool = False,
    renewed: bool = False,
    penalty: Callable[[Params], Array] | None = None,
) -> Method:
    """Minimise loss(x, k, forward(x, k), y) over the parameters of x = G_x(z_x) and k = G_k(z_k).

    `tx` holds one optax transformation for each. Joint (SelfDeblur Algorithm 2): one gradient at the current pair moves
    both. `alternating` (Algorithm 1): first the kernel with the image held, then the image with the new kernel; the
    loss told is the one before either. `turns`: so many steps move the kernel alone, then so many the image alone, and
    so on, or the other way round with `image_first`; `renewed`: the kernel's parameters, code and optimiser begin anew
    in each of its turns but the first (Tran et al. 2021, Algorithm 1). In the first `hold` steps the kernel and its
    optimiser are left alone; turns begin after them. `penalty`, of the image's parameters, is added to the loss.
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
        return state._replace(params=params, opt_state=opt_state), Info(value, now, jnp.array(False))

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
        return state, Info(value, now, jnp.array(False))

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
