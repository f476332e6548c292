"""Blur transfer and synthesis on images of any size, and data sets of pairs made by it."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jbid.deconvolution.tiled import tile_starts, tile_weights
from jbid.io.files import atomic_write
from jbid.io.images import write_image
from jbid.methods.explore.blur_operator import (
    Operator,
    apply_blur,
    code_shape,
    crop_to_shape,
    pad_to_stride,
    resize_code,
    sample_code,
)
from jbid.metrics import psnr
from jbid.nets.kernel_wizard import STRIDE
from jbid.runtime.compile import jit

TILE, OVERLAP = 8, 2  # places of the code: images of more than 1024 pixels go through the networks in parts


@functools.lru_cache(maxsize=4)
def _compiled(extract: Callable, blur: Callable) -> tuple[Callable, Callable]:
    return jit(lambda x, y: extract(x, y)[0]), jit(blur)


Tile = tuple[slice, slice]  # rows and columns of a code


def _pixels(tile: Tile, scale: int = STRIDE) -> Tile:
    """The rows and columns of a `padded` image that belong to a tile of its code."""
    rows, columns = (slice(part.start * scale, part.stop * scale) for part in tile)
    return rows, columns


def _tiled(places: tuple[int, int], scale: int, channels: int, made: Callable[[Tile], NDArray]) -> NDArray[np.float32]:
    """What `made` gives of each tile, blended; `scale` pixels of it to a place."""
    sides = [min(TILE, n) for n in places]
    total = np.zeros((places[0] * scale, places[1] * scale, channels), np.float32)
    weight = np.zeros((*total.shape[:2], 1), np.float32)
    for top in tile_starts(places[0], sides[0], min(OVERLAP, sides[0] - 1)):
        for left in tile_starts(places[1], sides[1], min(OVERLAP, sides[1] - 1)):
            tile = slice(top, top + sides[0]), slice(left, left + sides[1])
            ramps = [
                tile_weights(first * scale, n * scale, whole * scale, OVERLAP * scale)
                for first, n, whole in zip((top, left), sides, places)
            ]
            share = np.outer(*ramps)[..., None]
            at = _pixels(tile, scale)
            total[at] += share * made(tile)
            weight[at] += share
    return total / weight


def extract_code(of: Operator, sharp: NDArray[np.float32], blurred: NDArray[np.float32]) -> NDArray[np.float32]:
    """The code (a, b, d) of the blur between two images of one size; of large ones in overlapping tiles.

    Raises ValueError for images of different sizes.
    """
    if sharp.shape[:2] != blurred.shape[:2]:
        sizes = " and ".join(f"{x.shape[1]}x{x.shape[0]}" for x in (sharp, blurred))
        raise ValueError(f"got images of {sizes} pixels, expected a sharp and a blurred one of one size")
    whole = [np.asarray(pad_to_stride(jnp.asarray(x))) for x in (sharp, blurred)]
    extract = _compiled(of.extract, of.blur)[0]

    def made(tile):
        return np.asarray(extract(*(jnp.asarray(x[_pixels(tile)]) for x in whole)))

    return _tiled(code_shape(sharp.shape), 1, of.width, made)


def apply_code(of: Operator, image: NDArray[np.float32], code: NDArray[np.float32]) -> NDArray[np.float32]:
    """The image (h, w, c) with the blur of a code, F(image, code), in [0, 1]; large ones in overlapping tiles."""
    places = code_shape(image.shape)
    whole = np.asarray(pad_to_stride(jnp.asarray(image)))
    code = np.asarray(resize_code(jnp.asarray(code), places))
    blur = _compiled(of.extract, of.blur)[1]

    def made(tile):
        return np.asarray(blur(jnp.asarray(whole[_pixels(tile)]), jnp.asarray(code[tile])))

    blurred = jnp.asarray(_tiled(places, STRIDE, image.shape[-1], made))
    return np.clip(crop_to_shape(blurred, image.shape), 0, 1)


LOG = "pairs.csv"


def write_pairs(
    of: Operator,
    targets: Any,
    count: int,
    out: Path,
    *,
    sources: Any = None,
    seed: int = 0,
    batch: int = 8,
) -> Iterator[int]:
    """`count` pairs `out`/sharp/<i>.png and `out`/blur/<i>.png: crops of `targets`, blurred by the operator.

    `targets` and `sources` are random-access sources of crops of one size, such as `jbid.data.crops.crops` and
    `jbid.data.pairs.pairs`. Target i gets the blur of source i, F(target, G(sharp, blurred)), or without sources one
    that is drawn (`operators.drawn`). `out`/pairs.csv tells for each source how well F(sharp, G(sharp, blurred)) gives
    its blurred image, as PSNR, and how far that is from the sharp one. What is there already is not made again;
    yields the number of pairs that are done.
    """
    for part in ("sharp", "blur"):
        (out / part).mkdir(parents=True, exist_ok=True)

    def paths(i: int) -> list[Path]:
        return [out / part / f"{i:06}.png" for part in ("sharp", "blur")]

    # the blurred image is written last
    missing = [i for i in range(count) if not paths(i)[1].exists()]
    rows: dict[int, list] = {}
    if (out / LOG).exists():
        with (out / LOG).open(newline="") as file:
            rows = {int(row[0]): row for row in list(csv.reader(file))[1:]}
    key = jax.random.key(seed)

    @jit
    @jax.vmap
    def put_on(x, y, target):
        code = of.extract(x, y)[0]
        return apply_blur(of, target, code), apply_blur(of, x, code)

    @jit
    @jax.vmap
    def draw(i, target):
        return apply_blur(of, target, sample_code(of, jax.random.fold_in(key, i), target.shape))

    yield count - len(missing)
    for first in range(0, len(missing), batch):
        chosen = missing[first : first + batch]
        # the last batch is filled up, so that one program serves all
        filled = [*chosen, *[chosen[-1]] * (batch - len(chosen))]
        target = np.stack([targets[i] for i in filled])
        if sources is None:
            made = np.asarray(draw(jnp.asarray(filled), jnp.asarray(target)))
        else:
            sharp, blurred = (np.stack(column) for column in zip(*(sources[i] for i in filled)))
            made, again = (np.asarray(x) for x in put_on(sharp, blurred, target))
            for j, i in enumerate(chosen):
                rows[i] = [i, f"{psnr(again[j], blurred[j]):.3f}", f"{psnr(sharp[j], blurred[j]):.3f}"]
            with atomic_write(out / LOG) as temporary, temporary.open("w", newline="") as file:
                header = ["pair", "psnr_of_source_reblurred", "psnr_of_source_sharp"]
                csv.writer(file).writerows([header, *(rows[i] for i in sorted(rows))])
        for j, i in enumerate(chosen):
            for path, image in zip(paths(i), (target[j], made[j])):
                write_image(path, image)
        yield count - len(missing) + first + len(chosen)
