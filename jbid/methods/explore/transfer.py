"""Blur transfer and synthesis on images of any size, and data sets of pairs made by it."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jbid.deconvolution.tiled import Axis, blend_tiles
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

# places of the code: images of more than 1024 pixels go through the networks in tiles
TILE, OVERLAP = 8, 2
LOG = "pairs.csv"


@functools.lru_cache(maxsize=4)
def _compile(extract: Callable, blur: Callable) -> tuple[Callable, Callable]:
    return jit(lambda x, y: extract(x, y)[0]), jit(blur)


def _axes(places: tuple[int, int], tile: int = TILE) -> tuple[Axis, Axis]:
    """Tiles of a code along its two axes."""
    rows, columns = (Axis(n, min(tile, n), OVERLAP) for n in places)
    return rows, columns


def _pixels(image: NDArray, axes: tuple[Axis, Axis], top: int, left: int) -> NDArray:
    """Tile of a padded image that belongs to the tile of its code at (top, left)."""
    rows, columns = axes
    return image[
        top * STRIDE : (top + rows.tile) * STRIDE,
        left * STRIDE : (left + columns.tile) * STRIDE,
    ]


def extract_code(
    operator: Operator, sharp: NDArray[np.float32], blurred: NDArray[np.float32], *, tile: int = TILE
) -> NDArray[np.float32]:
    """Code (a, b, d) of the blur between two images of one size; large ones in overlapping tiles.

    Args:
        operator: the blur operator.
        sharp, blurred: (h, w, 1 or 3) in [0, 1].
        tile: side of a tile, in places of the code.

    Raises:
        ValueError: for images of different sizes.
    """
    if sharp.shape[:2] != blurred.shape[:2]:
        sizes = " and ".join(f"{x.shape[1]}x{x.shape[0]}" for x in (sharp, blurred))
        raise ValueError(f"`sharp` and `blurred` must have the same size, got {sizes} pixels")
    padded = [np.asarray(pad_to_stride(jnp.asarray(x))) for x in (sharp, blurred)]
    extract = _compile(operator.extract, operator.blur)[0]
    axes = _axes(code_shape(sharp.shape), tile)

    def compute(top, left):
        return np.asarray(extract(*(jnp.asarray(_pixels(x, axes, top, left)) for x in padded)))

    return blend_tiles(*axes, operator.width, compute)


def apply_code(
    operator: Operator, image: NDArray[np.float32], code: NDArray[np.float32], *, tile: int = TILE
) -> NDArray[np.float32]:
    """Image (h, w, c) with the blur of a code, F(image, code), in [0, 1]; large ones in overlapping tiles."""
    places = code_shape(image.shape)
    padded = np.asarray(pad_to_stride(jnp.asarray(image)))
    code = np.asarray(resize_code(jnp.asarray(code), places))
    blur = _compile(operator.extract, operator.blur)[1]
    axes = _axes(places, tile)

    def compute(top, left):
        top, left = top // STRIDE, left // STRIDE
        part = code[top : top + axes[0].tile, left : left + axes[1].tile]
        return np.asarray(blur(jnp.asarray(_pixels(padded, axes, top, left)), jnp.asarray(part)))

    pixel_axes = [axis.scaled(STRIDE) for axis in axes]
    blurred = jnp.asarray(blend_tiles(pixel_axes[0], pixel_axes[1], image.shape[-1], compute))
    return np.clip(crop_to_shape(blurred, image.shape), 0, 1)


def _paths(out: Path, index: int) -> list[Path]:
    return [out / part / f"{index:06}.png" for part in ("sharp", "blur")]


def _read_log(out: Path) -> dict[int, list]:
    if not (out / LOG).exists():
        return {}
    with (out / LOG).open(newline="") as file:
        return {int(row[0]): row for row in list(csv.reader(file))[1:]}


def _write_log(out: Path, rows: Mapping[int, Sequence]) -> None:
    header = ["pair", "psnr_of_source_reblurred", "psnr_of_source_sharp"]
    with atomic_write(out / LOG) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows([header, *(rows[i] for i in sorted(rows))])


def write_pairs(
    operator: Operator,
    targets: Any,
    count: int,
    out: Path,
    *,
    sources: Any = None,
    seed: int = 0,
    batch: int = 8,
) -> Iterator[int]:
    """Write `count` pairs sharp/<i>.png and blur/<i>.png: crops of `targets`, blurred by the operator.

    pairs.csv holds the PSNR of each source's reblurred image F(sharp, G(sharp, blurred)), and that of its sharp one.
    Existing pairs are not made again.

    Args:
        operator: the blur operator.
        targets: random-access source of crops of one size, such as `jbid.data.crops.crops`.
        count: number of pairs.
        out: folder of the results.
        sources: random-access source of pairs, such as `jbid.data.pairs.pairs`: target i gets the blur of source i,
            F(target, G(sharp, blurred)). None: random blurs, `sample_code`.
        seed: of the random blurs.
        batch: pairs per batch.

    Yields:
        The number of pairs that exist so far.
    """
    for part in ("sharp", "blur"):
        (out / part).mkdir(parents=True, exist_ok=True)
    # the blurred image is written last
    missing = [i for i in range(count) if not _paths(out, i)[1].exists()]
    rows = _read_log(out)
    make = _random_pairs(operator, seed) if sources is None else _transferred_pairs(operator, sources, rows)
    yield count - len(missing)
    for first in range(0, len(missing), batch):
        chosen = missing[first : first + batch]
        # copies fill up the last batch, so that one program serves all
        filled = [*chosen, *[chosen[-1]] * (batch - len(chosen))]
        target = np.stack([targets[i] for i in filled])
        blurred = make(filled, target)
        if sources is not None:
            _write_log(out, rows)
        for j, i in enumerate(chosen):
            for path, image in zip(_paths(out, i), (target[j], blurred[j])):
                write_image(path, image)
        yield count - len(missing) + first + len(chosen)


def _random_pairs(operator: Operator, seed: int) -> Callable[[list[int], NDArray], NDArray]:
    key = jax.random.key(seed)

    @jit
    @jax.vmap
    def draw(i, target):
        return apply_blur(operator, target, sample_code(operator, jax.random.fold_in(key, i), target.shape))

    return lambda indices, target: np.asarray(draw(jnp.asarray(indices), jnp.asarray(target)))


def _transferred_pairs(
    operator: Operator, sources: Any, rows: dict[int, list]
) -> Callable[[list[int], NDArray], NDArray]:
    @jit
    @jax.vmap
    def transfer(x, y, target):
        code = operator.extract(x, y)[0]
        return apply_blur(operator, target, code), apply_blur(operator, x, code)

    def make(indices, target):
        sharp, blurred = (np.stack(column) for column in zip(*(sources[i] for i in indices)))
        result, reblurred = (np.asarray(x) for x in transfer(sharp, blurred, target))
        for j, i in enumerate(indices):
            rows[i] = [i, f"{psnr(reblurred[j], blurred[j]):.3f}", f"{psnr(sharp[j], blurred[j]):.3f}"]
        return result

    return make
