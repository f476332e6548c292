"""Pairs of a sharp and a blurred crop for training: from pairs, from averaged frames, or from photos; with grain."""

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

from jbid.data.crops import KEPT_APART, apart, crop, crops, endless, files, map_dataset, place, random_flip, rgb
from jbid.io.images import read_image, read_kernel
from jbid.ops import motion
from jbid.ops.conv import blur
from jbid.runtime.compile import jit

FRAMES = (5, 15)  # so many are averaged
CACHE = 1 << 30  # bytes of frames that are kept in memory
GAMMA = 2.2  # of the camera whose frames are averaged


class Pair(NamedTuple):
    """A sharp and a blurred image, (side, side, 3) float32 in [0, 1], or many with a leading axis."""

    sharp: NDArray[np.float32]
    blurred: NDArray[np.float32]


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Files of a sharp and a blurred image each, in a folder with its subfolders.

    Either `sharp/NAME` beside `blur/NAME`, as in GoPro, or `X_sharp.EXT` beside `X_blur.EXT`.
    """
    found = []
    for path in files(folder):
        if path.parent.name == "blur":
            partner = path.parent.parent / "sharp" / path.name
        elif path.stem.endswith("_blur"):
            partner = path.with_name(path.stem.removesuffix("_blur") + "_sharp" + path.suffix)
        else:
            continue
        if partner.is_file():
            found.append((partner, path))
    return found


def _pairs(folder: Path, side: int, seed: int, held_out: bool | None) -> Any:
    found = find_pairs(folder)
    if not found:
        raise ValueError(f"{folder}: no pairs there; expected sharp/NAME and blur/NAME, or X_sharp.png and X_blur.png")

    def read(i: int) -> NDArray[np.float32]:
        sharp, blurred = (read_image(path) for path in found[i])
        if sharp.shape[:2] != blurred.shape[:2]:
            raise ValueError(f"{found[i][1]}: the blurred image and the sharp one are of different sizes")
        return np.concatenate([rgb(sharp), rgb(blurred)], -1)

    data = endless(apart(len(found), held_out), seed).map(read)
    return data.random_map(lambda both, rng: crop(both, rng, side)).map(lambda x: Pair(x[..., :3], x[..., 3:]))


def clips(folder: Path) -> list[list[Path]]:
    """Consecutive frames: the files of each subfolder with enough of them, by the numbers in their names.

    Files of a pair (`paired`) are no frames.
    """
    pairs_there = {path for pair in find_pairs(folder) for path in pair}

    def numbers(path: Path) -> list:
        return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", path.name)]

    by_folder: dict[Path, list[Path]] = {}
    for path in files(folder):
        if path not in pairs_there:
            by_folder.setdefault(path.parent, []).append(path)
    return [sorted(found, key=numbers) for found in by_folder.values() if len(found) >= FRAMES[1]]


def _frame(path: Path) -> NDArray[np.uint8]:
    return np.round(rgb(read_image(path)) * 255).astype(np.uint8)


def average_frames(frames: Sequence[NDArray[np.uint8]], gamma: float = GAMMA) -> NDArray[np.float32]:
    """Average of frames in linear light, as a camera sees them: (mean of frame^gamma)^(1/gamma) (Tran et al., 2.3)."""
    light = (np.arange(256, dtype=np.float32) / 255) ** gamma
    mean = sum(light[frame] for frame in frames) / len(frames)
    return np.asarray(mean, np.float32) ** np.float32(1 / gamma)


def _averages(folder: Path, side: int, seed: int, held_out: bool | None) -> Any:
    reach = FRAMES[1]
    found = clips(folder)
    # the end of each clip is kept apart, and nothing that was averaged for training lies in it
    spans = []
    for clip in found:
        cut = len(clip) - max(len(clip) // KEPT_APART, reach)
        whole = cut < reach or held_out is None
        span = clip if whole else clip[cut:] if held_out else clip[:cut]
        spans.append(span)
    starts = [(span, i) for span in spans for i in range(len(span) - reach + 1)]
    if not starts:
        raise ValueError(f"{folder}: no folder of at least {reach} consecutive frames there")

    # a clip's frames are read again and again; eight bits keep them small, and a limit in bytes the memory
    kept = max(reach, CACHE // _frame(starts[0][0][0]).nbytes)
    read = functools.lru_cache(maxsize=kept)(_frame)

    def made(item: tuple[list[Path], int], rng: np.random.Generator) -> Pair:
        span, first = item
        n = int(rng.integers(FRAMES[0], FRAMES[1] + 1))
        frames = [read(path) for path in span[first : first + n]]
        if min(frames[0].shape[:2]) < side:
            raise ValueError(f"{span[first]}: smaller than the crops, {side} pixels")
        at = place(frames[0].shape, side, rng)
        parts = [frame[at] for frame in frames]
        both = np.concatenate([np.float32(parts[n // 2] / 255), average_frames(parts)], -1)
        both = random_flip(both, rng)
        return Pair(both[..., :3], both[..., 3:])

    return endless(starts, seed).random_map(made)


@functools.lru_cache(maxsize=8)
def _blurrer(size: int, model: str):
    def made(seed, sharp):
        return blur(sharp, motion.motion_kernels(jax.random.key(seed), size, 1, model)[0])

    return jit(made)


@functools.cache
def _convolver():
    return jit(blur)


def _convolved(
    name: str, side: int, seed: int, held_out: bool | None, size: int, shares: Mapping[str, float], kernels: str
) -> Any:
    """Photos blurred with simulated kernels of `size`, or with those in the folder `kernels`, true convolution."""
    known = [read_kernel(path) for path in files(Path(kernels))] if kernels else []
    if kernels and not known:
        raise ValueError(f"{kernels}: no kernels there")
    margin = max((max(k.shape) for k in known), default=size)
    known = [np.pad(k, [((margin - n) // 2, margin - n - (margin - n) // 2) for n in k.shape]) for k in known]
    if margin % 2 == 0:
        raise ValueError(f"{kernels or size}: the largest kernel has an even side, expected an odd one")

    chances = motion.normalize_shares(shares)

    def made(sharp: NDArray[np.float32], rng: np.random.Generator) -> Pair:
        if known:
            blurred = _convolver()(jnp.asarray(sharp), jnp.asarray(known[rng.integers(len(known))]))
        else:
            model = str(rng.choice(list(shares), p=chances))
            blurred = _blurrer(size, model)(int(rng.integers(2**31)), jnp.asarray(sharp))
        half = margin // 2
        return Pair(sharp[half : half + side, half : half + side], np.asarray(blurred))

    return crops(name, side + margin - 1, seed, held_out=held_out, color=True).random_map(made)


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
    """Pairs of crops as a `grain.MapDataset` of `Pair`: item i is the same in every run.

    From up to three sources, in the proportion of `mix` ("pairs", "frames", "photos", one each where it says nothing):
    `folder` of pairs (`paired`); `frames`, a folder of clips of sharp frames, 5 to 15 of which are averaged, the middle
    one being the sharp image; `photos`, as for `jbid.data.crops.crops`, blurred with kernels of `size` from the
    models of `shares`, or with those of the folder `kernels`. What is `held_out` is as for `crops`; of clips the
    last twentieth, but at least 15 frames. Raises ValueError where there is nothing in a folder.
    """
    known = {
        "pairs": (folder, lambda: _pairs(Path(folder), side, seed, held_out)),
        "frames": (frames, lambda: _averages(Path(frames), side, seed, held_out)),
        "photos": (photos, lambda: _convolved(photos, side, seed, held_out, size, shares, kernels)),
    }
    if unknown := set(mix) - set(known):
        raise ValueError(f"got {', '.join(unknown)} in mix, expected {', '.join(known)}")
    chosen = {name: make for name, (given, make) in known.items() if given and mix.get(name, 1) > 0}
    if not chosen:
        raise ValueError("no pairs to train on: add --set pairs=FOLDER, --set frames=FOLDER or --set photos=FOLDER")
    if absent := [name for name, share in mix.items() if share > 0 and name not in chosen]:
        raise ValueError(f"mix asks for {' and '.join(absent)}: add --set {absent[0]}=FOLDER, or give another mix")
    for name in chosen:
        path = known[name][0]
        if name != "photos" and not Path(path).is_dir():
            raise ValueError(f"{path}: no such folder")
    return map_dataset().mix([make() for make in chosen.values()], [mix.get(name, 1) for name in chosen])
