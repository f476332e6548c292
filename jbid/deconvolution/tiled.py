"""Deconvolution of images of any size with bounded memory: overlapping tiles, blended without seams."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jbid.deconvolution.learned import contrast_scale, deconvolve_learned, is_in_range, kernel_levels
from jbid.deconvolution.sparse import Clipped, deconvolve_sparse, regularization_weight
from jbid.nets.deconvolver import FACTOR
from jbid.ops.color import luma
from jbid.ops.kernels import pad_to_odd_square, trim_zeros
from jbid.ops.noise import estimate_error, remove_impulses
from jbid.runtime.compile import jit
from jbid.runtime.parallel import runs_on_host

TILE = 1024  # pixels; side of a tile, with its margin
# share of pixels with a clipped channel above which colors are restored channel by channel, with more reweightings,
# because with each of them more clipped pixels are found to lie within the range
MANY_CLIPPED = 0.002
MOST_CLIPPED = 0.02  # share above which the sparse deconvolution is better than the learned one
LARGE = 4_000_000  # pixels of a photo that the learned deconvolution makes slower, and better only with noise
SAMPLED = 3  # pixels; one of so many in each direction is looked at
CLIPPED_OPTIONS: dict[str, Any] = {"per_channel": True, "rounds": 8, "iterations": 20}
# of a tile: a third of the work of a whole image
TILE_OPTIONS: dict[str, Any] = {"rounds": 4, "iterations": 10}

Deconvolution = Literal["auto", "sparse", "learned"]


@functools.cache
def _deconvolver(deconvolve: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    deconvolve = partial(deconvolve, **options)
    return deconvolve if runs_on_host() else jit(deconvolve)


class Axis(NamedTuple):
    """Tiles along one axis, in pixels.

    Attributes:
        length: of the image.
        tile: of a tile.
        overlap: least number of pixels that neighbors have in common.
        unit: tiles begin at multiples of it.
    """

    length: int
    tile: int
    overlap: int
    unit: int = 1

    def starts(self) -> list[int]:
        """First pixel of each tile."""
        if self.length <= self.tile:
            return [0]
        count = math.ceil((self.length - self.overlap) / (self.tile - self.overlap))
        span = (self.length - self.tile) // self.unit
        return [round(i * span / (count - 1)) * self.unit for i in range(count)]

    def weights(self, start: int) -> NDArray[np.float32]:
        """Blending weights of a tile: zero in the outer third of an overlap, then a ramp, one in the interior."""
        index = np.arange(self.tile, dtype=np.float32)
        before = index + 0.5 if start > 0 else np.full(self.tile, np.inf)
        after = self.tile - index - 0.5 if start + self.tile < self.length else np.full(self.tile, np.inf)
        ramp = (np.minimum(before, after) - self.overlap / 3) / (self.overlap / 3)
        return np.clip(ramp, 1e-6, 1).astype(np.float32)

    def scaled(self, factor: int) -> Axis:
        """The same tiles in an image that is larger by a factor."""
        return Axis(*(n * factor for n in self))


def tile_grid(rows: Axis, columns: Axis) -> Iterator[tuple[int, int]]:
    """First row and first column of each tile, row by row."""
    yield from itertools.product(rows.starts(), columns.starts())


def blend_tiles(
    rows: Axis, columns: Axis, channels: int, compute: Callable[[int, int], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Blend overlapping tiles to an image (rows.length, columns.length, channels).

    Args:
        rows, columns: tiles along the two axes.
        channels: of the image.
        compute: the tile whose first row and column are given, (rows.tile, columns.tile, channels).
    """
    out = np.zeros((rows.length, columns.length, channels), np.float32)
    total = [np.zeros(axis.length, np.float32) for axis in (rows, columns)]
    for axis, sums in zip((rows, columns), total):
        for start in axis.starts():
            sums[start : start + axis.tile] += axis.weights(start)
    for top, left in tile_grid(rows, columns):
        share = np.outer(rows.weights(top), columns.weights(left))
        out[top : top + rows.tile, left : left + columns.tile] += compute(top, left) * share[..., None]
    # row by row, because a whole array of weights would be as large as the image
    for i in range(rows.length):
        out[i] /= (total[0][i] * total[1])[:, None]
    return out


def _plan(
    image: NDArray[np.float32],
    kernel: NDArray,
    method: Deconvolution,
    weight: float | None,
    options: Mapping[str, Any] | None,
    is_tiled: bool,
    is_exact: bool,
) -> tuple[NDArray[np.float32], Callable[..., Any]]:
    """Kernel, square if a network sees it, and a function of a tile, this kernel and `unknown`."""
    k = np.asarray(trim_zeros(kernel), np.float32)
    # one pixel of so many of a large image, whose luma would cost memory
    sample = image[::SAMPLED, ::SAMPLED] if is_tiled else image
    clipped = float(Clipped.of(sample).bright.mean())
    if options is None:
        options = CLIPPED_OPTIONS if clipped > MANY_CLIPPED else TILE_OPTIONS if is_tiled else {}
    is_learned = method == "learned" or (method == "auto" and clipped <= MOST_CLIPPED)
    noise, scale = 0.0, 1.0
    if is_learned or weight is None:
        top, left = (max(0, n - TILE) // 2 for n in image.shape[:2])
        noise = estimate_error(luma(remove_impulses(image[top : top + TILE, left : left + TILE])))
    if weight is None:
        weight = float(regularization_weight(np.asarray(noise, np.float32)))
    if is_learned:
        scale = contrast_scale(luma(sample)[..., 0])
        is_learned = method == "learned" or is_in_range(
            k, noise * scale, is_exact=is_exact, is_large=image[..., 0].size > LARGE
        )
    if not is_learned:
        return k, partial(_deconvolver(deconvolve_sparse, **options), weight=weight)
    k = pad_to_odd_square(k)
    numbers = {"scale": scale, "noise": noise, "levels": kernel_levels(k / k.sum())}
    return k, partial(_deconvolver(deconvolve_learned, **options), weight=weight, **numbers)


def deconvolve_tiled(
    image: NDArray[np.float32],
    kernel: NDArray[np.float32],
    *,
    method: Deconvolution = "auto",
    weight: float | None = None,
    tile: int = TILE,
    unknown: NDArray[np.bool_] | None = None,
    highest: float = 1.0,
    options: Mapping[str, Any] | None = None,
    is_exact: bool = True,
    on_tile: Callable[[int, int], object] | None = None,
) -> NDArray[np.float32]:
    """Deconvolution of an image of any size, tile by tile; the memory beside the image depends on the tile only.

    Tiles overlap by 6 kernel sizes, at least 96 pixels. The outer third of an overlap lacks context and is left out;
    the rest is blended linearly. An image of at most `tile` pixels in both directions is restored at once.

    Args:
        image: (h, w, c) in [0, 1].
        kernel: (kh, kw).
        method: "sparse": `deconvolve_sparse`; "learned": `deconvolve_learned`; "auto": learned for the noise levels and
            kernels with which the networks win (`is_in_range`), unless many pixels are clipped.
        weight: of the gradient prior; None: by the noise level, or the error of JPEG, in the center of the
            image, the same for all tiles.
        tile: side of a tile in pixels.
        unknown: (h, w), True for pixels that do not count; None: all do.
        highest: value that the result is clipped to.
        options: of `deconvolve_sparse`; None: tiles get fewer iterations than a small image (`TILE_OPTIONS`), images
            with many clipped pixels more (`CLIPPED_OPTIONS`).
        is_exact: the kernel is known, not estimated; "auto" depends on it.
        on_tile: called with the number of finished tiles and their total.
    """
    (h, w), image = image.shape[:2], np.asarray(image, np.float32)
    is_tiled = max(h, w) > tile
    k, deconvolve = _plan(image, kernel, method, weight, options, is_tiled, is_exact)
    deconvolve = partial(deconvolve, highest=highest)
    if not is_tiled:
        return np.asarray(deconvolve(image, k, unknown=unknown))
    overlap = max(96, 6 * max(k.shape))
    side = max(tile, 2 * overlap)
    # tiles begin at multiples of the network's unit, so that neighbors agree
    rows, columns = (Axis(n, min(n, side + (n - side) % FACTOR), overlap, FACTOR) for n in (h, w))
    total = len(rows.starts()) * len(columns.starts())
    done = 0

    def compute(top, left):
        nonlocal done
        window = slice(top, top + rows.tile), slice(left, left + columns.tile)
        own = None if unknown is None else unknown[window]
        result = np.asarray(deconvolve(image[window], k, unknown=own))
        done += 1
        if on_tile:
            on_tile(done, total)
        return result

    return blend_tiles(rows, columns, image.shape[2], compute)
