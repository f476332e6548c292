"""Generators that methods share: image priors and kernel priors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jbid.engine.fitting import fit_kernel
from jbid.engine.options import check_choice, compute_dtype
from jbid.nets.mlp import KernelMLP
from jbid.nets.skip import Skip, Squeezed
from jbid.types import Generator


def network_generator(
    net: nn.Module, shape: Callable[[Array], tuple[int, ...]], *, scale: float = 0.1, noise: float = 0.0
) -> Generator:
    """A Flax network fed with a fixed input z ~ U(0, scale).

    Args:
        net: the network; its weights are optimized.
        shape: shape of z for a blurred image.
        scale: upper bound of z.
        noise: standard deviation of the Gaussian noise that perturbs z in each step.
    """

    def init(key, blurred):
        z_key, net_key = jax.random.split(key)
        z = jax.random.uniform(z_key, shape(blurred), maxval=scale)
        return net.init(net_key, z), z

    def apply(params, z, key):
        if key is not None and noise:
            z = z + noise * jax.random.normal(key, z.shape)
        return net.apply(params, z)

    return Generator(init, apply)


def image_prior(
    frame: tuple[int, int],
    *,
    out_channels: int,
    channels: int = 128,
    skip_channels: int = 16,
    scales: int = 5,
    non_local: bool = False,
    noise: float = 1e-3,
    dtype: str = "float32",
    padding: str = "reflect",
    check: Callable[[Array], None] | None = None,
) -> Generator:
    """The deep image prior of SelfDeblur: a skip network fed with z ~ U(0, 0.1) in 8 channels.

    Args:
        frame: the image is larger than the blurred one by frame - 1, so by a kernel of this shape; (1, 1): as large.
        out_channels: channels of the image, in [0, 1].
        channels: channels of the network at each scale.
        skip_channels: channels of the skip connections.
        scales: number of scales.
        non_local: non-local blocks from the third scale on.
        noise: standard deviation of the perturbation of z in each step.
        dtype: "float32" or "bfloat16", what the network computes in.
        padding: "reflect" or "zero", of the convolutions.
        check: raises ValueError for a blurred image that the network cannot take.
    """
    net = Skip(
        channels=channels,
        skip_channels=skip_channels,
        scales=scales,
        out_channels=out_channels,
        non_local_from=2 if non_local else None,
        padding=padding,
        dtype=compute_dtype(dtype),
    )

    def shape(blurred):
        if check is not None:
            check(blurred)
        return latent_shape(frame, 8, blurred)

    return network_generator(net, shape, noise=noise)


def free_kernel(shape: tuple[int, int]) -> Generator:
    """k = softmax(logits) with one free logit per pixel, uniform at first: a kernel without any other prior."""

    def fit(params, code, init_kernel):
        return jnp.log(init_kernel / init_kernel.sum() + 1e-3 / init_kernel.size)

    return Generator(
        lambda key, blurred: (jnp.zeros(shape), {}),
        lambda params, code, key: jax.nn.softmax(params.ravel()).reshape(shape),
        fit,
    )


def fixed(value: Array) -> Generator:
    """A generator without parameters, which always gives `value`: a known kernel makes a method non-blind."""
    return Generator(lambda key, blurred: ({}, jnp.asarray(value)), lambda params, code, key: code)


HIDDEN = {"mlp": (1000,), "linear": (), "deep_mlp": (1000, 1000)}
KERNEL_NETS = (*HIDDEN, "skip", "free")


def kernel_prior(
    name: str,
    shape: tuple[int, int],
    *,
    channels: int = 128,
    skip_channels: int = 16,
    scales: int = 5,
    noise: float = 1e-3,
) -> Generator:
    """Kernel generators with softmax output, by name (Ren et al. 2020, Table 2).

    Args:
        name: "mlp", "linear" or "deep_mlp": fully connected, with one hidden layer, none or two, fed with U(0, 0.1)
            in 200 dimensions; "skip": an image network; "free": `free_kernel`.
        shape: rows and columns of the kernel.
        channels: of the network "skip", like `skip_channels`, `scales` and the input perturbation `noise`.

    Raises:
        ValueError: for another name.
    """
    check_choice("kernel_net", name, KERNEL_NETS)
    if name == "free":
        return free_kernel(shape)
    if name == "skip":
        net = Skip(scales=scales, channels=channels, skip_channels=skip_channels, output="softmax", non_local_from=None)
        prior = network_generator(Squeezed(net), lambda blurred: (*shape, 8), noise=noise)
    else:
        prior = network_generator(KernelMLP(shape, HIDDEN[name]), lambda blurred: (200,))
    return prior._replace(fit=partial(fit_kernel, lambda params, z: prior.apply(params, z, None)))


def kernel_shape(kernel_size: int | Sequence[int], kernel: Array | None = None) -> tuple[int, int]:
    """Rows and columns of a kernel of this size.

    Raises:
        ValueError: for a side that is not a positive odd number, and for a known `kernel` of another shape.
    """
    sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
    for side in sides:
        if side < 1 or side % 2 == 0:
            raise ValueError(f"`kernel_size` must be a positive odd number, got {side}. Try {side // 2 * 2 + 1}.")
    if kernel is not None and kernel.shape != sides:
        raise ValueError(f"`kernel` must have the shape {sides} of `kernel_size`, got {kernel.shape}")
    return sides[0], sides[1]


def latent_shape(frame: tuple[int, int], channels: int, blurred: Array) -> tuple[int, int, int]:
    """Shape of the latent image that a kernel of shape `frame` sees: h + kh - 1, w + kw - 1, `channels`."""
    return blurred.shape[0] + frame[0] - 1, blurred.shape[1] + frame[1] - 1, channels
