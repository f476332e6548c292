"""Robust to size and noise: Zhuang et al., Blind Image Deblurring with Unknown Kernel Size and Substantial Noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from jbid import losses
from jbid.engine.deep_prior import Restore, deep_prior, restore_center
from jbid.engine.fitting import fit_field
from jbid.engine.generators import KERNEL_NETS, fixed, image_prior, kernel_prior, kernel_shape
from jbid.engine.optimizers import adam
from jbid.engine.options import check_at_least, check_choice, check_positive
from jbid.engine.updates import warm_up
from jbid.engine.wrappers import early_stopping
from jbid.methods import MethodSpec
from jbid.nets.siren import Siren
from jbid.ops.alignment import best_window
from jbid.ops.conv import blur
from jbid.ops.kernels import prune_kernel, shift_kernel
from jbid.types import Estimate, Generator, Method, MethodOutput


def siren_kernel(shape: tuple[int, int], net: Siren, *, normalize: bool) -> Generator:
    """k(p) = siren(p) on a grid of [-1, 1]^2; with `normalize`, divided by its sum."""
    axes = [jnp.linspace(-1, 1, n) for n in shape]
    grid = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1)

    def kernel(params, code):
        k = net.apply(params, code)
        return k / k.sum() if normalize else k

    return Generator(
        lambda key, blurred: (net.init(key, grid), grid),
        lambda params, code, key: kernel(params, code),
        partial(fit_field, net.apply),
    )


def restore_best_window(estimate: Estimate, blurred: Array, *, threshold: float) -> MethodOutput:
    """Window of the latent image that is most similar to the observed one, and the kernel shifted with it.

    Image and kernel may lie anywhere in frames that are both too large, shifted against each other (Zhuang et al.,
    section 3.1.2). The image is scaled by the kernel's sum, which the data term leaves free. `prune_kernel` removes
    values under `threshold` times the maximum and small components. The kernel shifts no further than to the edge of
    its frame, because a tight frame has no room for more.
    """
    x, k = estimate
    scale = k.sum()
    offset = best_window(x * scale, blurred)
    window = jax.lax.dynamic_slice(x, (offset[0], offset[1], 0), blurred.shape)
    k = prune_kernel(k, threshold=threshold)
    shifts = []
    for axis, (position, n) in enumerate(zip(offset, k.shape)):
        is_nonzero = k.any(1 - axis)
        first, last = jnp.argmax(is_nonzero), n - 1 - jnp.argmax(is_nonzero[::-1])
        shifts.append(jnp.clip(position - (n - 1) // 2, -first, n - 1 - last))
    return MethodOutput(jnp.clip(window * scale, 0, 1), shift_kernel(k, *shifts))


def restore_in_place(estimate: Estimate, blurred: Array, *, threshold: float) -> MethodOutput:
    """Latent image of the observed size, and the kernel; scaled and pruned as in `restore_best_window`."""
    x, k = estimate
    return MethodOutput(jnp.clip(x * k.sum(), 0, 1), prune_kernel(k, threshold=threshold))


def _zero_padded_blur(x: Array, k: Array) -> Array:
    return blur(jnp.pad(x, [(n // 2, n // 2) for n in k.shape] + [(0, 0)]), k)


def robust(
    kernel_size: int | tuple[int, int],
    *,
    steps: int = 10000,
    out_channels: int = 3,
    channels: int = 128,
    skip_channels: int = 16,
    scales: int = 5,
    kernel_net: Literal["siren", "mlp", "linear", "deep_mlp", "skip", "free"] = "siren",
    siren_width: int = 256,
    siren_layers: int = 2,
    siren_omega: float = 30.0,
    siren_first_omega: float = 30.0,
    normalize: Literal["none", "sum"] = "none",
    loss: Literal["huber", "mse"] = "huber",
    delta: float = 0.05,
    regularizer: Literal["l1_over_l2", "l1", "none"] = "l1_over_l2",
    reg_weight: float = 1e-5,
    latent: Literal["enlarged", "exact"] = "enlarged",
    image_lr: float = 1e-2,
    kernel_lr: float = 1e-4,
    kernel_hold: int = 0,
    schedule: Literal["halve", "cosine"] = "halve",
    milestones: Sequence[int] = (2000, 3000, 5000, 8000),
    input_noise: float = 1e-3,
    dtype: Literal["float32", "bfloat16"] = "float32",
    stop: bool = True,
    window: int = 100,
    patience: int = 0,
    threshold: float = 0.02,
    kernel: Array | None = None,
) -> Method:
    """Min mean h(K_theta * G_x(z_x) - y) + lambda ||grad x||_1 / ||grad x||_2 over both networks (Eq. 21), by Adam.

    h is the Huber function of width `delta`, lambda is `reg_weight`. G_x is the skip network without non-local blocks,
    its output of size h + kh - 1, w + kw - 1 (Eq. 16). K_theta is a SIREN on the kernel's grid with sigmoid output.
    `early_stopping` ends the run (Algorithm 1), and `restore_best_window` locates the answer (section 3.1.6).
    docs/methods.md lists the differences from the paper.

    Args:
        kernel_size: odd sides; the paper's default is half the image in each direction.
        kernel_net: "siren", or a kernel prior of SelfDeblur for the ablations; siren_*: width, layers, frequencies.
        normalize: "sum" divides the SIREN's kernel by its sum; "none" leaves the sum to the data term.
        loss: "huber" or "mse"; regularizer: "l1" has its own scale of `reg_weight`.
        latent: "exact": an image of the observed size, zero outside (ablation).
        stop, window, patience: of `early_stopping`; patience 0: by the noise level.
        threshold: share of the kernel's maximum under which its values count as noise.
        image_lr, kernel_lr: for synthetic images; the paper has 1e-3 and 1e-5 for real ones.
        kernel: a known kernel, held fixed; the image lies in the center of the latent one.
        steps, out_channels, channels, ..., dtype: as in `selfdeblur`.

    Raises:
        ValueError: for even or non-positive kernel sizes, unknown names, and numbers out of range.

    Example:
        >>> method = robust((33, 41), reg_weight=1e-4)
    """
    return _assemble(kernel_shape(kernel_size, kernel), SimpleNamespace(**locals()))


def _assemble(shape: tuple[int, int], options: SimpleNamespace) -> Method:
    """The method from the arguments of `robust`."""
    check_choice("kernel_net", options.kernel_net, ("siren", *KERNEL_NETS))
    size = {name: getattr(options, name) for name in ("channels", "skip_channels", "scales")}
    size["noise"] = options.input_noise
    is_known = options.kernel is not None
    if is_known:
        prior = fixed(options.kernel)
    elif options.kernel_net == "siren":
        prior = _siren(shape, options)
    else:
        prior = kernel_prior(options.kernel_net, shape, **size)
    is_exact, restore = _restore(options.latent, options.threshold, is_known)
    decay = partial(adam, schedule=options.schedule, steps=options.steps, milestones=options.milestones)
    frame = (1, 1) if is_exact else shape
    method = deep_prior(
        image_prior(frame, out_channels=options.out_channels, dtype=options.dtype, **size),
        prior,
        loss=_objective(options.loss, options.delta, options.regularizer, options.reg_weight),
        optimizers=Estimate(decay(options.image_lr), decay(options.kernel_lr)),
        forward=_zero_padded_blur if is_exact else blur,
        restore=restore,
        updates=warm_up(options.kernel_hold, optimizer=True),
    )
    if not options.stop:
        return method
    return early_stopping(method, window=options.window, patience=options.patience or None)


def _siren(shape: tuple[int, int], options: SimpleNamespace) -> Generator:
    check_at_least(1, siren_width=options.siren_width, siren_layers=options.siren_layers)
    check_positive(siren_omega=options.siren_omega, siren_first_omega=options.siren_first_omega)
    check_choice("normalize", options.normalize, ("none", "sum"))
    net = Siren(
        options.siren_width,
        options.siren_layers,
        options.siren_omega,
        options.siren_first_omega,
        mean=1 / (shape[0] * shape[1] + 1),
    )
    return siren_kernel(shape, net, normalize=options.normalize == "sum")


def _restore(latent: str, threshold: float, is_kernel_known: bool) -> tuple[bool, Restore]:
    check_choice("latent", latent, ("enlarged", "exact"))
    check_at_least(0, threshold=threshold)
    if latent == "exact":
        return True, partial(restore_in_place, threshold=threshold)
    return False, restore_center if is_kernel_known else partial(restore_best_window, threshold=threshold)


def _objective(loss: str, delta: float, regularizer: str, weight: float) -> losses.Loss:
    check_choice("loss", loss, ("huber", "mse"))
    check_positive(delta=delta)
    check_at_least(0, reg_weight=weight)
    return losses.with_regularizer(losses.huber(delta) if loss == "huber" else losses.mse(), regularizer, weight)


SPEC = MethodSpec(
    name="robust",
    summary="unknown kernel size and substantial noise (Zhuang et al.)",
    build=robust,
    presets={
        "paper": dict(steps=10000, init="random", color="rgb", kernel_size="half"),
        # tuned for two CPU cores: docs/development-notes.md
        "quick": dict(
            steps=300,
            init="edges",
            patch=320,
            channels=32,
            reg_weight=1e-6,
            kernel_hold=100,
            normalize="sum",
            window=30,
        ),
    },
    stops_early=lambda options: bool(options.get("stop", False)),
)
