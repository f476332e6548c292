"""jbid.engine.generators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jbid.engine.fitting import fit_kernel
from jbid.nets.mlp import KernelMLP
from jbid.nets.skip import Squeezed
from jbid.types import Generator


def network_generator(
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
        made = network_generator(net, lambda blurred: (*shape, 8), noise=noise)
    elif name in HIDDEN:
        made = network_generator(KernelMLP(shape, HIDDEN[name]), lambda blurred: (200,))
    else:
        raise ValueError(f"got kernel_net {name!r}, expected one of {', '.join(KERNEL_NETS)}")
    return made._replace(fit=partial(fit_kernel, lambda params, z: made.apply(params, z, None)))
