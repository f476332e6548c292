"""Training pairs of the initializers: degraded blurred crops and their kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from jbid.data.crops import crops
from jbid.metrics import kernel_similarity
from jbid.ops import motion
from jbid.ops.camera import Degradation, degrade
from jbid.ops.conv import blur
from jbid.runtime.compile import jit


class Config(NamedTuple):
    """Settings of the training of an initializer; the defaults are the authors', with 60 epochs of 100,000 pairs.

    Attributes:
        photos: folder or TFDS data set, see `jbid.data.crops`.
        size: of the kernels.
        steps, batch: of the training.
        crop: side of the blurred crops; for other sizes in `pool` it changes by twice the difference.
        input: "image": a ResNet-18 of `width` channels, z = E(y); "edges": a `KernelCorrector` of `width` channels,
            whose input are edge-based estimates.
        weights: folder with the generator for "image"; empty: the shipped one.
        outer: target of G(E(y)): the true kernel ("truth", published code) or the inner optimization's ("inverted",
            paper, Eq. 4).
        inner_steps, inner_rate: of the inner optimization by Adam.
        code_weight: of the distance to the inner optimization's code.
        rate, schedule, milestones: the rate falls to a tenth at each milestone, or by a cosine to zero.
        pool: number of pairs for "edges" by kernel size; a batch has one size, in the proportion of these numbers.
        shares: of the kernel models, as for the generator.
        noise, gamma, jpeg, rounded, clean: see `Degradation`.
        seed: random seed.
        held_out: pairs that similarities are measured on.
        part: pairs in one file of the pool.
    """

    photos: str = ""
    size: int = 31
    steps: int = 46875
    batch: int = 128
    crop: int = 256
    input: Literal["image", "edges"] = "image"
    width: int = 64
    weights: str = ""
    outer: Literal["truth", "inverted"] = "truth"
    inner_steps: int = 100
    inner_rate: float = 0.01
    code_weight: float = 0.1
    rate: float = 1e-4
    schedule: Literal["milestones", "cosine"] = "milestones"
    milestones: tuple[int, ...] | list[int] = (31250, 39062)
    pool: Mapping[str, int] = {"31": 1000}
    shares: Mapping[str, float] = {"camera": 1.0}
    noise: float = 0.0
    gamma: float = 0.0
    jpeg: int = 100
    rounded: bool = False
    clean: float = 0.0
    seed: int = 0
    held_out: int = 50
    part: int = 50


class Pair(NamedTuple):
    """Inputs and kernels of a batch.

    Attributes:
        input: blurred images (n, h, w), or edge-based kernels and fits (n, m, 2, s, s).
        kernel: true kernels (n, s, s).
    """

    input: Any
    kernel: Any


def pair_maker(config: Config, held_out: bool) -> Callable[[int, int], Pair]:
    """A function (first, n) -> n pairs of degraded blurred crops and kernels, the same ones each time."""
    seed = config.seed + held_out
    source = crops(config.photos, config.crop + config.size - 1, seed, held_out=held_out)
    bounds = Degradation(config.noise, config.gamma, config.jpeg, config.rounded, config.clean)

    @jit
    def make(key, sharp):
        kernel_key, camera_key = jax.random.split(key)
        kernel = motion.mixed_kernels(kernel_key, config.size, len(sharp), config.shares)
        blurred = jax.vmap(blur)(sharp[..., None], kernel)[..., 0]
        keys = jax.random.split(camera_key, len(sharp))
        return Pair(jax.vmap(partial(degrade, bounds=bounds))(keys, blurred), kernel)

    def pairs(first: int, n: int) -> Pair:
        sharp = np.stack([source[i] for i in range(first, first + n)])
        return make(jax.random.fold_in(jax.random.key(seed), first), sharp)

    return pairs


def mean_similarity(kernels: NDArray, references: NDArray) -> float:
    """Mean `kernel_similarity` of kernels and their references."""
    pairs = zip(np.asarray(kernels), np.asarray(references))
    return float(np.mean([kernel_similarity(k, r) for k, r in pairs]))
