"""GKPILE: Zhang, Ren et al., Generative-based Kernel Prior and Initializer via Latent Encoding, ECCV 2024."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from jbid import losses
from jbid.engine.deep_prior import deep_prior
from jbid.engine.fitting import fit_kernel
from jbid.engine.generators import compute_dtype, fixed, kernel_shape, latent_shape, network_generator
from jbid.engine.optimizers import adam
from jbid.engine.wrappers import early_stopping
from jbid.io import weights
from jbid.nets.kernel_gan import LATENT, KernelGenerator
from jbid.nets.skip import Skip
from jbid.types import Estimate, Generator, Method, Params

# of Adam's in each space, for as close a kernel as can be had in FIT_STEPS: benchmarks/kernel_prior.py
FIT_RATES = {"w": 0.2, "z": 0.1, "z_theta": 3e-3}
FIT_STEPS = 500


def kernel_sizes(options: dict[str, Any]) -> list[int]:
    """The kernel sizes, ascending, that there is a generator for among the weights that the options name."""
    return weights.sizes("generator", weights.weights_folder(options["weights"]))


def latent_kernel(size: int, variables: Params, space: str, *, fit_steps: int = FIT_STEPS) -> Generator:
    """k = G^(w)(w), w = g1(z) being optimized, or k = G(z) with z, or z and the generator's weights, optimized.

    z ~ N(0, I) at first. `variables` are those of `KernelGenerator`; its norms keep their statistics. Fitting is GAN
    inversion: the cross-entropy of a kernel and k is lowered in `fit_steps` steps from the seed's own z. Raises
    ValueError for a space other than "w", "z" and "z_theta".
    """
    net = KernelGenerator(size)
    if space == "w":

        def start(z):
            return net.apply(variables, z[None], method="first")[0]

        def kernel(params, code):
            return net.apply(variables, params[None], method="rest")[0]
    elif space == "z":

        def start(z):
            return z

        def kernel(params, code):
            return net.apply(variables, params[None])[0]
    elif space == "z_theta":

        def start(z):
            return {"z": z, "theta": variables["params"]}

        def kernel(params, code):
            return net.apply({**variables, "params": params["theta"]}, params["z"][None])[0]
    else:
        raise ValueError(f"got space {space!r}, expected one of {', '.join(FIT_RATES)}")

    return Generator(
        lambda key, blurred: (jax.tree.map(jnp.asarray, start(jax.random.normal(key, (LATENT,)))), {}),
        lambda params, code, key: kernel(params, code),
        partial(fit_kernel, kernel, steps=fit_steps, rate=FIT_RATES[space]),
    )


def gkpile(
    kernel_size: int | tuple[int, int],
    *,
    steps: int = 5000,
    out_channels: int = 3,
    channels: int = 128,
    skip_channels: int = 16,
    scales: int = 5,
    non_local: bool = True,
    space: Literal["w", "z", "z_theta"] = "w",
    weights: str = "",
    loss: Literal["mse_ssim", "mse", "ssim", "huber"] = "mse_ssim",
    ssim_from: int = 500,
    delta: float = 0.05,
    regularizer: Literal["none", "l1_over_l2", "l1"] = "none",
    weight: float = 1e-5,
    image_lr: float = 1e-2,
    kernel_lr: float = 5e-4,
    kernel_hold: int = 0,
    schedule: Literal["halve", "cosine"] = "halve",
    milestones: Sequence[int] = (2000, 3000, 4000),
    input_noise: float = 1e-3,
    dtype: Literal["float32", "bfloat16"] = "float32",
    stop: bool = False,
    window: int = 100,
    patience: int = 0,
    kernel: Array | None = None,
) -> Method:
    """min over w and theta of ||G_k(w) * G_x(z_x; theta) - y||^2 (Eq. 6, Algorithm 2), by Adam.

    G_x is SelfDeblur's skip network, G_k the pretrained kernel generator past its first layer and w = g1(z) that
    layer's output, non-negative at first and then without bounds. y is (h, w, out_channels).

    kernel_size: one of those that there is a pretrained generator for (`kernel_sizes`); smaller kernels lie in its
    middle. space: what is optimized of the kernel, Table 3: "w", "z", or "z_theta", z and the generator's weights;
    batch norms keep their statistics in all. weights: a folder of weights in place of the shipped ones. loss:
    "mse_ssim" is MSE in steps t < ssim_from and 1 - SSIM from then on; "huber" (of width delta), `regularizer` with
    `weight`, and `stop` with `window` and `patience` are those of `robust`. kernel_hold, schedule, steps, milestones,
    input_noise, dtype: as in `selfdeblur`. kernel: a known kernel of any size, held fixed.

    The defaults are those of the published script, which goes on with 1 - SSIM after 500 steps; the paper has MSE
    alone.

    Differs from the authors' code: true convolution in place of correlation; the answer is the networks' output after
    the last update and without input perturbation; the generators are jbid's own, decoders of an autoencoder and not
    of a GAN; a start is a kernel that is inverted into w, where theirs takes w from the encoder's z.

    Raises ValueError for sizes without weights, damaged weights, unknown names and numbers out of range.
    """
    for name, value in (("weight", weight), ("delta", delta)):
        if value <= 0:
            raise ValueError(f"got {name} {value}, expected a positive number")
    shape = kernel_shape(kernel_size, kernel)
    objective = losses.with_regularizer(losses.data_term(loss, ssim_from=ssim_from, delta=delta), regularizer, weight)
    decayed = partial(adam, schedule=schedule, steps=steps, milestones=milestones)
    net = Skip(
        scales=scales,
        channels=channels,
        skip_channels=skip_channels,
        out_channels=out_channels,
        non_local_from=2 if non_local else None,
        dtype=compute_dtype(dtype),
    )
    method = deep_prior(
        network_generator(net, partial(latent_shape, shape, 8), noise=input_noise),
        latent_kernel(shape[0], _trained(shape, weights), space) if kernel is None else fixed(kernel),
        loss=objective,
        tx=Estimate(decayed(image_lr), decayed(kernel_lr, hold=kernel_hold)),
    )
    return early_stopping(method, window=window, patience=patience or None) if stop else method


def _trained(shape: tuple[int, int], folder: str) -> Params:
    if shape[0] != shape[1]:
        raise ValueError(f"got a kernel of {shape[1]}x{shape[0]} pixels, expected a square one for gkpile")
    return weights.load(f"generator_{shape[0]}", weights.weights_folder(folder))


PRESETS: dict[str, dict[str, Any]] = {
    "paper": dict(steps=5000, start="encoder", color="rgb"),
    # tuned for two CPU cores: docs/experiments.md
    "quick": dict(
        steps=120,
        start="edges",
        patch=384,
        channels=32,
        ssim_from=40,
        kernel_lr=5e-3,
        kernel_hold=40,
        schedule="cosine",
    ),
    "instant": dict(steps=0, start="edges", patch=512),
}
