"""Trained blur-operator family on single images of any size: F(x, k), k = G(x, y) (Tran et al., CVPR 2021)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbid.io import weights
from jbid.nets.kernel_wizard import STRIDE, KernelWizard
from jbid.nets.wizards import Wizard, build_wizard

CODE_DEVIATION = 1.2  # standard deviation of the codes that the authors draw
SHARED_VARIANCE = 0.9


class Codes(NamedTuple):
    """Normal distribution N(mean, factor factor^T) of codes, with shapes (d,) and (d, d)."""

    mean: Array
    factor: Array


def code_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of the code of an image of this shape: one place per `STRIDE` pixels, rounded up."""
    return -(-shape[0] // STRIDE), -(-shape[1] // STRIDE)


def _padding(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    missing = [places * STRIDE - n for places, n in zip(code_shape(shape), shape[:2])]
    return [(n // 2, n - n // 2) for n in missing]


def pad_to_stride(image: Float[Array, "h w c"]) -> Float[Array, "H W c"]:
    """Image mirrored on all sides up to multiples of `STRIDE`."""
    return jnp.pad(image, [*_padding(image.shape), (0, 0)], mode="symmetric")


def crop_to_shape(image: Float[Array, "H W c"], shape: tuple[int, ...]) -> Float[Array, "h w c"]:
    """Inverse of `pad_to_stride` for an image of this shape."""
    (top, _), (left, _) = _padding(shape)
    return image[top : top + shape[0], left : left + shape[1]]


def resize_code(code: Float[Array, "a b d"], places: tuple[int, int]) -> Float[Array, "A B d"]:
    """Code for an image of another size: interpolated between its places, so that each blur stays in its place."""
    return code if code.shape[:2] == places else jax.image.resize(code, (*places, code.shape[-1]), "linear")


class Operator(NamedTuple):
    """F and G with their weights, as pure functions of single images of any size, (h, w, 1 or 3) in [0, 1].

    A gray image goes through all channels of a network that has three.

    Attributes:
        extract: extract(sharp, blurred) is mean and deviation of the code (a, b, width) of the blur between two images
            of one size; the deviation is zero without a VAE.
        blur: blur(image, code) is the blurred image (h, w, c), whose range is not enforced; `resize_code` adapts a
            code of another size.
        width: of a code.
        codes: distribution of the codes of the training's blurs; None without a VAE.
    """

    extract: Callable[[Array, Array], tuple[Array, Array]]
    blur: Callable[[Array, Array], Array]
    width: int
    codes: Codes | None


def from_network(net: Wizard, variables: Any) -> Operator:
    """Operator of a network and its variables, whose collection "codes" holds the distribution of codes."""

    def to_batch(image):
        channels = 3 if isinstance(net, KernelWizard) else image.shape[-1]
        sides = (n * STRIDE for n in code_shape(image.shape))
        return jnp.broadcast_to(pad_to_stride(image), (*sides, channels))[None]

    def extract(sharp, blurred):
        if sharp.shape[:2] != blurred.shape[:2]:
            raise ValueError(f"`sharp` and `blurred` must have the same size, got {sharp.shape} and {blurred.shape}")
        mean, deviation = net.apply(variables, to_batch(sharp), to_batch(blurred), method="extract")[:2]
        return mean[0], deviation[0]

    def blur(image, code):
        places = resize_code(code, code_shape(image.shape))[None]
        blurred = crop_to_shape(net.apply(variables, to_batch(image), places, method="blur")[0], image.shape)
        return blurred if blurred.shape == image.shape else blurred.mean(-1, keepdims=True)

    width = net.widths.code
    codes = None
    if net.variational:
        stored = variables.get("codes") or {"mean": jnp.zeros(width), "factor": CODE_DEVIATION * jnp.eye(width)}
        codes = Codes(**{name: jnp.asarray(value) for name, value in stored.items()})
    return Operator(extract, blur, width, codes)


@functools.lru_cache(maxsize=4)
def operator(name: str = "operator", folder: str | Path = weights.SHIPPED) -> Operator:
    """Operator of a folder of weights.

    Raises:
        ValueError: if it is missing or damaged.
    """
    variables = weights.load(name, folder)
    settings = weights.manifest(folder)[f"{name}.npz"]["settings"]
    return from_network(build_wizard(settings["width"], settings["variational"]), variables)


def apply_blur(operator: Operator, target: Float[Array, "h w c"], code: Float[Array, "a b d"]) -> Float[Array, "h w c"]:
    """F(target, code) in [0, 1]; with the code G(x, y) of another pair, blur transfer (section 3.4)."""
    return jnp.clip(operator.blur(target, code), 0, 1)


def fit_codes(means: Float[Array, "n d"]) -> Codes:
    """Normal distribution with the mean and the covariance of codes (Ghosh et al., ICLR 2020, section 5)."""
    mean = jnp.mean(means, 0)
    values, vectors = jnp.linalg.eigh(jnp.cov(means, rowvar=False))
    return Codes(mean, vectors * jnp.sqrt(jnp.maximum(values, 0)))


def sample_code(
    operator: Operator, key: Array, shape: tuple[int, ...], shared: float = SHARED_VARIANCE
) -> Float[Array, "a b d"]:
    """Random code of `Operator.codes` for an image of this shape; all places share the part `shared` of the variance.

    In the authors' code the places share nothing, and k ~ N(0, 1.2^2), as for an operator without a stored
    distribution. F interpolates between places, where such codes average out, while camera shake moves the whole
    image. N(0, 1) is also unlike the codes of real blurs after a short training of the VAE.

    Raises:
        ValueError: for an operator that was trained without the VAE.
    """
    if operator.codes is None:
        raise ValueError("random blurs need an operator with a VAE: choose weights trained with `variational`")
    common, own = (
        jax.random.normal(k, (*n, operator.width)) for k, n in zip(jax.random.split(key), ((1, 1), code_shape(shape)))
    )
    return operator.codes.mean + (jnp.sqrt(shared) * common + jnp.sqrt(1 - shared) * own) @ operator.codes.factor.T
