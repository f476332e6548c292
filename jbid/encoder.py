"""The learned initializers: a kernel to set out from, read off the picture or made of edge-based estimates."""

from __future__ import annotations

import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jbid import weights
from jbid.auto import KEPT, EdgeStart, chosen_first, deconvolved, fitted_to, framed, judge, support
from jbid.nets.corrector import KernelCorrector
from jbid.nets.dcgan import KernelGenerator
from jbid.nets.resnet import KernelEncoder
from jbid.run import compiled
from jbid.score import best_shift, moved
from jbid.start import pruned, refined

REFINEMENTS = 3  # of a kernel that was read off


@functools.lru_cache(maxsize=8)
def _reader(size: int, width: int):
    def read(generator, encoder, picture):
        z = KernelEncoder(width).apply(encoder, picture[None])
        return KernelGenerator(size).apply(generator, z)[0]

    return compiled(read)


@functools.lru_cache(maxsize=8)
def _corrector(width: int):
    return compiled(lambda variables, seen: KernelCorrector(width).apply(variables, seen[None])[0])


@functools.cache
def _refiner():
    def better(picture, kernel):
        # a network leaves a little everywhere, which takes from what a fit finds
        return refined(picture, pruned(kernel, part=0.05), jnp.asarray(max(kernel.shape))).kernel

    return compiled(better)


def estimates(edges: EdgeStart, size: int) -> NDArray[np.float32]:
    """What a corrector sees of the edges: (`KEPT`, 2, size, size), kernel and fit, best first and all moved onto it."""
    best = fitted_to(edges.kernels[0], size)
    seen = []
    for i in range(KEPT):
        # the best one again where there is no other
        j = i if i < len(edges.fits) else 0
        middle = support(edges.kernels[j])
        kernel, fit = fitted_to(edges.kernels[j], size), framed(edges.fits[j], middle, size)
        shift = best_shift(kernel, best)
        seen.append([moved(kernel, shift, best.shape), moved(fit, shift, best.shape)])
    return np.asarray(seen, np.float32)


def read_off(edges: EdgeStart, size: int, folder: str | Path = weights.SHIPPED) -> NDArray[np.float32]:
    """The kernel (size, size), sum one, that the initializer in a folder of weights gives for the picture of `edges`.

    Where the folder has `initializer_<size>`, G(E(y)) of the picture itself (Zhang et al. 2024, section 3.2); else what
    its `corrector`, or the shipped one, makes of the estimates from edges. Raises ValueError for damaged weights.
    """
    known = weights.manifest(folder)
    name = f"initializer_{size}"
    if f"{name}.npz" in known:
        read = _reader(size, known[f"{name}.npz"]["settings"]["width"])
        generator, encoder = weights.load(f"generator_{size}", folder), weights.load(name, folder)
        return np.asarray(read(generator, encoder, jnp.asarray(edges.picture)))
    source = folder if "corrector.npz" in known else weights.SHIPPED
    variables = weights.load("corrector", source)
    correct = _corrector(weights.manifest(source)["corrector.npz"]["settings"]["width"])
    return np.asarray(correct(variables, jnp.asarray(estimates(edges, size))))


def encoded(edges: EdgeStart, size: int, folder: str | Path = weights.SHIPPED) -> NDArray[np.float32]:
    """The kernel of `read_off`, improved by `REFINEMENTS` fits to the picture (`jbid.start.refined`).

    Where it has failed, or looks worse than the best estimate from edges (`jbid.score`), that estimate.
    """
    picture = jnp.asarray(edges.picture)
    kernel = jnp.asarray(read_off(edges, size, folder))
    for _ in range(REFINEMENTS):
        kernel = _refiner()(picture, kernel)
    both = [fitted_to(edges.kernel, size), np.asarray(kernel)]
    judged = judge(edges.picture, deconvolved(edges.picture, both), both, ["edges", "encoder"])
    return both[chosen_first(judged)[0]]
