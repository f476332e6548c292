"""Explore: Tran, Tran, Phung and Hoai, Explore Image Deblurring via Encoded Blur Kernel Space, CVPR 2021."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args, get_type_hints

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jbid import losses
from jbid.deconvolution.sparse import deconvolve_gray
from jbid.engine.deep_prior import deep_prior
from jbid.engine.generators import fixed, kernel_generator, kernel_shape, latent_shape, network_generator
from jbid.engine.wrappers import lowest_loss
from jbid.io import torch_weights
from jbid.io.weights import load, weights_folder
from jbid.kernel_estimation.edges import extend_periodically, ridge_kernel
from jbid.losses import perceptual
from jbid.methods.explore import blur_operator
from jbid.methods.explore.manifold import (
    fit_gaussian,
    geocross_penalty,
    line_manifold,
    one_cycle,
    spherical,
    style_manifold,
)
from jbid.nets import stylegan2
from jbid.nets.kernel_wizard import KernelDip
from jbid.nets.skip import Skip
from jbid.nets.text_lines import LineDecoder
from jbid.ops.conv import blur, crop_center, pad_edge
from jbid.ops.kernels import delta_kernel, normalize_kernel
from jbid.types import Estimate, Forward, Generator, Loss, Method, MethodOutput

LARGEST = 48_000_000  # values in a feature map at full size: some 10 GB
BICUBIC = 8  # times smaller
RIDGE = 1e-2  # of the convolution kernel that is shown of a code, as a share of the mean power of the gradients


def _deconvolved(blurred: Array, kernel: Array) -> Array:
    sharp = jax.vmap(lambda y: deconvolve_gray(y, kernel), -1, -1)(blurred)
    return jnp.clip(crop_center(sharp, kernel.shape), 0, 1)


def _from_start(of: blur_operator.Operator, blurred: Array, kernel: Array) -> Array:
    """The code of the blur between a picture and its deconvolution with a kernel."""
    return of.extract(_deconvolved(blurred, kernel), blurred)[0]


def changed(
    inner: Generator, shape: Callable[[Array], tuple[int, ...]], first: Callable[[Array, Array], Array]
) -> Generator:
    """x = first(y, start) + G(z) - G_0(z): what a network of `shape(y)` changes of the picture or code set out from.

    Without a start, G(z) alone.
    """

    def init(key, blurred):
        params, z = inner.init(key, blurred)
        return {"net": params, "from": jnp.zeros(shape(blurred))}, (z, blurred)

    def apply(params, code, key):
        return jax.lax.stop_gradient(params["from"]) + inner.apply(params["net"], code[0], key)

    def fit(params, code, start):
        z, blurred = code
        # what the untrained network gives is taken off, so that the first output is the one that was found
        return params | {"from": first(blurred, start) - inner.apply(params["net"], z, None)}

    return Generator(init, apply, fit)


def free_code(of: blur_operator.Operator) -> Generator:
    """A code of free values, U(0, 0.1) at first: without any other prior. Fitted to a kernel by G of its deconvolution.

    Not zero at first, as F looks at a code through a ReLU, where zero would have no gradient.
    """

    def init(key, blurred):
        return jax.random.uniform(key, (*blur_operator.code_shape(blurred.shape), of.width), maxval=0.1), blurred

    return Generator(init, lambda params, code, key: params, lambda params, code, start: _from_start(of, code, start))


def dip_code(of: blur_operator.Operator, net: KernelDip, noise: float) -> Generator:
    """A code k = G_k(z_k) of a network fed with z_k ~ U(0, 0.1), to which each step adds N(0, noise^2).

    With a kernel to set out from, the code is G of the deconvolution with it plus what the network changes.
    """

    def shape(blurred):
        return *(32 * n for n in blur_operator.code_shape(blurred.shape)), net.features

    inner = network_generator(net, shape, noise=noise)
    return changed(inner, lambda y: (*blur_operator.code_shape(y.shape), net.code), partial(_from_start, of))


def shown_kernel(of: blur_operator.Operator, image: Array, code: Array, shape: tuple[int, int]) -> Array:
    """The convolution kernel that comes closest to F(., code) on an image: argmin_k ||k * grad x - grad F(x, code)||^2.

    With a ridge, `jbid.start.ridge_kernel`; not negative, sum one. It is there to be looked at, and for the finish.
    """
    side = max(shape)
    x, y = (
        extend_periodically(v.mean(-1), (v.shape[0] + side, v.shape[1] + side)) for v in (image, of.blur(image, code))
    )
    power = jnp.sum(jnp.square(jnp.diff(x, axis=0))) + jnp.sum(jnp.square(jnp.diff(x, axis=1)))
    k = ridge_kernel(x, y, side, RIDGE * power)
    top, left = (side - shape[0]) // 2, (side - shape[1]) // 2
    # a fit that finds nothing still gives a kernel
    k = jnp.maximum(k[top : top + shape[0], left : left + shape[1]], 0) + 1e-8
    return normalize_kernel(k, 0.05)


def _seen_whole(blurred: Array, *, channels: int) -> tuple[int, int, int]:
    h, w = blurred.shape[:2]
    if h * w * channels > LARGEST:
        raise ValueError(
            f"explore's network must see the whole picture: got {w}x{h} pixels, expected at most "
            f"{LARGEST / channels / 1e6:.1f} million; make it smaller, or, for uniform blur, add --patch 384 --finish"
        )
    return latent_shape((1, 1), 8, blurred)


# of a term, before and after the change
Weights = tuple[float, float] | list[float]


def _objective(
    loss: str,
    loss_weight: float,
    warm_up: int,
    second_from: int,
    kernel_weights: Weights,
    sparse_weights: Weights,
    vgg: str,
) -> Loss:
    """Eq. 5 in two phases after the warm-up; the weights of the terms change from the first to the second."""
    at = warm_up + second_from

    def changing(weights: Weights, term: Loss) -> Loss:
        # computed in either phase: a branch would be slow on CPU, where there are convolutions in it
        before, after = weights
        return lambda e, r, y, t: jnp.where(t < at, before, after) * term(e, r, y, t)

    if loss == "perceptual":
        features = perceptual(torch_weights.vgg19(vgg))
        terms = [changing((0.6, 1), features), changing((1, 0), losses.one_minus_ssim())]
    else:
        known = {"charbonnier": losses.charbonnier, "ssim": losses.one_minus_ssim, "mse": losses.mse}
        terms = [known[loss]()]
    whole = losses.add(
        *[changing((loss_weight, loss_weight), term) for term in terms],
        changing(kernel_weights, losses.kernel_norm()),
        changing(sparse_weights, losses.sparse_sobel()),
    )
    if not warm_up:
        return whole
    return lambda e, r, y, t: jnp.where(t < warm_up, losses.image_to_blurred_mse(e, r, y, t), whole(e, r, y, t))


@functools.lru_cache(maxsize=2)
def _style(path: str) -> Generator:
    style = torch_weights.stylegan2(path)
    width = style["style.1.weight"].shape[1]
    fitted = fit_gaussian(partial(stylegan2.mapping, style), jax.random.key(0), width)
    made, shape = style_manifold(style, fitted), stylegan2.shape(style)

    def init(key, blurred):
        if blurred.shape != shape:
            what = "{1}x{0} pixels in {2} channels".format(*shape)
            given = "{1}x{0} in {2}".format(*blurred.shape)
            advice = "crop and resize it" if blurred.shape[-1] == shape[-1] else "give it in color, with --color rgb"
            raise ValueError(f"{path}: makes pictures of {what}, got one of {given}; {advice}")
        return made.init(key, blurred)

    return made._replace(init=init)


def _lines(weights: str) -> Generator:
    """The manifold of gray lines of text, with the generator of a folder of weights."""
    decoder, variables = LineDecoder(), load("lines", weights_folder(weights))
    return line_manifold(lambda latents: jnp.asarray(decoder.apply(variables, latents)))


def _bicubic(image: Array, kernel: Array) -> Array:
    """The picture made `BICUBIC` times smaller and as large again: the fixed operator of PULSE."""
    h, w, c = image.shape
    small = jax.image.resize(image, (-(-h // BICUBIC), -(-w // BICUBIC), c), "cubic", antialias=True)
    return jax.image.resize(small, image.shape, "cubic")


def _blur_model(
    name: str, kernel_net: str, shape: tuple[int, int], weights: str, noise: float, kernel: Array | None
) -> tuple[Generator, Forward, Callable[[Estimate, Array], MethodOutput]]:
    """Kernel generator, forward model and what is shown of the kernel, by the model's name."""
    if kernel is not None and name != "convolution":
        raise ValueError("explore has no convolution kernel: use another --method, or --set blur_model=convolution")
    if name == "operator":
        of = blur_operator.operator("operator", weights_folder(weights))
        net = KernelDip(max(of.width // 8, 1), of.width)  # the authors' proportion, 64 to 512
        generator = free_code(of) if kernel_net == "free" else dip_code(of, net, noise)
        return generator, of.blur, lambda e, y: MethodOutput(e.image, shown_kernel(of, e.image, e.kernel, shape))
    if name == "bicubic":
        return fixed(delta_kernel(shape)), _bicubic, lambda e, y: MethodOutput(*e)
    if kernel is None:
        generator = kernel_generator("free" if kernel_net == "free" else "mlp", shape, Skip, noise)
    else:
        generator = fixed(kernel)
    # the picture has the size of the blurred one, so what lies outside is made up of its edge
    return generator, lambda x, k: blur(pad_edge(x, shape), k), lambda e, y: MethodOutput(*e)


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
    """min rho(y, F(x, k)) + lambda ||k||_2 + gamma (g_u^2(x) + g_v^2(x))^(alpha/2), x = G_x(z_x), k = G_k(z_k) (Eq. 6).

    F is the trained blur-operator family of `weights` (a folder; empty: the shipped one), with no convolution assumed;
    k a code of 1/128 of the picture's size. x has the size of y. G_x is the skip network, fed as in `selfdeblur`; G_k
    a network ("dip") or a free code ("free"). With a kernel to start from, the first x is the picture's deconvolution
    with it, which the skip network changes, and the first code that of G between the two.

    image_net: "dip"; or "stylegan2", section 3.3: x = G(w), pictures of one domain, with the generator in the file
    `generator`, the latents on their spheres, `geocross` times their angles in the loss, a `one_cycle` rate, and the
    estimate with the lowest loss as the answer; or "lines", the same for gray lines of text with jbid's own generator.
    blur_model: "operator"; for comparison "convolution" with a kernel of `kernel_size`, by SelfDeblur's network or
    free, or "bicubic", which only makes the picture smaller and larger.

    scheme: "joint", both at once (published code); "alternating", kernel_steps of k, then image_steps of x, and so on:
    with a deep image prior k begins anew each time but the first (Algorithm 1), on a manifold x comes first and k goes
    on. loss, of weight loss_weight: rho: "ssim" 1 - SSIM; "charbonnier" the paper's; "mse"; "perceptual" the published
    code's, 0.6 times the distance of VGG19 features + 1 - SSIM, later the distance alone, with the weights in the file
    `vgg`. warm_up: first steps, in which x approaches y and k stays; with a kernel to start from better 0. second_from:
    steps after it at which the weights of `kernel_weights` (lambda) and `sparse_weights` (gamma, alpha 0.66) change to
    the second ones. Rates fall by 0.7 each `decay_every` steps, or by a cosine to zero. kernel_size: of the convolution
    kernel that is shown of the code.

    The defaults are the published code's, but for the perceptual loss, whose weights jbid cannot bring along;
    configs/explore_manifold.toml has those on a manifold.

    Differs from the authors' code: no start from a stored code, which was never published; the answer with a deep
    image prior is the networks' output after the last update; the latents' statistics come from fixed codes.

    Raises ValueError for missing weights, unknown names, numbers out of range, a picture that the generator cannot
    make, and a known kernel where there is no convolution.
    """
    for name, pair in (("kernel_weights", kernel_weights), ("sparse_weights", sparse_weights)):
        if len(pair) != 2 or min(pair) < 0:
            raise ValueError(f"got {name} {pair}, expected two numbers of at least 0")
    hints, given = get_type_hints(explore), locals()
    for name in ("image_net", "blur_model", "kernel_net", "scheme", "loss", "schedule"):
        if given[name] not in (known := get_args(hints[name])):
            raise ValueError(f"got {name} {given[name]!r}, expected one of {', '.join(known)}")
    numbers = dict(image_lr=image_lr, kernel_lr=kernel_lr, loss_weight=loss_weight)
    numbers |= dict(channels=channels, skip_channels=skip_channels, scales=scales, decay_every=decay_every)
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"got {name} {number}, expected a number above 0")
    counts = dict(warm_up=warm_up, second_from=second_from, input_noise=input_noise, geocross=geocross)
    for name, number in counts.items():
        if not number >= 0:
            raise ValueError(f"got {name} {number}, expected at least 0")
    if 0 < steps <= warm_up:
        raise ValueError(f"got steps {steps}, expected more than the {warm_up} of warm_up; add --set warm_up=N")
    shape = kernel_shape(kernel_size, kernel)
    main, turns = max(steps - warm_up, 1), None
    count = Estimate(main, main)  # steps of each after the warm-up
    if scheme == "alternating":
        turns = (kernel_steps, image_steps)
        if min(turns) < 1:
            raise ValueError(f"got kernel_steps {kernel_steps}, image_steps {image_steps}, expected at least 1 of each")
        rounds, rest = divmod(main, sum(turns))
        if steps and rest:
            what = f"{warm_up} of warm-up and whole rounds of turns, {kernel_steps} + {image_steps}"
            raise ValueError(f"got steps {steps}, expected {what}, such as {warm_up + (rounds + 1) * sum(turns)}")
        count = Estimate(rounds * image_steps, kernel_steps if image_net == "dip" else rounds * kernel_steps)

    def rate(first: float, count: int, after: int = 0) -> optax.Schedule:
        if schedule == "cosine":
            decayed = optax.cosine_decay_schedule(first, max(count, 1))
        else:
            decayed = optax.exponential_decay(first, decay_every, 0.7, staircase=True)
        return lambda t: decayed(jnp.maximum(t - after, 0))

    tx = Estimate(optax.adam(rate(image_lr, count.image, after=warm_up)), optax.adam(rate(kernel_lr, count.kernel)))
    code, forward, restore = _blur_model(blur_model, kernel_net, shape, weights, input_noise, kernel)
    objective = _objective(loss, loss_weight, warm_up, second_from, kernel_weights, sparse_weights, vgg)
    if image_net == "dip":
        net = Skip(
            scales=scales,
            channels=channels,
            skip_channels=skip_channels,
            out_channels=out_channels,
            non_local_from=None,
            padding="zero",
        )
        inner = network_generator(net, partial(_seen_whole, channels=channels), noise=input_noise)
        image = changed(inner, lambda y: y.shape, _deconvolved)
        engine = partial(deep_prior, renewed=turns is not None)
    else:
        image = _lines(weights) if image_net == "lines" else _style(generator)
        free = optax.adam(one_cycle(image_lr, warm_up + count.image))
        moved = spherical(free)
        if image_net == "lines":
            moved = optax.partition({"sphere": moved, "free": free}, {"latents": "sphere", "levels": "free"})
        tx = tx._replace(image=moved)
        # the latents of a line stand for different letters, and have nothing to be near to
        near = geocross_penalty(geocross) if image_net == "stylegan2" else None
        engine = partial(deep_prior, image_first=True, penalty=near)
    method = engine(image, code, loss=objective, tx=tx, forward=forward, restore=restore, hold=warm_up, turns=turns)
    if image_net == "dip":
        return method
    # losses of other weights cannot be compared
    same = loss != "perceptual" and all(first == second for first, second in (kernel_weights, sparse_weights))
    return lowest_loss(method, (warm_up,) if same else (warm_up, warm_up + second_from))


PRESETS: dict[str, dict[str, Any]] = {
    "paper": dict(steps=5300, start="random", color="rgb", finish=False),
    "quick": dict(
        steps=80,
        start="edges",
        color="rgb",
        finish=False,
        channels=32,
        kernel_net="free",
        loss="charbonnier",
        sparse_weights=[0.05, 0.05],
        warm_up=0,
        image_lr=1e-4,
        kernel_lr=1e-2,
        schedule="cosine",
    ),
    "instant": dict(steps=0, start="edges", patch=512),
}
