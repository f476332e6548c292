"""Deconvolutions with true, perturbed and estimated kernels, from which a learned deconvolution is trained."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
import scipy.signal
from numpy.typing import NDArray
from skimage.registration import phase_cross_correlation
from tqdm import tqdm

from jbid.data.crops import find_images, split_indices
from jbid.deconvolution.learned import contrast_scale, correction_maps, image_levels
from jbid.deconvolution.sparse import Clipped, regularization_weight, sparse_deconvolution
from jbid.deconvolution.tiled import TILE_OPTIONS
from jbid.io.files import atomic_write
from jbid.io.images import read_image
from jbid.kernel_estimation.search import search_kernel
from jbid.metrics import kernel_similarity
from jbid.ops.camera import Degradation, degrade
from jbid.ops.color import luma
from jbid.ops.conv import pad_edge
from jbid.ops.kernels import extent, pad_to_odd_square, trim_zeros
from jbid.ops.motion import kernel_of_extent
from jbid.ops.noise import estimate_noise

POOL_VERSION = 1  # to be raised when the pool changes, so that no earlier file is used
LARGEST_PHOTO = 352  # pixels; longest side of a photo
NOISES = ((0.0005, 0.003, 0.008, 0.015, 0.03), (0.3, 0.25, 0.2, 0.15, 0.1))  # bounds and their shares
BRIGHT = 0.15  # share of photos brightened by up to
BRIGHTEST = 1.8
OWN = 2  # estimates of each photo, which differ: have a similarity of less than
DIFFERENT = 0.985
RIGHT = 0.6  # least similarity to the true kernel
FEW = 0.3  # share of deconvolutions with the few iterations of a tile
PHOTOS_OF_PROCESS = 50
BORDER = 8  # pixels that no crop contains


class Config(NamedTuple):
    """Settings of the training of a `DeconvolutionNet`.

    Attributes:
        photos: folder of sharp photos.
        problems, held_out: blurred photos for training, and those that are measured on; each with a few kernels.
        least, largest: extent of the kernels in pixels, log-uniform.
        width, deep_width: channels of the network.
        steps, batch, crop: of the training; `crop` is a multiple of 4.
        rate: first learning rate; it falls by a cosine to zero after a rise of `warm_up` steps.
        warm_up: steps.
        decay: weight decay.
        average: decay of the mean of the weights, which is what is shipped.
        processes: that make the pool; 1: this one.
        seed: random seed.
    """

    photos: str = ""
    problems: int = 400
    held_out: int = 40
    least: float = 5
    largest: float = 90
    width: int = 32
    deep_width: int = 48
    steps: int = 8000
    batch: int = 8
    crop: int = 128
    rate: float = 1e-3
    warm_up: int = 200
    decay: float = 1e-4
    average: float = 0.998
    processes: int = 2
    seed: int = 0


class Item(NamedTuple):
    """One deconvolution of a blurred photo.

    Attributes:
        kind: of the kernel: "true", "perturbed" or "estimated".
        similarity: of the kernel to the true one.
        extent: of the kernel in pixels.
        noise: bound of the noise of the photo.
        scale: of all maps.
        levels: of `image_levels`.
        maps, sharp: (h, w, `MAPS`) and (h, w) of half precision.
    """

    kind: str
    similarity: float
    extent: int
    noise: float
    scale: float
    levels: NDArray[np.float32]
    maps: NDArray[np.float16]
    sharp: NDArray[np.float16]


def perturb_kernel(kernel: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Kernel with errors like those of an estimate: noise around its support, some blur, small values lost.

    After Nan and Ji 2020, Deep Learning for Handling Kernel/Model Uncertainty in Image Deconvolution, section 4.
    """
    k = np.pad(kernel, 2)
    k = k + rng.uniform(0, 0.1) * k.max() * rng.standard_normal(k.shape) * scipy.ndimage.binary_dilation(k > 0)
    k = scipy.ndimage.gaussian_filter(np.maximum(k, 0), rng.uniform(0.2, 0.8))
    k[k < rng.uniform(0.005, 0.06) * k.max()] = 0
    return trim_zeros((k / k.sum()).astype(np.float32))


def _estimates(blurred: NDArray[np.float32], kernel: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The best `OWN` estimates of jbid that are right and differ."""
    found: list[NDArray[np.float32]] = []
    for candidate in search_kernel(blurred).kernels:
        if len(found) < OWN and kernel_similarity(candidate, kernel) >= RIGHT:
            if all(kernel_similarity(candidate, other) < DIFFERENT for other in found):
                found.append(trim_zeros(candidate))
    return found


def draw_photo(
    config: Config, files: Sequence[Path], index: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], float]:
    """Sharp photo of a number, blurred photo, kernel and bound of the noise; the same ones each time."""
    rng = np.random.default_rng([config.seed, index])
    photo = luma(read_image(files[int(rng.integers(len(files)))]))[..., 0]
    photo = photo[:, ::-1] if rng.random() < 0.5 else photo
    size = np.exp(rng.uniform(np.log(config.least), np.log(min(config.largest, min(photo.shape) / 3))))
    kernel = kernel_of_extent(size, int(rng.integers(2**31)))
    top, left = (int(rng.integers(max(0, n - LARGEST_PHOTO) + 1)) for n in photo.shape)
    photo = photo[top : top + LARGEST_PHOTO, left : left + LARGEST_PHOTO]
    if rng.random() < BRIGHT:
        photo = photo * rng.uniform(1, BRIGHTEST)
    noise = float(rng.choice(NOISES[0], p=NOISES[1]))
    blurred = scipy.signal.fftconvolve(photo, kernel, "valid").astype(np.float32)
    bounds = Degradation(noise=noise, jpeg=75 if rng.random() < 0.25 else 100, rounded=True)
    key = jax.random.key(int(rng.integers(2**31)))
    blurred = np.asarray(degrade(key, jnp.asarray(blurred), bounds))
    (h, w), half = blurred.shape, kernel.shape[0] // 2
    return np.clip(photo[half : half + h, half : half + w], 0, 1).astype(np.float32), blurred, kernel, noise


def _shift_to(sharp: NDArray[np.float32], deconvolved: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sharp photo moved by fractions of a pixel to where a deconvolution lies, because its kernel's place is free."""
    smooth = [scipy.ndimage.gaussian_filter(x, 1) for x in (deconvolved, sharp)]
    shift = phase_cross_correlation(*smooth, upsample_factor=20, normalization=None)[0]
    return scipy.ndimage.shift(sharp, shift, order=5, mode="nearest")


def make_items(config: Config, files: Sequence[Path], index: int) -> list[Item]:
    """Deconvolutions of the photo of a number: with the true kernel, a perturbed one and jbid's own estimates."""
    sharp, blurred, kernel, noise = draw_photo(config, files, index)
    rng = np.random.default_rng([config.seed, index, 1])
    kernels = [("true", trim_zeros(kernel)), ("perturbed", perturb_kernel(kernel, rng))]
    kernels += [("estimated", k) for k in _estimates(blurred, kernel)]
    noise_level, scale = estimate_noise(blurred[..., None]), contrast_scale(blurred)
    level, weight = float(noise_level), float(regularization_weight(noise_level))
    items = []
    for kind, k in kernels:
        k = pad_to_odd_square(k)
        latent = sparse_deconvolution(
            blurred[..., None],
            k,
            pad_edge(blurred[..., None], k.shape),
            weight=weight,
            clipped=Clipped.of(blurred[..., None]),
            **(TILE_OPTIONS if rng.random() < FEW else {}),
        )[..., 0]
        maps = correction_maps(blurred, k, latent, scale)
        target = sharp if kind == "true" else _shift_to(sharp, maps[..., 0] / scale)
        inside = slice(BORDER, -BORDER), slice(BORDER, -BORDER)
        items.append(
            Item(
                kind,
                kernel_similarity(k, kernel),
                extent(k),
                noise,
                scale,
                image_levels(level, scale, k),
                maps[inside].astype(np.float16),
                (target * scale)[inside].astype(np.float16),
            )
        )
    return items


def _write_items(config: Config, files: Sequence[Path], index: int, path: Path) -> None:
    arrays = {
        f"{n}_{name}": value
        for n, item in enumerate(make_items(config, files, index))
        for name, value in item._asdict().items()
    }
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def _read_items(path: Path) -> list[Item]:
    with np.load(path) as saved:
        count = len({name.split("_")[0] for name in saved})
        rows = [{field: saved[f"{n}_{field}"] for field in Item._fields} for n in range(count)]
    return [Item(**{k: v.item() if v.ndim == 0 else v for k, v in row.items()}) for row in rows]


def _in_processes(count: int, write: Callable[..., None], *columns: Sequence[Any]) -> Iterator[None]:
    """`map`, on several processes; what has not begun is dropped if the caller stops."""
    if count == 1:
        yield from map(write, *columns)
        return
    # new processes now and then, because what JAX keeps of each image size adds up; an executor that renews its own
    # processes can hang (Python issue 115634)
    size = count * PHOTOS_OF_PROCESS
    for first in range(0, len(columns[0]), size):
        executor = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))
        try:
            yield from executor.map(write, *(column[first : first + size] for column in columns))
        finally:
            executor.shutdown(cancel_futures=True)


def pool(config: Config, folder: Path, held_out: bool) -> list[Item]:
    """Items of all photos; `folder` keeps them, one file for each photo.

    Raises:
        ValueError: for a folder without photos.
    """
    files = find_images(Path(config.photos)) if config.photos else []
    files = [files[i] for i in split_indices(len(files), held_out)]
    if not files:
        raise ValueError(f"`photos` must be a folder of images, got {config.photos!r}")
    mark = [POOL_VERSION, held_out, config.least, config.largest, config.seed, [path.name for path in files]]
    name = hashlib.sha256(json.dumps(mark).encode()).hexdigest()[:12]
    (folder / "pool").mkdir(parents=True, exist_ok=True)
    # the numbers of held-out photos differ, so that their kernels do
    numbers = range(config.held_out) if held_out else range(1_000_000, 1_000_000 + config.problems)
    paths = {i: folder / "pool" / f"{name}_{i:07}.npz" for i in numbers}
    missing = [i for i in numbers if not paths[i].exists()]
    write = partial(_write_items, config, files)
    title = "held-out photos" if held_out else "training photos"
    written = _in_processes(config.processes, write, missing, [paths[i] for i in missing])
    for _ in tqdm(written, title, len(missing), unit="photo", dynamic_ncols=True):
        pass
    return [item for path in paths.values() for item in _read_items(path)]
