"""A trained blur-operator family on single images of any size: F(x, k), k = G(x, y) (Tran et al., CVPR 2021)."""

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
    """The normal distribution N(mean, factor factor^T) of codes, (d,) and (d, d)."""

    mean: Array
    factor: Array


def code_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of the code of an image of this shape: one place to each `STRIDE` pixels begun."""
    return -(-shape[0] // STRIDE), -(-shape[1] // STRIDE)


def _room(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    missing = [places * STRIDE - n for places, n in zip(code_shape(shape), shape[:2])]
    return [(n // 2, n - n // 2) for n in missing]


def pad_to_stride(image: Float[Array, "h w c"]) -> Float[Array, "H W c"]:
    """The image mirrored on all sides up to multiples of `STRIDE`."""
    return jnp.pad(image, [*_room(image.shape), (0, 0)], mode="symmetric")


def crop_to_shape(image: Float[Array, "H W c"], shape: tuple[int, ...]) -> Float[Array, "h w c"]:
    """The part of a `padded` image that is the image of this shape."""
    (top, _), (left, _) = _room(shape)
    return image[top : top + shape[0], left : left + shape[1]]


def resize_code(code: Float[Array, "a b d"], places: tuple[int, int]) -> Float[Array, "A B d"]:
    """A code for an image of another size: interpolated between its places, so a blur stays where it was."""
    return code if code.shape[:2] == places else jax.image.resize(code, (*places, code.shape[-1]), "linear")


class Operator(NamedTuple):
    """F and G with their weights, as pure functions of single images of any size, (h, w, 1 or 3) in [0, 1].

    `extract(sharp, blurred)` gives mean and deviation of the code (a, b, `width`) of the blur between two images of
    one size, the deviation zero without a VAE; `blur(image, code)` the image (h, w, c) with that blur, its range
    not enforced; a code for another size is interpolated (`fitted`). A gray image goes through all channels of
    a network that has three. `codes` is how the codes of the training's blurs are distributed, None without a VAE.
    """

    extract: Callable[[Array, Array], tuple[Array, Array]]
    blur: Callable[[Array, Array], Array]
    width: int
    codes: Codes | None


def from_network(net: Wizard, variables: Any) -> Operator:
    """An operator from a network and its variables, whose collection "codes" holds the distribution of codes."""

    def in_color(image):
        colors = 3 if isinstance(net, KernelWizard) else image.shape[-1]
        return jnp.broadcast_to(pad_to_stride(image), (*(n * STRIDE for n in code_shape(image.shape)), colors))[None]

    def extract(sharp, blurred):
        if sharp.shape[:2] != blurred.shape[:2]:
            raise ValueError(f"got a sharp image {sharp.shape} and a blurred one {blurred.shape}, expected one size")
        told = net.apply(variables, in_color(sharp), in_color(blurred), method="extract")
        return told[0][0], told[1][0]

    def blur(image, code):
        made = net.apply(variables, in_color(image), resize_code(code, code_shape(image.shape))[None], method="blur")[0]
        made = crop_to_shape(made, image.shape)
        return made if made.shape == image.shape else made.mean(-1, keepdims=True)

    width = net.widths.code
    codes = None
    if net.variational:
        known = variables.get("codes") or {"mean": jnp.zeros(width), "factor": CODE_DEVIATION * jnp.eye(width)}
        codes = Codes(**{name: jnp.asarray(value) for name, value in known.items()})
    return Operator(extract, blur, width, codes)


@functools.lru_cache(maxsize=4)
def operator(name: str = "operator", folder: str | Path = weights.SHIPPED) -> Operator:
    """The operator `name` of a folder of weights. Raises ValueError where it is missing or damaged."""
    variables = weights.load(name, folder)
    said = weights.manifest(folder)[f"{name}.npz"]["settings"]
    return from_network(build_wizard(said["width"], said["variational"]), variables)


def apply_blur(of: Operator, target: Float[Array, "h w c"], code: Float[Array, "a b d"]) -> Float[Array, "h w c"]:
    """F(target, code) in [0, 1]; with the code G(x, y) of another pair, blur transfer (section 3.4)."""
    return jnp.clip(of.blur(target, code), 0, 1)


def fit_codes(means: Float[Array, "n d"]) -> Codes:
    """The normal distribution with the mean and the covariance of codes (Ghosh et al., ICLR 2020, section 5)."""
    mean = jnp.mean(means, 0)
    values, vectors = jnp.linalg.eigh(jnp.cov(means, rowvar=False))
    return Codes(mean, vectors * jnp.sqrt(jnp.maximum(values, 0)))


def sample_code(
    of: Operator, key: Array, shape: tuple[int, ...], alike: float = SHARED_VARIANCE
) -> Float[Array, "a b d"]:
    """A random code of `Operator.codes` for an image of this shape; all places have `alike` of the variance in common.

    In the authors' code they have nothing in common, and k ~ N(0, 1.2^2), as for an operator whose weights do not tell
    how codes are distributed. F interpolates between places, where such codes average out, and a hand shakes the whole
    image; N(0, 1) is not what a briefly trained VAE's codes of real blurs are spread like.

    Raises ValueError for an operator that was trained without the VAE.
    """
    if of.codes is None:
        raise ValueError("blurs can be drawn from an operator with a VAE alone; use weights trained with variational")
    common, own = (
        jax.random.normal(k, (*n, of.width)) for k, n in zip(jax.random.split(key), ((1, 1), code_shape(shape)))
    )
    return of.codes.mean + (jnp.sqrt(alike) * common + jnp.sqrt(1 - alike) * own) @ of.codes.factor.T
