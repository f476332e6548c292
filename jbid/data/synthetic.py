"""Blurred images simulated from sharp ones, reproducible by a seed."""

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

# proportions of the kernel models in the training of the shipped weights
MIXED = {"camera": 0.8, "trajectory": 0.1, "gaussian_process": 0.1}


def synthesize(item: Item, noise: str | None, seed: int, *, blurred: bool = True) -> Item:
    """Replace the blurred image of an item by one simulated from its ground truth, rounded to 8 bits.

    Args:
        item: with ground truth.
        noise: such as "gaussian:0.01", see `jbid.ops.noise.parse_noise`. Its values depend on the seed, the name of the
            item and this specification.
        seed: random seed.
        blurred: False leaves the image sharp, with a kernel of one pixel.
    """
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
    """Central part of an image (h, w, ...), at most `side` pixels in each direction."""
    top, left = (max(0, n - side) // 2 for n in image.shape[:2])
    return image[top : top + side, left : left + side]


class Synthetic(NamedTuple):
    """Set of photos blurred by simulated kernels, like that of Zhang et al., ECCV 2024, section 5.1 (80 COCO images).

    The kernel of an image depends on the seed, its name, the kernel size and its number alone. So the images stay the
    same in a set with more photos, kernels or sizes.

    Attributes:
        folder: of the sharp photos.
        sizes: odd sides of the kernels.
        kernels: number of kernels per photo and size.
        model: "mixed" or a model of `jbid.ops.motion`.
        noise: such as "gaussian:0.01".
        crop: largest side of the blurred images.
        seed: random seed.
    """

    folder: Path
    sizes: tuple[int, ...] = (31,)
    kernels: int = 1
    model: str = "mixed"
    noise: str | None = None
    crop: int = 256
    seed: int = 0

    @property
    def NAMES(self) -> tuple[str, ...]:
        """Name of each photo, size and kernel.

        Raises:
            ValueError: if the folder has no images.
        """
        photos = list_images(Path(self.folder))
        if not photos:
            raise ValueError(f"{self.folder}: no images found. Expected a folder of sharp photos.")
        return tuple(f"{p.name}__{size}_{j}" for p in photos for size in self.sizes for j in range(self.kernels))

    def groups(self, name: str) -> dict[str, str]:
        """Groups of an image, by kind: the size of its kernel."""
        return {"size": f"size {name.rpartition('__')[2].partition('_')[0]}"}

    def load(self, data: str | Path | None, names: Sequence[str]) -> list[Item]:
        """Make images of the set.

        Args:
            data: not needed, because the set has its folder.
            names: of the images.

        Raises:
            ValueError: for an unknown name, and for a photo that is too small for its kernel.
        """
        all_names = self.NAMES  # lists the folder once
        for name in names:
            if name not in all_names:
                raise ValueError(f"unknown image {name!r}. Names go from {all_names[0]} to {all_names[-1]}.")
        return [self._load_item(name) for name in names]

    def _load_item(self, name: str) -> Item:
        file, _, rest = name.rpartition("__")
        size = int(rest.partition("_")[0])
        sharp = crop_center_square(read_image(Path(self.folder) / file), self.crop + size - 1)
        if min(sharp.shape[:2]) < 2 * size:
            h, w = sharp.shape[:2]
            raise ValueError(f"{file}: {w}x{h} pixels are too few for kernels of {size}. Set smaller `sizes`.")
        key = jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(name.encode()))
        shares = MIXED if self.model == "mixed" else {self.model: 1.0}
        kernel = np.asarray(motion.mixed_kernels(key, size, 1, shares))[0]
        return synthesize(Item(name, sharp, sharp, kernel, size), self.noise, self.seed)
