"""Pictures of any size with bounded memory: `finish` in overlapping tiles, and the patches that tell most of a blur."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jbid.deconvolution.sparse import deconvolve_sparse, regularization_weight
from jbid.ops.kernels import trim_zeros
from jbid.ops.noise import estimate_noise, remove_impulses
from jbid.runtime.compile import jit

TILE = 1024  # pixels; the side of what is deconvolved at once, with a margin beyond
# of a tile: a third of the work, for 0.0 to 0.3 dB
TILE_OPTIONS = {"rounds": 5, "iterations": 15}


@functools.cache
def _finish(**options: Any):
    return jit(partial(deconvolve_sparse, **options))


@functools.cache
def _weight():
    return jit(lambda picture: regularization_weight(estimate_noise(remove_impulses(picture))))


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin that cover `length` with at least `overlap` in common."""
    count = max(1, math.ceil((length - overlap) / (tile - overlap)))
    return [round(i * (length - tile) / max(1, count - 1)) for i in range(count)]


def tile_weights(start: int, tile: int, length: int, overlap: int) -> NDArray[np.float32]:
    """Weights along one side of a tile: nothing in the outer third of an overlap, one beyond it, a ramp in between."""
    at = np.arange(tile, dtype=np.float32)
    before = at + 0.5 if start > 0 else np.full(tile, np.inf)
    after = tile - at - 0.5 if start + tile < length else np.full(tile, np.inf)
    return np.clip((np.minimum(before, after) - overlap / 3) / (overlap / 3), 1e-6, 1).astype(np.float32)


def deconvolve_tiled(
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
    k = jnp.asarray(trim_zeros(kernel))
    # one weight for all tiles, from the middle of the picture
    middle = picture[max(0, h - TILE) // 2 :, max(0, w - TILE) // 2 :][:TILE, :TILE]
    weight = _weight()(jnp.asarray(middle))
    if max(h, w) <= tile:
        return np.asarray(_finish(**(options or {}))(jnp.asarray(picture), k, weight=weight))
    chosen = TILE_OPTIONS if options is None else options
    overlap = max(96, 6 * max(k.shape))
    sides = [min(n, max(tile, 2 * overlap)) for n in (h, w)]
    rows, columns = (tile_starts(n, side, overlap) for n, side in zip((h, w), sides))
    out = np.zeros_like(picture)
    total = [np.zeros(n, np.float32) for n in (h, w)]
    for starts, side, length, sums in zip((rows, columns), sides, (h, w), total):
        for start in starts:
            sums[start : start + side] += tile_weights(start, side, length, overlap)
    done = 0
    for top in rows:
        for left in columns:
            part = np.s_[top : top + sides[0], left : left + sides[1]]
            x = np.asarray(_finish(**chosen)(jnp.asarray(picture[part]), k, weight=weight))
            share = np.outer(tile_weights(top, sides[0], h, overlap), tile_weights(left, sides[1], w, overlap))
            out[part] += x * share[..., None]
            done += 1
            if on_tile:
                on_tile(done, len(rows) * len(columns))
    for i in range(h):
        out[i] /= (total[0][i] * total[1])[:, None]
    return out
