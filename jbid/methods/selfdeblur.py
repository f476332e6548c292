"""SelfDeblur: Ren, Zhang, Wang, Hu and Zuo, Neural Blind Deconvolution Using Deep Priors, CVPR 2020."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from jax import Array

from jbid import losses
from jbid.engine.deep_prior import deep_prior
from jbid.engine.generators import fixed, image_prior, kernel_prior, kernel_shape
from jbid.engine.optimizers import adam
from jbid.engine.updates import alternate, joint, warm_up
from jbid.methods import MethodSpec
from jbid.types import Estimate, Loss, Method


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
    """Min ||G_k(z_k) * G_x(z_x) - y||^2 + lambda TV(G_x(z_x)) over both networks' weights (Eq. 6), by Adam.

    G_x is the skip network with sigmoid output, G_k an MLP with softmax output; z_x ~ U(0, 0.1) in 8 channels of the
    latent size, perturbed by N(0, input_noise^2) in every step, z_k ~ U(0, 0.1) in 200 dimensions. The options and
    the differences from the authors' code are in docs/methods.md. The defaults are those of the published script for
    Levin's images, which differs from the paper: no TV term, 1 - SSIM after 1000 steps, kernel_lr 1e-4 and not 0.01.

    Args:
        kernel_size: odd side of the square kernel in pixels, or (rows, columns).
        steps: length of the run; only the schedule "cosine" depends on it.
        out_channels: channels of y: 1 for luma, 3 for RGB, for which one kernel serves all channels.
        channels, skip_channels, scales, non_local, input_noise, dtype: of the image network.
        kernel_net: Table 2's variants, see `jbid.engine.generators.kernel_prior`.
        loss: "mse_ssim": MSE in steps t < ssim_from, then 1 - SSIM; "mse_tv": MSE + tv_weight TV; "ssim": 1 - SSIM.
        tv_weight: None: 0.1 sigma, with the noise level sigma estimated from y; squared_tv: TV as in the code.
        image_lr, kernel_lr: learning rates; "halve" halves both at each of `milestones`.
        kernel_hold: first steps, in which the kernel stays at its initial value.
        alternating: Algorithm 1 instead of 2.
        kernel: a known kernel of shape `kernel_size` with sum one, held fixed: the non-blind refinement.

    Raises:
        ValueError: for an even or non-positive kernel size and for unknown names.

    Example:
        >>> method = selfdeblur(31, steps=500, tv_weight=1e-3)
    """
    shape = kernel_shape(kernel_size, kernel)
    decay = partial(adam, schedule=schedule, steps=steps, milestones=milestones)
    size: dict[str, Any] = dict(channels=channels, skip_channels=skip_channels, scales=scales, noise=input_noise)
    return deep_prior(
        image_prior(shape, out_channels=out_channels, non_local=non_local, dtype=dtype, **size),
        kernel_prior(kernel_net, shape, **size) if kernel is None else fixed(kernel),
        loss=_objective(loss, ssim_from, tv_weight, squared_tv),
        optimizers=Estimate(decay(image_lr), decay(kernel_lr)),
        updates=warm_up(kernel_hold, alternate() if alternating else joint(), optimizer=True),
    )


def _objective(name: str, ssim_from: int, tv_weight: float | None, squared_tv: bool) -> Loss:
    if name == "mse_tv":
        return losses.add(losses.mse(), losses.tv(tv_weight, squared=squared_tv))
    return losses.data_term(name, ssim_from=ssim_from)


SPEC = MethodSpec(
    name="selfdeblur",
    summary="deep image prior and kernel network (Ren et al. 2020)",
    build=selfdeblur,
    presets={
        "paper": dict(steps=5000, init="random"),
        # tuned for two CPU cores: docs/development-notes.md
        "quick": dict(
            steps=120,
            init="edges",
            patch=384,
            channels=32,
            ssim_from=40,
            kernel_net="free",
            kernel_lr=5e-3,
            kernel_hold=40,
            schedule="cosine",
        ),
    },
    non_blind={"loss": "ssim"},
    is_maskable=True,
)
