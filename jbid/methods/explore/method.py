"""Deblurring of Tran, Tran, Phung and Hoai, Explore Image Deblurring via Encoded Blur Kernel Space, CVPR 2021."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Literal, NamedTuple, get_args, get_type_hints

import jax.numpy as jnp
import optax
from jax import Array

from jbid.engine.deep_prior import deep_prior
from jbid.engine.generators import kernel_shape
from jbid.engine.options import check_at_least, check_choice, check_positive
from jbid.engine.updates import Updates, joint, turns, warm_up
from jbid.engine.wrappers import lowest_loss
from jbid.methods import MethodSpec
from jbid.methods.explore.generators import line_images, residual_image, style_images
from jbid.methods.explore.manifold import geocross_penalty, one_cycle, spherical
from jbid.methods.explore.objective import Weights, blur_model, objective
from jbid.types import Estimate, Method


def explore(
    kernel_size: int | tuple[int, int],
    *,
    steps: int = 5300,
    out_channels: int = 3,
    channels: int = 128,
    skip_channels: int = 16,
    scales: int = 5,
    weights: str = "",
    image_net: Literal["dip", "stylegan2", "lines"] = "dip",
    generator: str = "",
    blur_model: Literal["operator", "convolution", "bicubic"] = "operator",
    kernel_net: Literal["dip", "free"] = "dip",
    scheme: Literal["joint", "alternating"] = "joint",
    kernel_steps: int = 20,
    image_steps: int = 1,
    loss: Literal["ssim", "charbonnier", "perceptual", "mse"] = "ssim",
    loss_weight: float = 1.0,
    vgg: str = "",
    warm_up: int = 300,
    second_from: int = 2500,
    kernel_weights: Weights = (5e-5, 5e-4),
    sparse_weights: Weights = (2e-2, 5e-2),
    geocross: float = 0.1,
    image_lr: float = 5e-4,
    kernel_lr: float = 5e-4,
    decay_every: int = 1000,
    schedule: Literal["staircase", "cosine"] = "staircase",
    input_noise: float = 1e-3,
    kernel: Array | None = None,
) -> Method:
    """Min rho(y, F(x, k)) + lambda ||k||_2 + gamma (g_u^2(x) + g_v^2(x))^(alpha/2), x = G_x(z_x), k = G_k(z_k) (Eq. 6).

    F is the trained blur operator of `weights`; k is a code of 1/128 of the image's size. docs/explore.md describes
    the options and the differences from the authors' code, whose defaults these are, except for the perceptual loss.

    Args:
        kernel_size: odd side of the convolution kernel that is displayed for the code.
        weights: folder of weights; empty: the shipped ones. generator, vgg: files of PyTorch weights.
        image_net: "dip", or a manifold (section 3.3): "stylegan2" of the file `generator`, "lines" of text.
        blur_model: "convolution" with a kernel, or "bicubic" reduction, for comparison with the "operator".
        kernel_net: a network ("dip") or a free code. kernel: a known kernel, for "convolution" only.
        scheme: "joint", or "alternating" turns of `kernel_steps` and `image_steps` (Algorithm 1).
        loss, loss_weight: rho and its weight; "perceptual": VGG19 features of the file `vgg`, as the published code.
        warm_up: first steps, in which x approaches y; with an initial kernel better 0.
        kernel_weights, sparse_weights: lambda and gamma, before and after `second_from` steps; geocross: section 3.3.
        image_lr, kernel_lr: fall by 0.7 each `decay_every` steps ("staircase") or to zero ("cosine").
        steps, out_channels, channels, ..., input_noise: as in `selfdeblur`.

    Raises:
        ValueError: for missing weights, unknown names, numbers out of range, and images the generator cannot make.

    Example:
        >>> method = explore(31, blur_model="convolution", warm_up=0)
    """
    return _assemble(kernel_shape(kernel_size, kernel), SimpleNamespace(**locals()))


class _Plan(NamedTuple):
    """Schedule of the updates, and the number of steps of each part after the warm-up."""

    updates: Updates
    image_steps: int
    kernel_steps: int


def _check(options: SimpleNamespace) -> None:
    for name in ("kernel_weights", "sparse_weights"):
        pair = getattr(options, name)
        if len(pair) != 2 or min(pair) < 0:
            raise ValueError(f"`{name}` must be two numbers of at least 0, got {pair}")
    hints = get_type_hints(explore)
    for name in ("image_net", "blur_model", "kernel_net", "scheme", "loss", "schedule"):
        check_choice(name, getattr(options, name), get_args(hints[name]))
    positive = ("image_lr", "kernel_lr", "loss_weight", "channels", "skip_channels", "scales", "decay_every")
    check_positive(**{name: getattr(options, name) for name in positive})
    counts = ("warm_up", "second_from", "input_noise", "geocross")
    check_at_least(0, **{name: getattr(options, name) for name in counts})
    if 0 < options.steps <= options.warm_up:
        raise ValueError(f"`steps` must exceed the {options.warm_up} of `warm_up`, got {options.steps}")


def _plan(options: SimpleNamespace) -> _Plan:
    main = max(options.steps - options.warm_up, 1)  # steps after the warm-up
    is_dip = options.image_net == "dip"
    if options.scheme == "joint":
        return _Plan(warm_up(options.warm_up, joint()), main, main)
    kernel, image = options.kernel_steps, options.image_steps
    check_at_least(1, kernel_steps=kernel, image_steps=image)
    rounds, rest = divmod(main, kernel + image)
    if options.steps and rest:
        possible = options.warm_up + (rounds + 1) * (kernel + image)
        raise ValueError(
            f"`steps` must be {options.warm_up} of warm-up and whole rounds of {kernel} + {image}, "
            f"got {options.steps}. Try {possible}."
        )
    schedule = turns(kernel, image, reset_kernel=is_dip, image_first=not is_dip)
    return _Plan(warm_up(options.warm_up, schedule), rounds * image, kernel if is_dip else rounds * kernel)


def _rate(options: SimpleNamespace, first: float, steps: int, delay: int = 0) -> optax.Schedule:
    if options.schedule == "cosine":
        decay = optax.cosine_decay_schedule(first, max(steps, 1))
    else:
        decay = optax.exponential_decay(first, options.decay_every, 0.7, staircase=True)
    return lambda t: decay(jnp.maximum(t - delay, 0))


def _assemble(shape: tuple[int, int], options: SimpleNamespace) -> Method:
    """The method from the arguments of `explore`."""
    _check(options)
    plan = _plan(options)
    code, forward, restore = blur_model(
        options.blur_model, options.kernel_net, shape, options.weights, options.input_noise, options.kernel
    )
    engine = partial(
        deep_prior,
        kernel=code,
        loss=objective(
            options.loss,
            options.loss_weight,
            options.warm_up,
            options.second_from,
            options.kernel_weights,
            options.sparse_weights,
            options.vgg,
        ),
        forward=forward,
        restore=restore,
        updates=plan.updates,
    )
    kernel_optimizer = optax.adam(_rate(options, options.kernel_lr, plan.kernel_steps))
    if options.image_net == "dip":
        size = {name: getattr(options, name) for name in ("out_channels", "channels", "skip_channels", "scales")}
        image = residual_image(**size, noise=options.input_noise)
        image_rate = _rate(options, options.image_lr, plan.image_steps, delay=options.warm_up)
        return engine(image, optimizers=Estimate(optax.adam(image_rate), kernel_optimizer))
    return _on_manifold(engine, options, plan, kernel_optimizer)


def _on_manifold(
    engine: partial, options: SimpleNamespace, plan: _Plan, kernel_optimizer: optax.GradientTransformation
) -> Method:
    """The method with an image on the manifold of a generative network; the estimate of the lowest loss answers."""
    is_lines = options.image_net == "lines"
    image = line_images(options.weights) if is_lines else style_images(options.generator)
    free = optax.adam(one_cycle(options.image_lr, options.warm_up + plan.image_steps))
    optimizer = spherical(free)
    if is_lines:
        optimizer = optax.partition({"sphere": optimizer, "free": free}, {"latents": "sphere", "levels": "free"})
    # the latents of a line stand for different letters, which have no reason to be close
    penalty = None if is_lines else geocross_penalty(options.geocross)
    method = engine(image, optimizers=Estimate(optimizer, kernel_optimizer), penalty=penalty)
    # losses of different weights cannot be compared
    is_one_phase = options.loss != "perceptual" and all(
        first == second for first, second in (options.kernel_weights, options.sparse_weights)
    )
    changes = (options.warm_up,) if is_one_phase else (options.warm_up, options.warm_up + options.second_from)
    return lowest_loss(method, changes)


SPEC = MethodSpec(
    name="explore",
    summary="learned family of blur operators, for study (Tran et al. 2021)",
    build=explore,
    presets={
        "paper": dict(steps=5300, init="random", color="rgb", deconvolve=False),
        "quick": dict(
            steps=80,
            init="edges",
            color="rgb",
            deconvolve=False,
            channels=32,
            kernel_net="free",
            loss="charbonnier",
            sparse_weights=[0.05, 0.05],
            warm_up=0,
            image_lr=1e-4,
            kernel_lr=1e-2,
            schedule="cosine",
        ),
    },
    weight_files=("operator", "lines"),
    file_options=("generator", "vgg"),
)
