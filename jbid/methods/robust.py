"""Robust to size and noise: Zhuang et al., Blind Image Deblurring with Unknown Kernel Size and Substantial Noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from jbid import losses
from jbid.engine.deep_prior import deep_prior, restore_center
from jbid.engine.fitting import fit_field
from jbid.engine.generators import (
    KERNEL_NETS,
    compute_dtype,
    fixed,
    kernel_generator,
    kernel_shape,
    latent_shape,
    network_generator,
)
from jbid.engine.optimizers import adam
from jbid.engine.wrappers import early_stopping
from jbid.nets.siren import Siren
from jbid.nets.skip import Skip
from jbid.ops.alignment import best_window
from jbid.ops.conv import blur
from jbid.ops.kernels import prune_kernel, shift_kernel
from jbid.types import Estimate, Generator, Method, MethodOutput

LOSSES = {"huber": losses.huber, "mse": lambda delta: losses.mse()}


def _choose(name: str, value: str, known: dict[str, Any]) -> Any:
    if value not in known:
        raise ValueError(f"got {name} {value!r}, expected one of {', '.join(known)}")
    return known[value]


def siren_kernel(shape: tuple[int, int], net: Siren, *, normalize: bool) -> Generator:
    """k(p) = siren(p) on a grid of [-1, 1]^2, divided by its sum if asked for."""
    axes = [jnp.linspace(-1, 1, n) for n in shape]
    grid = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1)

    def values(params, code):
        k = net.apply(params, code)
        return k / k.sum() if normalize else k

    return Generator(
        lambda key, blurred: (net.init(key, grid), grid),
        lambda params, code, key: values(params, code),
        partial(fit_field, net.apply),
    )


def located(estimate: Estimate, blurred: Array, *, threshold: float) -> MethodOutput:
    """The window of the latent image that is most like the observed picture, and the kernel moved along with it.

    Image and kernel may lie anywhere in frames that are both too large, moved against each other (Zhuang et al.,
    section 3.1.2); the image is scaled by the kernel's sum, which the data term leaves free. Kernel values under
    `threshold` times the largest, and small parts apart from the rest, are removed as noise; what remains is moved no
    further than to the edge of its frame, as a tight frame has no room for more.
    """
    x, k = estimate
    scale = k.sum()
    offset = best_window(x * scale, blurred)
    window = jax.lax.dynamic_slice(x, (offset[0], offset[1], 0), blurred.shape)
    k = prune_kernel(k, threshold=threshold)
    moves = []
    for axis, (at, n) in enumerate(zip(offset, k.shape)):
        seen = k.any(1 - axis)
        first, last = jnp.argmax(seen), n - 1 - jnp.argmax(seen[::-1])
        moves.append(jnp.clip(at - (n - 1) // 2, -first, n - 1 - last))
    return MethodOutput(jnp.clip(window * scale, 0, 1), shift_kernel(k, *moves))


def in_place(estimate: Estimate, blurred: Array, *, threshold: float) -> MethodOutput:
    """The latent image as it lies, of the observed size, and the kernel; scaled and cleaned as in `located`."""
    x, k = estimate
    return MethodOutput(jnp.clip(x * k.sum(), 0, 1), prune_kernel(k, threshold=threshold))


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
    weight: float = 1e-5,
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
    """min mean h(K_theta * G_x(z_x) - y) + lambda ||grad x||_1 / ||grad x||_2 over both networks (Eq. 21), by Adam.

    h is the Huber function of width `delta`, lambda is `weight`. G_x is the skip network without non-local blocks, its
    output of the size h + kh - 1, w + kw - 1 (Eq. 16); K_theta is a SIREN on the kernel's grid with sigmoid output,
    whose sum the data term decides (`normalize`: "sum" divides by it). The run is stopped by the moving variance of its
    images (Algorithm 1, `jbid.transforms.early_stopping`: `window`, `patience`, 0 meaning by the noise level), and the
    answer is found where in the enlarged image it lies (section 3.1.6, `located`).

    kernel_size: odd sides; the paper's default is half the picture in each direction. y is (h, w, out_channels).
    Learning rates are those for synthetic pictures; the paper has image_lr 1e-3 and kernel_lr 1e-5 for real ones.
    Ablations: kernel_net "mlp" (SelfDeblur's) and "skip" (double DIP), with softmax output; loss "mse"; regularizer
    "l1", with its own scale of `weight`; latent "exact": an image of the observed size, zero beyond; stop False.

    Differs from the paper where it is silent or its program is not public: width, depth and frequency of the SIREN are
    Sitzmann et al.'s; its output starts at a kernel with sum one and not at one half everywhere; the image network is
    SelfDeblur's with its input and input noise; the moving variance is taken at random pixels.

    dtype: as in `selfdeblur`. A known `kernel` is kept as it is, and the image lies in the middle of the latent one.

    Raises ValueError for even or non-positive kernel sizes, unknown names, and numbers out of range.
    """
    for name, value, least in (
        ("siren_width", siren_width, 1),
        ("siren_layers", siren_layers, 1),
        ("weight", weight, 0),
        ("threshold", threshold, 0),
    ):
        if value < least:
            raise ValueError(f"got {name} {value}, expected at least {least}")
    for name, positive in (
        ("siren_omega", siren_omega),
        ("siren_first_omega", siren_first_omega),
        ("delta", delta),
    ):
        if positive <= 0:
            raise ValueError(f"got {name} {positive}, expected a positive number")
    shape = kernel_shape(kernel_size, kernel)
    objective = losses.with_regularizer(_choose("loss", loss, LOSSES)(delta), regularizer, weight)
    decayed = partial(adam, schedule=schedule, steps=steps, milestones=milestones)
    skip = partial(Skip, scales=scales, channels=channels, skip_channels=skip_channels)
    by_sum = _choose("normalize", normalize, {"none": False, "sum": True})
    siren = _choose("kernel_net", kernel_net, {"siren": True} | dict.fromkeys(KERNEL_NETS, False))
    if kernel is not None:
        kernels = fixed(kernel)
    elif siren:
        mean = 1 / (shape[0] * shape[1] + 1)
        net = Siren(siren_width, siren_layers, siren_omega, siren_first_omega, mean=mean)
        kernels = siren_kernel(shape, net, normalize=by_sum)
    else:
        kernels = kernel_generator(kernel_net, shape, skip, input_noise)
    exact = _choose("latent", latent, {"enlarged": False, "exact": True})
    frame = (1, 1) if exact else shape

    def padded_blur(x, k):
        return blur(jnp.pad(x, [(n // 2, n // 2) for n in k.shape] + [(0, 0)]), k)

    if kernel is not None and not exact:
        restore = restore_center
    else:
        restore = partial(in_place if exact else located, threshold=threshold)
    method = deep_prior(
        network_generator(
            skip(out_channels=out_channels, non_local_from=None, dtype=compute_dtype(dtype)),
            partial(latent_shape, frame, 8),
            noise=input_noise,
        ),
        kernels,
        loss=objective,
        tx=Estimate(decayed(image_lr), decayed(kernel_lr, hold=kernel_hold)),
        forward=padded_blur if exact else blur,
        restore=restore,
    )
    return early_stopping(method, window=window, patience=patience or None) if stop else method


PRESETS: dict[str, dict[str, Any]] = {
    "paper": dict(steps=10000, start="random", color="rgb", kernel_size="half"),
    # tuned for two CPU cores: docs/experiments.md
    "quick": dict(
        steps=300,
        start="edges",
        patch=320,
        channels=32,
        weight=1e-6,
        kernel_hold=100,
        normalize="sum",
        window=30,
    ),
    "instant": dict(steps=0, start="edges", patch=512),
}
