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

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from skimage.registration import phase_cross_correlation
from tqdm import tqdm

from jbid.data.crops import find_images, split_indices
from jbid.deconvolution.learned import contrast_scale
from jbid.deconvolution.sparse import THRESHOLD, Clipped, regularization_weight, sparse_deconvolution
from jbid.deconvolution.tiled import TILE_OPTIONS
from jbid.io.files import atomic_write
from jbid.kernel_estimation.search import search_kernel
from jbid.metrics import kernel_similarity
from jbid.ops.conv import crop_center, pad_edge
from jbid.ops.kernels import normalize_kernel, pad_to_odd_square, trim_zeros
from jbid.ops.noise import estimate_error
from jbid.pretrain.blurred_photos import Blurred, blur_photo, draw_kernel, perturb_kernel

POOL_VERSION = 4  # to be raised when the pool changes, so that no earlier file is used
OWN = 2  # estimates of each photo, which differ: have a similarity of less than
DIFFERENT = 0.985
RIGHT = 0.6  # least similarity to the true kernel
OTHERS = 9  # further photos with the same blur, because an estimate is what takes long
KERNELS = 2  # of each photo
FEW = 0.3  # share of deconvolutions with the few iterations of a tile
PHOTOS_OF_PROCESS = 50


class Config(NamedTuple):
    """Settings of the training of a `DeconvolutionNet`.

    Attributes:
        photos: folder of sharp photos.
        problems, held_out: blurred photos for training, and those that are measured on; each with a few kernels.
        least, largest: extent of the kernels in pixels, log-uniform.
        width, deep_width: channels of the network.
        stages: of the network.
        steps, batch: of the training.
        crop: side, in pixels, of the parts of photos that are deconvolved; a multiple of 4.
        rate: first learning rate; it falls by a cosine to zero after a rise of `warm_up` steps.
        warm_up: steps.
        decay: weight decay.
        average: decay of the mean of the weights, which is what is shipped.
        processes: that make the pool; 1: this one.
        seed: random seed.
    """

    photos: str = ""
    problems: int = 240
    held_out: int = 20
    least: float = 5
    largest: float = 90
    width: int = 32
    deep_width: int = 48
    stages: int = 2
    steps: int = 8000
    batch: int = 4
    crop: int = 192
    rate: float = 1e-3
    warm_up: int = 200
    decay: float = 1e-4
    average: float = 0.998
    processes: int = 2
    seed: int = 0


class Item(NamedTuple):
    """One deconvolution of a part of a blurred photo.

    Attributes:
        kind: of the kernel: "true", "perturbed", "estimated", or "other", estimated on another photo.
        similarity: of the kernel to the true one.
        noise: of the photo.
        estimate: of its noise level.
        scale: of `contrast_scale`.
        blurred: (n, n), with 8 bits.
        kernel: (s, s), s odd, with sum one.
        latent: (n + s - 1, n + s - 1), the sparse deconvolution with its surroundings.
        sharp: (n, n).
    """

    kind: str
    similarity: float
    noise: float
    estimate: float
    scale: float
    blurred: NDArray[np.uint8]
    kernel: NDArray[np.float32]
    latent: NDArray[np.float32]
    sharp: NDArray[np.float16]


def _estimates(blurred: NDArray[np.float32], kernel: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The best `OWN` estimates of jbid that are right and differ."""
    found: list[NDArray[np.float32]] = []
    for candidate in search_kernel(blurred).kernels:
        if len(found) < OWN and kernel_similarity(candidate, kernel) >= RIGHT:
            if all(kernel_similarity(candidate, other) < DIFFERENT for other in found):
                found.append(trim_zeros(candidate))
    return found


def _shift_between(sharp: NDArray[np.float32], deconvolved: NDArray[np.float32]) -> NDArray[np.float64]:
    """Fractions of a pixel by which a deconvolution lies beside the sharp photo, because its kernel's place is free."""
    smooth = [scipy.ndimage.gaussian_filter(x, 1) for x in (deconvolved, sharp)]
    return phase_cross_correlation(*smooth, upsample_factor=20, normalization=None)[0]


def _deconvolve(
    photo: Blurred, true_kernel: NDArray, kind: str, kernel: NDArray, window: tuple[slice, slice], is_short: bool
) -> Item:
    """Deconvolution of a part of a photo; `is_short`: with the few iterations of a tile."""
    k = normalize_kernel(pad_to_odd_square(kernel), THRESHOLD)
    estimate, y = estimate_error(photo.blurred[..., None]), photo.blurred[window][..., None]
    latent = sparse_deconvolution(
        y,
        k,
        pad_edge(y, k.shape),
        weight=float(regularization_weight(np.asarray(estimate, np.float32))),
        clipped=Clipped.of(y),
        **(TILE_OPTIONS if is_short else {}),
    )
    sharp = photo.sharp
    if kind != "true":
        shift = _shift_between(sharp[window], crop_center(latent, k.shape)[..., 0])
        sharp = scipy.ndimage.shift(sharp, shift, order=5, mode="nearest")
    return Item(
        kind=kind,
        similarity=kernel_similarity(k, true_kernel),
        noise=photo.noise,
        estimate=float(estimate),
        scale=contrast_scale(photo.blurred),
        blurred=np.rint(255 * y[..., 0]).astype(np.uint8),
        kernel=k,
        latent=latent[..., 0],
        sharp=sharp[window].astype(np.float16),
    )


def make_items(config: Config, files: Sequence[Path], index: int) -> list[Item]:
    """Deconvolutions of a blurred photo and `OTHERS` more with the same blur; the same for the same number.

    `KERNELS` of each photo are drawn from the true one, a perturbed one and estimates on the first photo.
    """
    rng = np.random.default_rng([config.seed, index])
    true_kernel = draw_kernel(config.least, config.largest, rng)
    first = blur_photo(files, true_kernel, rng, config.crop)
    estimates = _estimates(first.blurred, true_kernel)
    items = []
    for i in range(1 + OTHERS):
        photo = blur_photo(files, true_kernel, rng, config.crop) if i else first
        kernels = [("true", trim_zeros(true_kernel)), ("perturbed", perturb_kernel(true_kernel, rng))]
        kernels += [("other" if i else "estimated", k) for k in estimates]
        corner = [int(rng.integers(n - config.crop + 1)) for n in photo.blurred.shape]
        window = slice(corner[0], corner[0] + config.crop), slice(corner[1], corner[1] + config.crop)
        for j in rng.permutation(len(kernels))[:KERNELS]:
            kind, kernel = kernels[j]
            items.append(_deconvolve(photo, true_kernel, kind, kernel, window, bool(rng.random() < FEW)))
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
    mark = [
        POOL_VERSION,
        held_out,
        config.least,
        config.largest,
        config.crop,
        config.seed,
        [path.name for path in files],
    ]
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
