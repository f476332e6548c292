"""Preparation of an image: region, kernel size and initial kernels."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jbid.io.images import read_kernel
from jbid.io.weights import weights_folder
from jbid.kernel_estimation.learned import learned_kernel
from jbid.kernel_estimation.patch import Region, find_content, most_informative_region
from jbid.kernel_estimation.search import (
    PATCH,
    SECOND_SETTINGS,
    KernelEstimate,
    clean_image,
    round_up_size,
    search_kernel,
)
from jbid.ops.color import luma, srgb_to_linear
from jbid.ops.kernels import place_kernel, support
from jbid.pipeline.config import ESTIMATES, INITS, Config, init_names
from jbid.pipeline.kept import Kept, leave_out

SMALLEST = 32  # pixels; the coarsest of the five scales of the image network needs as many


class InitialKernel(NamedTuple):
    """Initial kernel of an optimization.

    Attributes:
        name: for reports.
        kernel: (kh, kw) with sum one.
    """

    name: str
    kernel: NDArray[np.float32]


class PreparedImage(NamedTuple):
    """An image ready to be restored: the region used for kernel estimation and the initial kernels.

    Attributes:
        image: (h, w, c) in [0, 1], in linear light if configured.
        region: part of the image that the kernel is estimated from.
        observed: that part, luma or color, without impulse noise.
        padded_shape: rows and columns that `observed` is padded to, so that images share a compiled program.
        kernel_shape: odd sides of the kernel.
        initial_kernels: seed i begins with initial_kernels[i % n]; empty: random.
        is_kernel_known: the initial kernel is the true one and stays as it is.
        estimate: the edge-based kernel estimate, if one was needed.
        warnings: one line each.
        seconds: time of the preparation.
        kept: what no camera saw and is left out; None: nothing.
    """

    image: NDArray[np.float32]
    region: Region
    observed: NDArray[np.float32]
    padded_shape: tuple[int, int]
    kernel_shape: tuple[int, int]
    initial_kernels: tuple[InitialKernel, ...]
    is_kernel_known: bool
    estimate: KernelEstimate | None
    warnings: tuple[str, ...]
    seconds: float
    kept: Kept | None = None

    def kernels_of_seeds(self, n_seeds: int) -> NDArray[np.float32]:
        """Initial kernel of each seed, (n_seeds, kh, kw)."""
        return np.stack([self.initial_kernels[i % len(self.initial_kernels)].kernel for i in range(n_seeds)])


def check_size(shape: Sequence[int], kernel_size: int | str | tuple[int, int]) -> None:
    """Raise ValueError for an image too small to be restored with a kernel of this size."""
    h, w = shape[:2]
    if min(h, w) < SMALLEST:
        raise ValueError(f"the image must have at least {SMALLEST}x{SMALLEST} pixels, got {w}x{h}")
    if isinstance(kernel_size, str):
        return
    sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    if sides[0] > h or sides[1] > w:
        raise ValueError(f"`kernel_size` must not exceed the image of {w}x{h} pixels, got {max(sides)}")


def check_deconvolve(config: Config, shape: Sequence[int]) -> None:
    """Raise ValueError if the network's own image is the answer but would cover a part of the image only."""
    if not config.deconvolve and (config.region or 0 < config.patch < max(shape[:2])):
        raise ValueError(
            "`deconvolve` = False needs a network that sees the whole image. Set `deconvolve` = True, or `patch` = 0 "
            "and no `region`."
        )


def init_file(init: str) -> Path | None:
    """File of the initial kernel; None if `init` is a name.

    Raises:
        ValueError: if `init` is neither a name nor a file.
    """
    if init == "random" or init_names(init):
        return None
    if not Path(init).is_file():
        raise ValueError(
            f"`init` must be random, {', '.join(INITS)}, several joined by a plus such as edges+learned, or the file "
            f"of a kernel, got {init!r}"
        )
    return Path(init)


def prepare(
    image: NDArray,
    config: Config,
    *,
    kernel: NDArray | None = None,
    alpha: NDArray | None = None,
    on_stage: Callable[[str], object] | None = None,
) -> PreparedImage:
    """Choose the region of an image and estimate kernel size and initial kernels.

    Args:
        image: (h, w, c) in [0, 1].
        config: the run.
        kernel: a known kernel with odd sides, which stays as it is.
        alpha: (h, w), 0 for transparent pixels, which are left out; None: there are none.
        on_stage: called with a line that says what the estimation of the kernel does next.

    Raises:
        ValueError: for an image, region or initial kernel that does not go with the kernel size.
    """
    began = time.perf_counter()
    image = np.asarray(image, np.float32)
    check_size(image.shape, config.kernel_size)
    content = find_content(image) if config.region is None else Region(0, 0, image.shape[1], image.shape[0])
    transparent = None if alpha is None or config.region else alpha == 0
    kept, image = leave_out(image, content, transparent)
    if config.linear:
        image = srgb_to_linear(image)
    # the image of a network must be whole if it is the answer
    visible = kept.visible if kept and config.deconvolve else Region(0, 0, image.shape[1], image.shape[0])
    region = _region(visible.of(image), config)
    region = region._replace(x=region.x + visible.x, y=region.y + visible.y)
    part = region.of(image)
    check_size(part.shape, config.kernel_size)
    estimate: KernelEstimate | None = None
    warnings: tuple[str, ...] = ()
    shape: tuple[int, int]
    initial: tuple[InitialKernel, ...]
    if kernel is not None:
        shape = (kernel.shape[0], kernel.shape[1])
        initial = (InitialKernel("known kernel", np.asarray(kernel, np.float32)),)
    else:
        shape, initial, estimate, warnings = _initialize(visible.of(image), part, config, on_stage)
    check_size(part.shape, shape)
    observed = luma(part) if config.color == "luma" else part
    return PreparedImage(
        image=image,
        region=region,
        observed=clean_image(observed) if config.remove_impulses else observed,
        padded_shape=(part.shape[0], part.shape[1]),
        kernel_shape=shape,
        initial_kernels=initial,
        is_kernel_known=kernel is not None,
        estimate=estimate,
        warnings=warnings,
        seconds=time.perf_counter() - began,
        kept=kept,
    )


def _region(image: NDArray, config: Config) -> Region:
    h, w = image.shape[:2]
    if config.region is not None:
        region = Region(*config.region)
        if region.x + region.width > w or region.y + region.height > h:
            raise ValueError(f"`region` must lie within the image of {w}x{h} pixels, got {','.join(map(str, region))}")
        return region
    return most_informative_region(image, config.patch) if config.patch else Region(0, 0, w, h)


def _initialize(
    image: NDArray, part: NDArray, config: Config, on_stage: Callable[[str], object] | None
) -> tuple[tuple[int, int], tuple[InitialKernel, ...], KernelEstimate | None, tuple[str, ...]]:
    """Kernel shape, initial kernels, edge-based estimate and warnings for an unknown kernel."""
    h, w = part.shape[:2]
    names = init_names(config.init)
    size = config.kernel_size if isinstance(config.kernel_size, int) else None
    shape = (size, size) if size else None
    if config.kernel_size == "half":
        shape = ((h + 1) // 2 | 1, (w + 1) // 2 | 1)
    from_file = read_kernel(config.init) if not names and config.init != "random" else None
    if from_file is not None:
        shape = shape or (round_up_size(max(from_file.shape)),) * 2
    estimate: KernelEstimate | None = None
    warnings: tuple[str, ...] = ()
    if set(names) & set(ESTIMATES) or shape is None:
        estimate = _estimate(image, part, config, size, on_stage)
        warnings = (estimate.warning,) if estimate.warning else ()
    if shape is None:
        assert estimate is not None
        shape = _found_shape(estimate, (h, w), config)
    if config.is_optimized:
        shape, warning = _method_shape(config, shape, (h, w), is_found=estimate is not None and size is None)
        warnings += (warning,) if warning else ()
    initial: tuple[InitialKernel, ...]
    if from_file is not None:
        initial = (InitialKernel(config.init, place_kernel(from_file, shape)),)
    else:
        initial = tuple(InitialKernel(name, _initial_kernel(name, shape, estimate, config)) for name in names)
    if not config.is_optimized and estimate is not None and config.kernel_size == "auto":
        # no network needs room around the kernel
        side = max(part.stop - part.start for part in support(initial[0].kernel)) | 1
        initial = tuple(item._replace(kernel=place_kernel(item.kernel, side)) for item in initial)
        shape = (side, side)
    return shape, initial, estimate, warnings


def _estimate(
    image: NDArray, part: NDArray, config: Config, size: int | None, on_stage: Callable[[str], object] | None
) -> KernelEstimate:
    """Edge-based estimate on enough of the image; a doubtful one is repeated with other settings on a larger patch."""
    is_chosen = config.region is not None or not config.patch
    gray = luma(part if is_chosen else image)[..., 0]

    side = max(gray.shape) if is_chosen else max(config.patch, PATCH)
    estimate = search_kernel(gray, size, side=side, on_stage=on_stage)
    if estimate.is_doubtful:
        estimate = search_kernel(
            gray, size, side=side * 3 // 2, settings=SECOND_SETTINGS, before=estimate, on_stage=on_stage
        )
    return estimate


def _found_shape(estimate: KernelEstimate, part: tuple[int, int], config: Config) -> tuple[int, int]:
    side = estimate.kernel.shape[0]
    roomy = min(round_up_size(side), (min(part) - 1) // 2 * 2 + 1)
    # a network can do with a kernel cut to the part that it sees
    return (roomy if config.is_optimized else max(side, roomy),) * 2


def _method_shape(
    config: Config, shape: tuple[int, int], part: tuple[int, int], is_found: bool
) -> tuple[tuple[int, int], str | None]:
    """Kernel shape that the method has for the needed one, and a warning if a found one does not fit."""
    sides = config.spec.available_sizes(config.options)
    needed = max(shape)
    if sides is None:
        return shape, None
    fitting = [side for side in sides if side <= min(part)]
    large = [side for side in sides if side >= needed]
    if large and (large[0] in fitting or not is_found):
        return (large[0], large[0]), None
    if not is_found or not fitting:
        raise ValueError(
            f"`kernel_size` must be at most {max(fitting, default=0)} for {config.method} in an image of "
            f"{part[1]}x{part[0]} pixels, got {needed}. Choose another `method`."
        )
    return (fitting[-1], fitting[-1]), (
        f"the estimated kernel has up to {needed} pixels, but {config.method} takes {fitting[-1]} here; the method "
        "robust takes any size"
    )


def _initial_kernel(
    name: str, shape: tuple[int, int], estimate: KernelEstimate | None, config: Config
) -> NDArray[np.float32]:
    """Initial kernel of a name, of this shape and with sum one."""
    if name == "uniform":
        return np.full(shape, 1 / (shape[0] * shape[1]), np.float32)
    assert estimate is not None
    if name == "edges":
        return place_kernel(estimate.kernel, shape)
    if shape[0] != shape[1]:
        raise ValueError(f"`init` = learned needs a square kernel, got {shape[1]}x{shape[0]}. Set `kernel_size`.")
    return learned_kernel(estimate, shape[0], weights_folder(config.options.get("weights", "")))
