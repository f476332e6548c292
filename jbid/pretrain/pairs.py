"""jbid.pretrain.pairs."""

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

HELD_OUT = 50  # pairs that similarities are measured on


class Settings(NamedTuple):
    """What a training of the initializer goes by; the defaults are the authors', with 60 epochs of 100,000 pairs.

    photos: a folder or a TFDS data set, `jbid.data.crops`. size: of the kernels; crop: side of the blurred crops, which
    for other sizes in `pool` is larger or smaller by twice the difference.
    input: "picture", a ResNet-18 of `width` channels that gives z = E(y); or "edges", a `KernelCorrector` of `width`
    channels that is given the estimates of `jbid.auto.edge_start`. weights: a folder of weights with the generator
    for "picture"; empty for the shipped ones. outer: whether G(E(y)) is led to the true kernel (published code) or to
    the inner optimization's (paper, Eq. 4). inner_steps and inner_rate: of that optimization by Adam; code_weight: of
    the distance to its code. milestones: steps at which the rate falls to a tenth. pool: number of pairs made for
    "edges" by kernel size, whose estimates take 0.7 (31) to 4 s (75) each; a batch is of one size, in the proportion of
    these numbers. shares: as for the generator. The rest: `Degradation`.
    """

    photos: str = ""
    size: int = 31
    steps: int = 46875
    batch: int = 128
    crop: int = 256
    input: Literal["picture", "edges"] = "picture"
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


class Pair(NamedTuple):
    """Blurred pictures (n, h, w), or edge-based kernels and fits (n, m, 2, s, s), and the true kernels (n, s, s)."""

    seen: Any
    kernel: Any


def pair_maker(settings: Settings, held_out: bool) -> Callable[[int, int], Pair]:
    """(first, n) -> n pairs of degraded blurred crops and kernels, the same ones each time."""
    seed = settings.seed + held_out
    source = crops(settings.photos, settings.crop + settings.size - 1, seed, held_out=held_out)
    most = Degradation(settings.noise, settings.gamma, settings.jpeg, settings.rounded, settings.clean)

    @jit
    def made(key, sharp):
        for_kernel, for_camera = jax.random.split(key)
        kernel = motion.mixed_kernels(for_kernel, settings.size, len(sharp), settings.shares)
        blurred = jax.vmap(blur)(sharp[..., None], kernel)[..., 0]
        return Pair(jax.vmap(partial(degrade, most=most))(jax.random.split(for_camera, len(sharp)), blurred), kernel)

    def pairs(first: int, n: int) -> Pair:
        sharp = np.stack([source[i] for i in range(first, first + n)])
        return made(jax.random.fold_in(jax.random.key(seed), first), sharp)

    return pairs


def mean_similarity(kernels: NDArray, truth: NDArray) -> float:
    return float(np.mean([kernel_similarity(k, t) for k, t in zip(np.asarray(kernels), np.asarray(truth))]))
