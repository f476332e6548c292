"""The learned initializers: a kernel to set out from, read off the picture or made of edge-based estimates."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jbid import weights
from jbid.auto import fitted_to
from jbid.nets.corrector import KernelCorrector
from jbid.nets.dcgan import KernelGenerator
from jbid.nets.resnet import KernelEncoder
from jbid.run import compiled
from jbid.score import aligned_mean

CANDIDATES = 3  # edge-based kernels that a corrector is shown, as in its training


@functools.lru_cache(maxsize=8)
def _reader(size: int, width: int):
    def read(generator, encoder, picture):
        z = KernelEncoder(width).apply(encoder, picture[None])
        return KernelGenerator(size).apply(generator, z)[0]

    return compiled(read)


@functools.lru_cache(maxsize=8)
def _corrector(width: int):
    return compiled(lambda variables, kernels: KernelCorrector(width).apply(variables, kernels[None])[0])


def estimates(kernels: Sequence[NDArray], size: int) -> NDArray[np.float32]:
    """Kernels of edges, best first, as a corrector sees them: (m, size, size), each moved onto the best."""
    fitted = [fitted_to(kernel, size) for kernel in kernels[:CANDIDATES]]
    return np.stack([aligned_mean([kernel], fitted[0]) for kernel in fitted])


def encoded(
    picture: NDArray[np.float32], size: int, kernels: Sequence[NDArray], folder: str | Path = weights.SHIPPED
) -> NDArray[np.float32]:
    """The kernel (size, size), sum one, that a folder's initializer makes of a gray picture (h, w) in [0, 1].

    Where the folder has `initializer_<size>`, G(E(y)) of the picture itself (Zhang et al. 2024, section 3.2); else what
    its `corrector` makes of `kernels`, the estimates from edges, best first. Raises ValueError where it has neither.
    """
    known = weights.manifest(folder)
    name = f"initializer_{size}"
    if f"{name}.npz" in known:
        read = _reader(size, known[f"{name}.npz"]["settings"]["width"])
        kernel = read(weights.load(f"generator_{size}", folder), weights.load(name, folder), jnp.asarray(picture))
    else:
        variables = weights.load("corrector", folder)
        correct = _corrector(known["corrector.npz"]["settings"]["width"])
        kernel = correct(variables, jnp.asarray(estimates(kernels, size)))
    return np.asarray(kernel)
