"""Pictures of any size with bounded memory: `finish` in overlapping tiles, and the patches that tell most of a blur."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from jbid.finish import finish, weight_for
from jbid.noise import noise_level, without_impulses
from jbid.run import compiled

TILE = 1024  # pixels; the side of what is deconvolved at once, with a margin beyond
# of a tile: a third of the work, for 0.0 to 0.3 dB
TILE_OPTIONS = {"rounds": 5, "iterations": 15}


@functools.cache
def _finish(**options: Any):
    return compiled(partial(finish, **options))


@functools.cache
def _weight():
    return compiled(lambda picture: weight_for(noise_level(without_impulses(picture))))


class Region(NamedTuple):
    """A rectangle of a picture, in pixels from its upper left corner."""

    x: int
    y: int
    width: int
    height: int

    def of(self, picture: NDArray) -> NDArray:
        """The part of a picture (h, w, c)."""
        return picture[self.y : self.y + self.height, self.x : self.x + self.width]


def starts_of(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin that cover `length` with at least `overlap` in common."""
    count = max(1, math.ceil((length - overlap) / (tile - overlap)))
    return [round(i * (length - tile) / max(1, count - 1)) for i in range(count)]


def window(start: int, tile: int, length: int, overlap: int) -> NDArray[np.float32]:
    """Weights along one side of a tile: nothing in the outer third of an overlap, one beyond it, a ramp in between."""
    at = np.arange(tile, dtype=np.float32)
    before = at + 0.5 if start > 0 else np.full(tile, np.inf)
    after = tile - at - 0.5 if start + tile < length else np.full(tile, np.inf)
    return np.clip((np.minimum(before, after) - overlap / 3) / (overlap / 3), 1e-6, 1).astype(np.float32)


def _compact(kernel: NDArray) -> NDArray:
    """The kernel without the frame of zeros around it, its centre where it was; one with even sides as it is."""
    if kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
        return kernel
    part = []
    for axis in (1, 0):
        middle = kernel.shape[1 - axis] // 2
        reach = int(np.abs(np.flatnonzero(kernel.any(axis)) - middle).max(initial=0))
        part.append(slice(middle - reach, middle + reach + 1))
    return kernel[tuple(part)]


def finish_large(
    picture: NDArray[np.float32],
    kernel: NDArray[np.float32],
    *,
    tile: int = TILE,
    options: Mapping[str, Any] | None = None,
    on_tile: Callable[[int, int], object] | None = None,
) -> NDArray[np.float32]:
    """`finish` of a picture (h, w, c) of any size, tile by tile; memory beside the picture grows with the tile alone.

    Tiles overlap by 6 kernel sizes, at least 96 pixels; the outer third of an overlap, where a tile does not know what
    lies beyond it, is left out, and the rest blended linearly. A picture of at most `tile` pixels in both directions
    is restored at once. `options` are those of `finish`; by default, tiles get fewer iterations, which costs up to
    0.3 dB with large kernels (docs/experiments.md). `on_tile(done, of)` is told of progress.
    """
    h, w = picture.shape[:2]
    k = jnp.asarray(_compact(kernel))
    # one weight for all tiles, from the middle of the picture
    middle = picture[max(0, h - TILE) // 2 :, max(0, w - TILE) // 2 :][:TILE, :TILE]
    weight = _weight()(jnp.asarray(middle))
    if max(h, w) <= tile:
        return np.asarray(_finish(**(options or {}))(jnp.asarray(picture), k, weight=weight))
    chosen = TILE_OPTIONS if options is None else options
    overlap = max(96, 6 * max(k.shape))
    sides = [min(n, max(tile, 2 * overlap)) for n in (h, w)]
    rows, columns = (starts_of(n, side, overlap) for n, side in zip((h, w), sides))
    out = np.zeros_like(picture)
    total = [np.zeros(n, np.float32) for n in (h, w)]
    for starts, side, length, sums in zip((rows, columns), sides, (h, w), total):
        for start in starts:
            sums[start : start + side] += window(start, side, length, overlap)
    done = 0
    for top in rows:
        for left in columns:
            part = np.s_[top : top + sides[0], left : left + sides[1]]
            x = np.asarray(_finish(**chosen)(jnp.asarray(picture[part]), k, weight=weight))
            share = np.outer(window(top, sides[0], h, overlap), window(left, sides[1], w, overlap))
            out[part] += x * share[..., None]
            done += 1
            if on_tile:
                on_tile(done, len(rows) * len(columns))
    for i in range(h):
        out[i] /= (total[0][i] * total[1])[:, None]
    return out


def informative(picture: NDArray[np.float32], side: int) -> Region:
    """The square of `side` pixels (or the whole picture's side, where that is less) that tells most of a blur.

    Blur is read from strong edges in many directions that were not clipped: the largest mean of the smaller eigenvalue
    of the structure tensor of luma (the strength of the weakest direction, Harris and Stephens 1988), at the scale of
    a patch, from which clipped pixels count out.
    """
    gray = picture.mean(-1)
    h, w = gray.shape
    height, width = min(side, h), min(side, w)
    if (height, width) == (h, w):
        return Region(0, 0, w, h)
    step = max(1, min(h, w) // 512)
    small = gray[: h // step * step, : w // step * step].reshape(h // step, step, w // step, step).mean((1, 3))
    dy, dx = np.gradient(small)
    usable = scipy.ndimage.minimum_filter((small > 0.02) & (small < 0.98), 5)
    # few very strong edges, of a lamp or the frame of a scan, must not outweigh many good ones
    length = np.hypot(dx, dy)
    limit = np.quantile(length, 0.98)
    scale = usable * np.minimum(1, limit / np.maximum(length, 1e-9))
    dx, dy = dx * scale, dy * scale
    size = (max(1, height // step), max(1, width // step))
    xx, yy, xy = (scipy.ndimage.uniform_filter(v, size, mode="constant") for v in (dx * dx, dy * dy, dx * dy))
    weakest = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    # centres of windows that lie within the picture
    rows = slice(size[0] // 2, small.shape[0] - (size[0] - 1) // 2)
    columns = slice(size[1] // 2, small.shape[1] - (size[1] - 1) // 2)
    i, j = np.unravel_index(np.argmax(weakest[rows, columns]), weakest[rows, columns].shape)
    return Region(min(int(j) * step, w - width), min(int(i) * step, h - height), width, height)
