"""Pairs of a sharp and a blurred crop for training, read by grain: stored pairs, averaged frames or blurred photos."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jbid.data.crops import (
    HELD_OUT_PERIOD,
    crops,
    draw_crop,
    draw_window,
    find_images,
    import_map_dataset,
    rotate_and_flip,
    shuffle_repeatedly,
    split_indices,
    to_rgb,
)
from jbid.io.images import read_image, read_kernel
from jbid.ops import motion
from jbid.ops.conv import blur
from jbid.runtime.compile import jit

N_FRAMES = (5, 15)  # least and largest number of averaged frames
CACHE_BYTES = 1 << 30  # of frames in memory
GAMMA = 2.2  # of the camera that recorded the frames


class Pair(NamedTuple):
    """Sharp and blurred image, or many with a leading axis.

    Attributes:
        sharp, blurred: (side, side, 3) float32 in [0, 1].
    """

    sharp: NDArray[np.float32]
    blurred: NDArray[np.float32]


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """List the pairs of a sharp and a blurred file in a folder and its subfolders.

    A pair is `sharp/NAME` beside `blur/NAME`, as in GoPro, or `X_sharp.EXT` beside `X_blur.EXT`.
    """
    file_pairs = []
    for blurred in find_images(folder):
        if blurred.parent.name == "blur":
            sharp = blurred.parent.parent / "sharp" / blurred.name
        elif blurred.stem.endswith("_blur"):
            sharp = blurred.with_name(blurred.stem.removesuffix("_blur") + "_sharp" + blurred.suffix)
        else:
            continue
        if sharp.is_file():
            file_pairs.append((sharp, blurred))
    return file_pairs


def _read_pairs(folder: Path, side: int, seed: int, held_out: bool | None) -> Any:
    """Crops of the pairs in a folder."""
    file_pairs = find_pairs(folder)
    if not file_pairs:
        raise ValueError(
            f"{folder}: no pairs found. Expected sharp/NAME beside blur/NAME, or X_sharp.png beside X_blur.png."
        )

    def read(i: int) -> NDArray[np.float32]:
        sharp, blurred = (read_image(path) for path in file_pairs[i])
        if sharp.shape[:2] != blurred.shape[:2]:
            raise ValueError(f"{file_pairs[i][1]}: the sharp and the blurred image must have the same size")
        return np.concatenate([to_rgb(sharp), to_rgb(blurred)], -1)

    data = shuffle_repeatedly(split_indices(len(file_pairs), held_out), seed).map(read)
    return data.random_map(lambda stacked, rng: draw_crop(stacked, rng, side)).map(_split_channels)


def _split_channels(stacked: NDArray[np.float32]) -> Pair:
    """Pair of an array (side, side, 6)."""
    return Pair(stacked[..., :3], stacked[..., 3:])


def find_clips(folder: Path) -> list[list[Path]]:
    """List the frames of each clip, in order of the numbers in their names.

    A clip is a folder or subfolder with enough images for an average. Files of `find_pairs` are no frames.
    """
    paired_files = {path for pair in find_pairs(folder) for path in pair}

    def sort_key(path: Path) -> list:
        return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", path.name)]

    by_folder: dict[Path, list[Path]] = {}
    for path in find_images(folder):
        if path not in paired_files:
            by_folder.setdefault(path.parent, []).append(path)
    return [sorted(frames, key=sort_key) for frames in by_folder.values() if len(frames) >= N_FRAMES[1]]


def _read_frame(path: Path) -> NDArray[np.uint8]:
    return np.round(to_rgb(read_image(path)) * 255).astype(np.uint8)


def average_frames(frames: Sequence[NDArray[np.uint8]], gamma: float = GAMMA) -> NDArray[np.float32]:
    """Average frames in linear light, as a camera does: (mean of frame^gamma)^(1/gamma) (Tran et al. 2021, 2.3)."""
    light = (np.arange(256, dtype=np.float32) / 255) ** gamma
    mean = sum(light[frame] for frame in frames) / len(frames)
    return np.asarray(mean, np.float32) ** np.float32(1 / gamma)


def _split_clip(clip: list[Path], held_out: bool | None) -> list[Path]:
    """Training frames of a clip or its held-out ones, which come last; no average contains both."""
    longest = N_FRAMES[1]
    cut = len(clip) - max(len(clip) // HELD_OUT_PERIOD, longest)
    if cut < longest or held_out is None:
        return clip
    return clip[cut:] if held_out else clip[:cut]


def _average_clips(folder: Path, side: int, seed: int, held_out: bool | None) -> Any:
    """Crops of averaged frames, with the middle frame as the sharp image."""
    longest = N_FRAMES[1]
    parts = [_split_clip(clip, held_out) for clip in find_clips(folder)]
    positions = [(frames, i) for frames in parts for i in range(len(frames) - longest + 1)]
    if not positions:
        raise ValueError(f"{folder}: no folder with at least {longest} consecutive frames found")

    # 8 bits per value, because the cache is limited by its bytes
    cache_size = max(longest, CACHE_BYTES // _read_frame(positions[0][0][0]).nbytes)
    read = functools.lru_cache(maxsize=cache_size)(_read_frame)

    def average(position: tuple[list[Path], int], rng: np.random.Generator) -> Pair:
        paths, first = position
        n = int(rng.integers(N_FRAMES[0], N_FRAMES[1] + 1))
        frames = [read(path) for path in paths[first : first + n]]
        if min(frames[0].shape[:2]) < side:
            raise ValueError(f"{paths[first]}: the frame must have at least {side} pixels on each side")
        window = draw_window(frames[0].shape, side, rng)
        frames = [frame[window] for frame in frames]
        stacked = np.concatenate([np.float32(frames[n // 2] / 255), average_frames(frames)], -1)
        return _split_channels(rotate_and_flip(stacked, rng))

    return shuffle_repeatedly(positions, seed).random_map(average)


@functools.lru_cache(maxsize=8)
def _blur_with_random_kernel(size: int, model: str):
    """Compiled function (seed, sharp image) -> image with the blur of a simulated kernel."""

    def convolve(seed, sharp):
        return blur(sharp, motion.motion_kernels(jax.random.key(seed), size, 1, model)[0])

    return jit(convolve)


@functools.cache
def _compiled_blur():
    return jit(blur)


def _read_kernels(folder: str) -> list[NDArray[np.float32]]:
    """Kernels in a folder, zero-padded to the sides of the largest one."""
    kernels = [read_kernel(path) for path in find_images(Path(folder))]
    if not kernels:
        raise ValueError(f"{folder}: no kernels found")
    side = max(max(k.shape) for k in kernels)
    if side % 2 == 0:
        raise ValueError(f"{folder}: the largest kernel must have odd sides, got {side}")
    return [np.pad(k, [((side - n) // 2, side - n - (side - n) // 2) for n in k.shape]) for k in kernels]


def _blur_photos(
    name: str, side: int, seed: int, held_out: bool | None, size: int, shares: Mapping[str, float], kernels: str
) -> Any:
    """Crops of photos and their true convolution with simulated kernels of `size`, or with those in `kernels`."""
    recorded = _read_kernels(kernels) if kernels else []
    kernel_side = max(recorded[0].shape) if recorded else size
    if kernel_side % 2 == 0:
        raise ValueError(f"`size` must be odd, got {size}")
    probabilities = motion.normalize_shares(shares)

    def make_pair(sharp: NDArray[np.float32], rng: np.random.Generator) -> Pair:
        if recorded:
            blurred = _compiled_blur()(jnp.asarray(sharp), jnp.asarray(recorded[rng.integers(len(recorded))]))
        else:
            model = str(rng.choice(list(shares), p=probabilities))
            blurred = _blur_with_random_kernel(size, model)(int(rng.integers(2**31)), jnp.asarray(sharp))
        half = kernel_side // 2
        return Pair(sharp[half : half + side, half : half + side], np.asarray(blurred))

    return crops(name, side + kernel_side - 1, seed, held_out=held_out, color=True).random_map(make_pair)


def pairs(
    side: int,
    seed: int,
    *,
    folder: str = "",
    frames: str = "",
    photos: str = "",
    kernels: str = "",
    size: int = 31,
    shares: Mapping[str, float] = {"camera": 1.0},
    mix: Mapping[str, float] = {},
    held_out: bool | None = False,
) -> Any:
    """Pairs of random crops as a `grain.MapDataset` of `Pair`, from one to three sources.

    Item i is the same in every run.

    Args:
        side: of the crops.
        seed: random seed.
        folder: pairs of files, see `find_pairs`.
        frames: folder of clips of sharp frames, of which 5 to 15 consecutive ones are averaged.
        photos: folder or TFDS data set of sharp photos, see `jbid.data.crops.crops`, to be blurred.
        kernels: folder of kernels for `photos`; empty: simulated kernels.
        size: odd side of the simulated kernels.
        shares: proportions of their models.
        mix: proportions of the sources "pairs", "frames" and "photos"; the default of each is 1.
        held_out: photos of `split_indices`, and pairs likewise. The last twentieth of each clip is held out, and at
            least 15 frames.

    Raises:
        ValueError: for a missing source, an empty folder, and options out of range.
    """
    sources = {
        "pairs": (folder, lambda: _read_pairs(Path(folder), side, seed, held_out)),
        "frames": (frames, lambda: _average_clips(Path(frames), side, seed, held_out)),
        "photos": (photos, lambda: _blur_photos(photos, side, seed, held_out, size, shares, kernels)),
    }
    if unknown := set(mix) - set(sources):
        raise ValueError(f"`mix` must name sources among {', '.join(sources)}, got {', '.join(unknown)}")
    chosen = {name: make for name, (path, make) in sources.items() if path and mix.get(name, 1) > 0}
    if not chosen:
        raise ValueError("no pairs to train on. Set `frames`, `photos` or a folder of pairs.")
    if missing := [name for name, share in mix.items() if share > 0 and name not in chosen]:
        raise ValueError(f"`mix` needs a folder for each of its sources, got none for {' and '.join(missing)}")
    for name in chosen:
        path = sources[name][0]
        if name != "photos" and not Path(path).is_dir():
            raise ValueError(f"{path}: no such folder")
    return import_map_dataset().mix([make() for make in chosen.values()], [mix.get(name, 1) for name in chosen])
