"""jbid.pipeline.prepare."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jbid.io.images import read_kernel
from jbid.io.weights import weights_folder
from jbid.kernel_estimation.learned import learned_kernel
from jbid.kernel_estimation.patch import Region, most_informative_region
from jbid.kernel_estimation.search import SECOND_SETTINGS, KernelEstimate, clean_image, round_up_size, search_kernel
from jbid.methods import kernel_sizes
from jbid.ops.color import luma, srgb_to_linear
from jbid.ops.kernels import place_kernel, support
from jbid.pipeline.config import ESTIMATES, INITS, Config, init_names
from jbid.runtime.compile import clear_programs

EDGE_PATCH = 512  # pixels of the side that a start is estimated from at least
SMALLEST = 32  # pixels; below, the five scales of the image network have nothing left to work on


class InitialKernel(NamedTuple):
    """A kernel that the optimization sets out from."""

    name: str
    kernel: NDArray[np.float32]  # of the task's shape, sum one


class PreparedImage(NamedTuple):
    """A picture made ready: what the kernel is estimated from, and where that sets out."""

    picture: NDArray[np.float32]  # h w c, in linear light if asked for
    region: Region  # of the picture, that the kernel is estimated from
    observed: NDArray[np.float32]  # the region, luma or color, without impulse noise
    room: tuple[int, int]  # rows and columns that it is padded to, to share a program with others
    kernel_shape: tuple[int, int]  # odd sides
    starts: tuple[InitialKernel, ...]  # seed i sets out from starts[i % n]; none: a random start
    known: bool  # whether the start is the true kernel, to be kept
    edges: KernelEstimate | None  # how start or size were found
    warnings: tuple[str, ...]
    seconds: float


def check_size(shape: Sequence[int], kernel_size: int | str | tuple[int, int]) -> None:
    """Raise ValueError where a picture of this shape is too small to deblur with such a kernel."""
    h, w = shape[:2]
    if min(h, w) < SMALLEST:
        raise ValueError(f"got an image of {w}x{h} pixels, expected at least {SMALLEST}x{SMALLEST}")
    if isinstance(kernel_size, str):
        return
    sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    if sides[0] > h or sides[1] > w:
        raise ValueError(f"kernel size {max(sides)} is larger than the image of {w}x{h}; use a smaller one")


def _region(picture: NDArray, settings: Config) -> Region:
    h, w = picture.shape[:2]
    if settings.region is not None:
        region = Region(*settings.region)
        if region.x + region.width > w or region.y + region.height > h:
            raise ValueError(f"region {','.join(map(str, region))} reaches beyond the picture of {w}x{h} pixels")
        return region
    return most_informative_region(picture, settings.patch) if settings.patch else Region(0, 0, w, h)


def _edges(picture: NDArray, part: NDArray, settings: Config, size: int | None) -> KernelEstimate:
    """`edge_start` on enough of the picture; again with other settings, on more of it, where that looks doubtful."""

    def gray(side):
        chosen = settings.region is not None or not settings.patch
        return luma(part if chosen else most_informative_region(picture, side).of(picture))[..., 0]

    side = max(settings.patch, EDGE_PATCH)
    edges = search_kernel(gray(side), size)
    if edges.doubtful:
        edges = search_kernel(gray(side * 3 // 2), size, settings=SECOND_SETTINGS, before=edges)
    return edges


def prepare(picture: NDArray, settings: Config, *, kernel: NDArray | None = None) -> PreparedImage:
    """The task of a picture (h, w, c), float in [0, 1]: patch chosen, start and kernel size found.

    A given `kernel` (odd and square) is kept as it is. Raises ValueError for a picture, region or starting kernel that
    does not go with the kernel size.
    """
    began = time.perf_counter()
    # here, as each size of picture has programs of its own
    clear_programs()
    picture = np.asarray(picture, np.float32)
    check_size(picture.shape, settings.kernel_size)
    if settings.linear:
        picture = srgb_to_linear(picture)
    region = _region(picture, settings)
    part = region.of(picture)
    check_size(part.shape, settings.kernel_size)
    h, w = part.shape[:2]
    words = init_names(settings.start)
    edges, shape = None, None
    given: list[NDArray] = []
    warnings: list[str] = []
    size = settings.kernel_size if isinstance(settings.kernel_size, int) else None
    if size:
        shape = (size, size)
    elif settings.kernel_size == "half":
        shape = ((h + 1) // 2 | 1, (w + 1) // 2 | 1)
    if kernel is not None:
        shape = kernel.shape
    elif not words and settings.start != "random":
        given = [read_kernel(settings.start)]
        shape = shape or (round_up_size(max(given[0].shape)),) * 2
    if kernel is None and (set(words) & set(ESTIMATES) or shape is None):
        edges = _edges(picture, part, settings, size)
        warnings += [edges.warning] if edges.warning else []
        if shape is None:
            found = edges.kernel.shape[0]
            roomy = min(round_up_size(found), (min(h, w) - 1) // 2 * 2 + 1)
            # a network makes do with a kernel cut to the part that it sees
            shape = (max(found, roomy) if settings.preset == "instant" else roomy,) * 2
    assert shape is not None
    if settings.steps and kernel is None:
        shape, told = _size_of(settings, shape, (h, w), found=edges is not None and size is None)
        warnings += [told] if told else []
    observed = luma(part) if settings.color == "luma" else part
    observed = clean_image(observed) if settings.clean else observed
    if kernel is not None:
        starts = [InitialKernel("known kernel", np.asarray(kernel, np.float32))]
    elif words:
        starts = [InitialKernel(word, _started(word, shape, edges, settings)) for word in words]
    else:
        starts = [InitialKernel(settings.start, place_kernel(k, shape)) for k in given]
    if settings.preset == "instant" and edges is not None and settings.kernel_size == "auto":
        # there is no network to leave room for
        side = max(part.stop - part.start for part in support(starts[0].kernel)) | 1
        starts = [start._replace(kernel=place_kernel(start.kernel, side)) for start in starts]
        shape = (side, side)
    check_size(part.shape, shape)
    known = kernel is not None
    spent = time.perf_counter() - began
    return PreparedImage(picture, region, observed, (h, w), shape, tuple(starts), known, edges, tuple(warnings), spent)


def _size_of(
    settings: Config, shape: tuple[int, int], room: tuple[int, int], found: bool
) -> tuple[tuple[int, int], str | None]:
    """The kernel shape that the method has for the wanted one, and a warning where a found one does not fit."""
    sides = kernel_sizes(settings.method, settings.options)
    wanted = max(shape)
    if sides is None:
        return shape, None
    fitting = [side for side in sides if side <= min(room)]
    large = [side for side in sides if side >= wanted]
    if large and (large[0] in fitting or not found):
        return (large[0], large[0]), None
    if not found or not fitting:
        what = f"the largest of {settings.method} in a picture of {room[1]}x{room[0]}"
        raise ValueError(f"kernel size {wanted} is larger than {max(fitting, default=0)}, {what}; use another --method")
    return (fitting[-1], fitting[-1]), (
        f"a kernel of up to {wanted} pixels was found, {settings.method} takes one of {fitting[-1]} here; "
        "--method robust takes any"
    )


def _started(word: str, shape: tuple[int, int], edges: KernelEstimate | None, settings: Config) -> NDArray[np.float32]:
    """The kernel, of this shape and with sum one, that a word for a start stands for."""
    if word == "uniform":
        return np.full(shape, 1 / (shape[0] * shape[1]), np.float32)
    assert edges is not None
    if word == "edges":
        return place_kernel(edges.kernel, shape)
    if shape[0] != shape[1]:
        what = f"got a kernel of {shape[1]}x{shape[0]} pixels, expected a square one for the start encoder"
        raise ValueError(f"{what}; use another --kernel-size")
    folder = weights_folder(settings.options.get("weights", ""))
    return learned_kernel(edges, shape[0], folder)


def check_deconvolve(settings: Config, shape: Sequence[int]) -> None:
    """Raise ValueError where the network's own image is asked for but covers a part of the picture alone."""
    if not settings.finish and (settings.region or 0 < settings.patch < max(shape[:2])):
        raise ValueError(
            "without --finish the network must see the whole picture: add --finish, or --patch 0 without --region"
        )


def init_file(start: str) -> Path | None:
    """The kernel file that a start names, or None. Raises ValueError where it is neither a word nor a file."""
    if start == "random" or init_names(start):
        return None
    if not Path(start).is_file():
        raise ValueError(
            f"got start {start!r}, expected random, {', '.join(INITS)}, several such as edges+encoder, or the file of "
            "a kernel"
        )
    return Path(start)
