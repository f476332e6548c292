"""SelfDeblur: Ren, Zhang, Wang, Hu and Zuo, Neural Blind Deconvolution Using Deep Priors, CVPR 2020."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from jax import Array

from jbid import losses
from jbid.engine.deep_prior import deep_prior
from jbid.engine.generators import compute_dtype, fixed, kernel_generator, kernel_shape, latent_shape, network_generator
from jbid.engine.optimizers import adam
from jbid.nets.skip import Skip
from jbid.types import Estimate, Loss, Method


def _loss(name: str, ssim_from: int, tv_weight: float | None, squared_tv: bool) -> Loss:
    if name == "mse_tv":
        return losses.add(losses.mse(), losses.tv(tv_weight, squared=squared_tv))
    return losses.data_term(name, ssim_from=ssim_from)


def selfdeblur(
    kernel_size: int | tuple[int, int],
    *,
    steps: int = 5000,
    out_channels: int = 1,
    channels: int = 128,
    skip_channels: int = 16,
    scales: int = 5,
    non_local: bool = True,
    kernel_net: Literal["mlp", "linear", "deep_mlp", "skip", "free"] = "mlp",
    loss: Literal["mse_ssim", "mse_tv", "ssim"] = "mse_ssim",
    ssim_from: int = 1000,
    tv_weight: float | None = None,
    squared_tv: bool = False,
    image_lr: float = 1e-2,
    kernel_lr: float = 1e-4,
    kernel_hold: int = 0,
    schedule: Literal["halve", "cosine"] = "halve",
    milestones: Sequence[int] = (2000, 3000, 4000),
    input_noise: float = 1e-3,
    dtype: Literal["float32", "bfloat16"] = "float32",
    alternating: bool = False,
    kernel: Array | None = None,
) -> Method:
    """min ||G_k(z_k) * G_x(z_x) - y||^2 + lambda TV(G_x(z_x)) over both networks' weights (Eq. 6), by Adam.

    G_x is the skip network with sigmoid output, G_k an MLP with softmax output; z_x ~ U(0, 0.1) in 8 channels of the
    latent size, perturbed by N(0, input_noise^2) in every step, z_k ~ U(0, 0.1) in 200 dimensions. y is (h, w,
    out_channels): 1 for luma, 3 for rgb, where one kernel serves all channels.

    kernel_size: odd side of the square kernel in pixels, or rows and columns. steps: used by the "cosine" schedule,
    which decays both learning rates to zero over them; "halve" halves both at each of `milestones`. kernel_net: Table
    2's variants: "mlp" (the method), "linear" (no hidden layer), "deep_mlp" (an extra one), "skip" (Double-DIP); and
    "free", a softmax over free logits. kernel_hold: steps in which the kernel stays where it starts. loss: "mse_ssim"
    is MSE in steps t < ssim_from and 1 - SSIM from then on; "mse_tv" the paper's MSE + tv_weight TV, tv_weight None
    meaning 0.1 sigma with sigma estimated from y; "ssim" 1 - SSIM throughout. alternating: Algorithm 1 in place of 2.
    dtype: what the image network computes in; parameters, kernel, blur and loss are float32 in any case. kernel: a
    known kernel, (kernel_size, kernel_size) with sum one, held fixed: the non-blind refinement.

    The defaults are those of the published script for Levin's images, which differs from the paper: it has no TV term,
    goes on with 1 - SSIM after 1000 steps, and gives the kernel a learning rate of 1e-4, not 0.01.

    Differs from the authors' code: true convolution in place of correlation (the kernel is turned by 180 degrees); the
    answer is the networks' output after the last update and without input perturbation, not before it and with; the
    non-local blocks form their small matrix first, with the same result; TV in the paper's form |dx| unless
    `squared_tv`; sigma from wavelet coefficients, not Zoran and Weiss's estimator.

    Raises ValueError for an even or non-positive kernel size and for unknown names.
    """
    shape = kernel_shape(kernel_size, kernel)
    decayed = partial(adam, schedule=schedule, steps=steps, milestones=milestones)
    skip = partial(Skip, scales=scales, channels=channels, skip_channels=skip_channels)
    image_net = skip(out_channels=out_channels, non_local_from=2 if non_local else None, dtype=compute_dtype(dtype))
    return deep_prior(
        network_generator(image_net, partial(latent_shape, shape, 8), noise=input_noise),
        kernel_generator(kernel_net, shape, skip, input_noise) if kernel is None else fixed(kernel),
        loss=_loss(loss, ssim_from, tv_weight, squared_tv),
        tx=Estimate(decayed(image_lr), decayed(kernel_lr, hold=kernel_hold)),
        alternating=alternating,
    )


# Settings by preset. `quick` was tuned for two CPU cores: docs/experiments.md
PRESETS: dict[str, dict[str, Any]] = {
    "paper": dict(steps=5000, start="random"),
    "quick": dict(
        steps=120,
        start="edges",
        patch=384,
        channels=32,
        ssim_from=40,
        kernel_net="free",
        kernel_lr=5e-3,
        kernel_hold=40,
        schedule="cosine",
    ),
    # the start and the finish alone
    "instant": dict(steps=0, start="edges", patch=512),
}
