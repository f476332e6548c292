"""The learned initializers: a kernel to set out from, read off the picture or made of edge-based estimates."""

from __future__ import annotations

import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jbid.io import weights
from jbid.kernel_estimation.ranking import latent_images, order_candidates, rank_candidates
from jbid.kernel_estimation.refine import refine_kernel
from jbid.kernel_estimation.search import KEPT, KernelEstimate
from jbid.nets.corrector import KernelCorrector
from jbid.nets.kernel_gan import KernelGenerator
from jbid.nets.resnet import KernelEncoder
from jbid.ops.kernels import best_shift, crop_around, place_kernel, prune_kernel, shift_array, support
from jbid.runtime.compile import jit

REFINEMENTS = 3  # of a kernel that was read off


@functools.lru_cache(maxsize=8)
def _reader(size: int, width: int):
    def read(generator, encoder, picture):
        z = KernelEncoder(width).apply(encoder, picture[None])
        return KernelGenerator(size).apply(generator, z)[0]

    return jit(read)


@functools.lru_cache(maxsize=8)
def _corrector(width: int):
    return jit(lambda variables, seen: KernelCorrector(width).apply(variables, seen[None])[0])


@functools.cache
def _refiner():
    def better(picture, kernel):
        # a network leaves a little everywhere, which takes from what a fit finds
        return refine_kernel(picture, prune_kernel(kernel, part=0.05), jnp.asarray(max(kernel.shape))).kernel

    return jit(better)


def corrector_input(edges: KernelEstimate, size: int) -> NDArray[np.float32]:
    """What a corrector sees of the edges: (`KEPT`, 2, size, size), kernel and fit, best first and all moved onto it."""
    best = place_kernel(edges.kernels[0], size)
    seen = []
    for i in range(KEPT):
        # the best one again where there is no other
        j = i if i < len(edges.fits) else 0
        middle = support(edges.kernels[j])
        kernel, fit = place_kernel(edges.kernels[j], size), crop_around(edges.fits[j], middle, size)
        shift = best_shift(kernel, best)
        seen.append([shift_array(kernel, shift, best.shape), shift_array(fit, shift, best.shape)])
    return np.asarray(seen, np.float32)


def predict_kernel(edges: KernelEstimate, size: int, folder: str | Path = weights.SHIPPED) -> NDArray[np.float32]:
    """The kernel (size, size), sum one, that the initializer in a folder of weights gives for the picture of `edges`.

    Where the folder has `initializer_<size>`, G(E(y)) of the picture itself (Zhang et al. 2024, section 3.2); else what
    its `corrector`, or the shipped one, makes of the estimates from edges. Raises ValueError for damaged weights.
    """
    known = weights.manifest(folder)
    name = f"initializer_{size}"
    if f"{name}.npz" in known:
        read = _reader(size, known[f"{name}.npz"]["settings"]["width"])
        generator, encoder = weights.load(f"generator_{size}", folder), weights.load(name, folder)
        return np.asarray(read(generator, encoder, jnp.asarray(edges.image)))
    source = folder if "corrector.npz" in known else weights.SHIPPED
    variables = weights.load("corrector", source)
    correct = _corrector(weights.manifest(source)["corrector.npz"]["settings"]["width"])
    return np.asarray(correct(variables, jnp.asarray(corrector_input(edges, size))))


def learned_kernel(edges: KernelEstimate, size: int, folder: str | Path = weights.SHIPPED) -> NDArray[np.float32]:
    """The kernel of `read_off`, improved by `REFINEMENTS` fits to the picture (`jbid.start.refined`).

    Where it has failed, or looks worse than the best estimate from edges (`jbid.score`), that estimate.
    """
    picture = jnp.asarray(edges.image)
    kernel = jnp.asarray(predict_kernel(edges, size, folder))
    for _ in range(REFINEMENTS):
        kernel = _refiner()(picture, kernel)
    both = [place_kernel(edges.kernel, size), np.asarray(kernel)]
    judged = rank_candidates(edges.image, latent_images(edges.image, both), both, ["edges", "encoder"])
    return both[order_candidates(judged)[0]]
