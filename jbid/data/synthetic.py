"""Blurred images made from sharp ones, the same ones again from the same seed."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jbid.data.levin import Item
from jbid.io.images import list_images, read_image
from jbid.ops import motion
from jbid.ops.conv import blur, crop_center
from jbid.ops.noise import NOISE_MODELS, parse_noise

# what the kernels of jbid's own trainings are drawn from
MIXED = {"camera": 0.8, "trajectory": 0.1, "gaussian_process": 0.1}


def synthesize(item: Item, noise: str | None, seed: int, *, blurred: bool = True) -> Item:
    """The item with an image made from its truth; the noise depends on the seed, the item's name and the model."""
    assert item.sharp is not None and item.kernel is not None
    x = jnp.asarray(item.sharp)
    k = jnp.asarray(item.kernel if blurred else np.ones((1, 1), np.float32))
    y = blur(x, k)
    if noise:
        model, level = parse_noise(noise)
        key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(f"{item.name} {noise}".encode()))
        y = NOISE_MODELS[model](key, y, level)
    y = np.round(np.clip(np.asarray(y), 0, 1) * 255) / np.float32(255)
    return item._replace(blurred=y, sharp=np.asarray(crop_center(x, k.shape)), kernel=np.asarray(k))


def crop_center_square(image: NDArray, side: int) -> NDArray:
    """The middle of an image (h, w, ...), at most `side` pixels in each direction."""
    top, left = (max(0, n - side) // 2 for n in image.shape[:2])
    return image[top : top + side, left : left + side]


class Synthetic(NamedTuple):
    """Sharp images of a folder, each blurred by simulated kernels of its own, rounded to 8 bits.

    The kernel of an image depends on the seed, its name, the size and its number alone: with more images, kernels or
    sizes those that were there stay the same. After Zhang et al., ECCV 2024, section 5.1 (80 images of COCO).
    """

    folder: Path
    sizes: tuple[int, ...] = (31,)  # of kernels, odd
    kernels: int = 1  # for each image and size
    model: str = "mixed"  # or one of jbid.motion
    noise: str | None = None
    crop: int = 256  # pixels of the blurred image's sides, at most
    seed: int = 0

    @property
    def NAMES(self) -> tuple[str, ...]:
        """One for each image, size and kernel. Raises ValueError where the folder has no images."""
        found = list_images(Path(self.folder))
        if not found:
            raise ValueError(f"{self.folder}: no images there; give --data a folder of sharp photos")
        return tuple(f"{p.name}__{size}_{j}" for p in found for size in self.sizes for j in range(self.kernels))

    def groups(self, name: str) -> dict[str, str]:
        """Groups of an image, by kind: the size of its kernel."""
        return {"size": f"size {name.rpartition('__')[2].partition('_')[0]}"}

    def load(self, data: str | Path | None, names: Sequence[str]) -> list[Item]:
        """The named images. Raises ValueError for unknown names and for images smaller than kernels."""
        items = []
        known = self.NAMES  # reads the folder
        for name in names:
            if name not in known:
                raise ValueError(f"no image is called {name!r}; names go from {known[0]} to {known[-1]}")
            file, _, rest = name.rpartition("__")
            size = int(rest.partition("_")[0])
            sharp = crop_center_square(read_image(Path(self.folder) / file), self.crop + size - 1)
            if min(sharp.shape[:2]) < 2 * size:
                h, w = sharp.shape[:2]
                raise ValueError(
                    f"{file}: {w}x{h} pixels are too few for kernels of {size}; leave it out, or use smaller --sizes"
                )
            key = jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(name.encode()))
            shares = MIXED if self.model == "mixed" else {self.model: 1.0}
            kernel = np.asarray(motion.mixed_kernels(key, size, 1, shares))[0]
            items.append(synthesize(Item(name, sharp, sharp, kernel, size), self.noise, self.seed))
        return items
