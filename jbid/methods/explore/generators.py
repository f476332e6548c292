"""Generators of `explore`: codes of the blur operator, images that a network changes, images on a manifold."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jbid.deconvolution.sparse import deconvolve_gray
from jbid.engine.generators import image_prior, network_generator
from jbid.io import torch_weights
from jbid.io.weights import load, weights_folder
from jbid.methods.explore.blur_operator import Operator, code_shape
from jbid.methods.explore.manifold import fit_gaussian, line_manifold, style_manifold
from jbid.nets import stylegan2
from jbid.nets.kernel_wizard import KernelDip
from jbid.nets.text_lines import LineDecoder
from jbid.ops.conv import crop_center
from jbid.types import Generator

LARGEST = 48_000_000  # values in a feature map at full size: some 10 GB


def _deconvolve(blurred: Array, kernel: Array) -> Array:
    """Short sparse deconvolution of each channel, on the observed window."""
    latent = jax.vmap(lambda y: deconvolve_gray(y, kernel), -1, -1)(blurred)
    return jnp.clip(crop_center(latent, kernel.shape), 0, 1)


def _initial_code(operator: Operator, blurred: Array, kernel: Array) -> Array:
    """Code of the blur between an image and its deconvolution with a kernel."""
    return operator.extract(_deconvolve(blurred, kernel), blurred)[0]


def residual_generator(
    inner: Generator, shape: Callable[[Array], tuple[int, ...]], first: Callable[[Array, Array], Array]
) -> Generator:
    """x = first(y, k_0) + G(z) - G_0(z): a network changes an initial image or code.

    Without an initial kernel k_0, x = G(z).

    Args:
        inner: generator G; G_0 is G with its initial parameters.
        shape: shape of x for a blurred image y.
        first: the initial image or code.
    """

    def init(key, blurred):
        params, z = inner.init(key, blurred)
        return {"net": params, "from": jnp.zeros(shape(blurred))}, (z, blurred)

    def apply(params, code, key):
        return jax.lax.stop_gradient(params["from"]) + inner.apply(params["net"], code[0], key)

    def fit(params, code, init_kernel):
        z, blurred = code
        # G_0 is subtracted, so that the first output is the initial image or code itself
        return params | {"from": first(blurred, init_kernel) - inner.apply(params["net"], z, None)}

    return Generator(init, apply, fit)


def free_code(operator: Operator) -> Generator:
    """A code of free values, U(0, 0.1) at first, without any other prior.

    The fit to an initial kernel is the code between the image and its deconvolution. The values do not begin at zero,
    because F applies a ReLU to the code, which has no gradient there.
    """

    def init(key, blurred):
        return jax.random.uniform(key, (*code_shape(blurred.shape), operator.width), maxval=0.1), blurred

    def fit(params, code, init_kernel):
        return _initial_code(operator, code, init_kernel)

    return Generator(init, lambda params, code, key: params, fit)


def dip_code(operator: Operator, net: KernelDip, noise: float) -> Generator:
    """A code k = G_k(z_k) of a network fed with z_k ~ U(0, 0.1), perturbed by N(0, noise^2) in each step.

    With an initial kernel, the network changes the code between the image and its deconvolution.
    """

    def shape(blurred):
        return *(32 * n for n in code_shape(blurred.shape)), net.features

    inner = network_generator(net, shape, noise=noise)
    return residual_generator(inner, lambda y: (*code_shape(y.shape), net.code), partial(_initial_code, operator))


def residual_image(*, out_channels: int, channels: int, skip_channels: int, scales: int, noise: float) -> Generator:
    """Image of the size of y by the skip network, which changes the deconvolution with an initial kernel."""

    def check(blurred):
        h, w = blurred.shape[:2]
        if h * w * channels > LARGEST:
            raise ValueError(
                f"the image of explore must have at most {LARGEST / channels / 1e6:.1f} million pixels, got {w}x{h}. "
                "Make it smaller or, for uniform blur, set `patch` = 384 and `deconvolve` = True."
            )

    inner = image_prior(
        (1, 1),
        out_channels=out_channels,
        channels=channels,
        skip_channels=skip_channels,
        scales=scales,
        noise=noise,
        padding="zero",
        check=check,
    )
    return residual_generator(inner, lambda y: y.shape, _deconvolve)


@functools.lru_cache(maxsize=2)
def style_images(path: str) -> Generator:
    """Images on the manifold of a StyleGAN2 generator.

    Raises:
        ValueError: for a file that is not such a generator, and for images that it cannot make.
    """
    weights = torch_weights.stylegan2(path)
    width = weights["style.1.weight"].shape[1]
    statistics = fit_gaussian(partial(stylegan2.mapping, weights), jax.random.key(0), width)
    manifold, shape = style_manifold(weights, statistics), stylegan2.shape(weights)

    def init(key, blurred):
        if blurred.shape != shape:
            expected = "{1}x{0} pixels in {2} channels".format(*shape)
            got = "{1}x{0} in {2}".format(*blurred.shape)
            hint = "Crop and resize it." if blurred.shape[-1] == shape[-1] else 'Set `color` to "rgb".'
            raise ValueError(f"{path}: the image must have {expected}, got {got}. {hint}")
        return manifold.init(key, blurred)

    return manifold._replace(init=init)


def line_images(weights: str) -> Generator:
    """Gray lines of text, on the manifold of the generator in a folder of weights (empty: the shipped one)."""
    decoder, variables = LineDecoder(), load("lines", weights_folder(weights))
    return line_manifold(lambda latents: jnp.asarray(decoder.apply(variables, latents)))
