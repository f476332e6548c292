"""Learned initializers: initial kernels by a network, from the image or from edge-based estimates."""

from __future__ import annotations

import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jbid.io import weights
from jbid.kernel_estimation.ranking import latent_images, order_candidates, rank_candidates
from jbid.kernel_estimation.refine import refine_kernels
from jbid.kernel_estimation.scale_search import KEPT
from jbid.kernel_estimation.search import KernelEstimate
from jbid.nets.corrector import KernelCorrector
from jbid.nets.kernel_gan import KernelGenerator
from jbid.nets.resnet import KernelEncoder
from jbid.ops.kernels import best_shift, crop_around, place_kernel, prune_kernel, shift_array, support
from jbid.runtime.compile import jit

REFINEMENTS = 3  # of a predicted kernel


@functools.lru_cache(maxsize=8)
def _encoder(size: int, width: int):
    def predict(generator, encoder, image):
        z = KernelEncoder(width).apply(encoder, image[None])
        return KernelGenerator(size).apply(generator, z)[0]

    return jit(predict)


@functools.lru_cache(maxsize=8)
def _corrector(width: int):
    return jit(lambda variables, inputs: KernelCorrector(width).apply(variables, inputs[None])[0])


def corrector_input(estimate: KernelEstimate, size: int) -> NDArray[np.float32]:
    """Input of a corrector: kernel and fit of the best estimates, all aligned to the best, (`KEPT`, 2, size, size)."""
    best = place_kernel(estimate.refined[0], size)
    pairs = []
    for i in range(KEPT):
        # the best estimate again if there is no other
        j = i if i < len(estimate.fits) else 0
        center = support(estimate.refined[j])
        kernel, fit = place_kernel(estimate.refined[j], size), crop_around(estimate.fits[j], center, size)
        shift = best_shift(kernel, best)
        pairs.append([shift_array(kernel, shift, best.shape), shift_array(fit, shift, best.shape)])
    return np.asarray(pairs, np.float32)


def predict_kernel(estimate: KernelEstimate, size: int, folder: str | Path = weights.SHIPPED) -> NDArray[np.float32]:
    """Kernel that the network of a folder of weights predicts, (size, size) with sum one.

    With `initializer_<size>` in the folder: G(E(y)) of the image itself (Zhang et al. 2024, section 3.2). Otherwise
    the folder's `corrector`, or the shipped one, corrects the edge-based estimates.

    Raises:
        ValueError: for damaged weights.
    """
    manifest = weights.manifest(folder)
    name = f"initializer_{size}"
    if f"{name}.npz" in manifest:
        predict = _encoder(size, manifest[f"{name}.npz"]["settings"]["width"])
        generator, encoder = weights.load(f"generator_{size}", folder), weights.load(name, folder)
        return np.asarray(predict(generator, encoder, jnp.asarray(estimate.image)))
    source = folder if "corrector.npz" in manifest else weights.SHIPPED
    variables = weights.load("corrector", source)
    correct = _corrector(weights.manifest(source)["corrector.npz"]["settings"]["width"])
    return np.asarray(correct(variables, jnp.asarray(corrector_input(estimate, size))))


def learned_kernel(estimate: KernelEstimate, size: int, folder: str | Path = weights.SHIPPED) -> NDArray[np.float32]:
    """Initial kernel of `predict_kernel`, refined on the image; the edge-based estimate if that scores better."""
    # small values everywhere, as networks produce them, would weaken the fit
    kernel = prune_kernel(predict_kernel(estimate, size, folder), part=0.05)
    (refined,) = refine_kernels(estimate.image, [kernel], [size], rounds=REFINEMENTS)
    pair = [place_kernel(estimate.kernel, size), refined[-1].kernel]
    candidates = rank_candidates(estimate.image, latent_images(estimate.image, pair), pair, ["edges", "learned"])
    return pair[order_candidates(candidates)[0]]
