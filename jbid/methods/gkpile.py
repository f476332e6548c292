"""GKPILE: Zhang et al., Generative-based Kernel Prior and Initializer via Latent Encoding, ECCV 2024."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from jbid import losses
from jbid.engine.deep_prior import deep_prior
from jbid.engine.fitting import fit_kernel
from jbid.engine.generators import fixed, image_prior, kernel_shape
from jbid.engine.optimizers import adam
from jbid.engine.options import check_choice, check_positive
from jbid.engine.updates import warm_up
from jbid.engine.wrappers import early_stopping
from jbid.io import weights as weight_files
from jbid.methods import MethodSpec
from jbid.nets.kernel_gan import LATENT, KernelGenerator
from jbid.types import Estimate, Generator, Method, Params

# learning rates of the fit to a kernel in each space, from benchmarks/kernel_prior.py
FIT_RATES = {"w": 0.2, "z": 0.1, "z_theta": 3e-3}
FIT_STEPS = 500


def kernel_sizes(options: Mapping[str, Any]) -> list[int]:
    """Kernel sizes, ascending, of the generators in the folder of weights that the options name."""
    return weight_files.sizes("generator", weight_files.weights_folder(options["weights"]))


def latent_kernel(size: int, variables: Params, space: str, *, fit_steps: int = FIT_STEPS) -> Generator:
    """k = G^(w)(w) with w = g1(z) optimized, or k = G(z) with z, or z and the weights of G, optimized.

    z ~ N(0, I) at first. The norms of G keep their statistics. The fit to an initial kernel is GAN inversion: it
    minimizes the cross-entropy of the kernel and k, from the seed's own z.

    Args:
        size: side of the kernel in pixels.
        variables: of `KernelGenerator`.
        space: "w", "z" or "z_theta" (Table 3).
        fit_steps: steps of the fit.

    Raises:
        ValueError: for another space.
    """
    check_choice("space", space, FIT_RATES)
    net = KernelGenerator(size)
    if space == "w":

        def init(z):
            return net.apply(variables, z[None], method="first")[0]

        def kernel(params, code):
            return net.apply(variables, params[None], method="rest")[0]
    elif space == "z":

        def init(z):
            return z

        def kernel(params, code):
            return net.apply(variables, params[None])[0]
    else:

        def init(z):
            return {"z": z, "theta": variables["params"]}

        def kernel(params, code):
            return net.apply({**variables, "params": params["theta"]}, params["z"][None])[0]

    return Generator(
        lambda key, blurred: (jax.tree.map(jnp.asarray, init(jax.random.normal(key, (LATENT,)))), {}),
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
    reg_weight: float = 1e-5,
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
    """Min over w and theta of ||G_k(w) * G_x(z_x; theta) - y||^2 (Eq. 6, Algorithm 2), by Adam.

    G_x is SelfDeblur's skip network, G_k the pretrained kernel generator after its first layer, whose output is
    w = g1(z). The defaults are the published script's; docs/methods.md lists the differences from paper and code.

    Args:
        kernel_size: a size with a pretrained generator (`kernel_sizes`); smaller kernels lie in its center.
        space: optimized part of the kernel generator (Table 3): "w", "z", or "z_theta", z and the weights.
        weights: folder of weights; empty: the shipped ones.
        loss: "mse_ssim": MSE in steps t < ssim_from, then 1 - SSIM; "huber" has the width `delta`.
        regularizer, reg_weight, stop, window, patience: as in `jbid.methods.robust.robust`.
        steps, out_channels, channels, ..., dtype: as in `selfdeblur`. kernel: a known kernel of any size, held fixed.

    Raises:
        ValueError: for sizes without weights, damaged weights, unknown names and numbers out of range.

    Example:
        >>> method = gkpile(31, space="z", stop=True)
    """
    check_positive(reg_weight=reg_weight, delta=delta)
    shape = kernel_shape(kernel_size, kernel)
    data_term = losses.data_term(loss, ssim_from=ssim_from, delta=delta)
    decay = partial(adam, schedule=schedule, steps=steps, milestones=milestones)
    size: dict[str, Any] = dict(channels=channels, skip_channels=skip_channels, scales=scales, noise=input_noise)
    method = deep_prior(
        image_prior(shape, out_channels=out_channels, non_local=non_local, dtype=dtype, **size),
        latent_kernel(shape[0], _load(shape, weights), space) if kernel is None else fixed(kernel),
        loss=losses.with_regularizer(data_term, regularizer, reg_weight),
        optimizers=Estimate(decay(image_lr), decay(kernel_lr)),
        updates=warm_up(kernel_hold, optimizer=True),
    )
    return early_stopping(method, window=window, patience=patience or None) if stop else method


def _load(shape: tuple[int, int], folder: str) -> Params:
    if shape[0] != shape[1]:
        raise ValueError(f"`kernel_size` must be square for gkpile, got {shape[1]}x{shape[0]} pixels")
    return weight_files.load(f"generator_{shape[0]}", weight_files.weights_folder(folder))


SPEC = MethodSpec(
    name="gkpile",
    summary="deep image prior and a pretrained generator of kernels (Zhang et al. 2024)",
    build=gkpile,
    presets={
        "paper": dict(steps=5000, init="learned", color="rgb"),
        # tuned for two CPU cores: docs/development-notes.md
        "quick": dict(
            steps=120,
            init="edges",
            patch=384,
            channels=32,
            ssim_from=40,
            kernel_lr=5e-3,
            kernel_hold=40,
            schedule="cosine",
        ),
    },
    non_blind={"loss": "ssim"},
    kernel_sizes=kernel_sizes,
    weight_files=("generator",),
    is_maskable=True,
    stops_early=lambda options: bool(options.get("stop", False)),
)
