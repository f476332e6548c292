"""Training of a learned deconvolution on the errors that real kernel estimates make."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.ndimage
import scipy.signal
from jax import Array
from numpy.typing import NDArray
from skimage.registration import phase_cross_correlation
from tqdm import tqdm

from jbid.data.crops import find_images, split_indices
from jbid.deconvolution.learned import MAPS, contrast_scale, correction_maps, image_levels
from jbid.deconvolution.sparse import CLIPPED, regularization_weight, sparse_deconvolution
from jbid.deconvolution.tiled import TILE_OPTIONS
from jbid.io.files import atomic_write
from jbid.io.images import read_image
from jbid.kernel_estimation.search import search_kernel
from jbid.metrics import kernel_similarity
from jbid.nets.deconvolver import FACTOR, DeconvolutionNet
from jbid.ops.camera import Degradation, degrade
from jbid.ops.color import luma
from jbid.ops.conv import pad_edge
from jbid.ops.kernels import extent, pad_to_odd_square, trim_zeros
from jbid.ops.motion import kernel_of_extent
from jbid.ops.noise import estimate_noise
from jbid.pretrain.loop import State, Training
from jbid.runtime.compile import jit

POOL_VERSION = 1  # to be raised when the pool changes, so that no earlier file is used
LARGEST_PHOTO = 352  # pixels; longest side of a photo
NOISES = ((0.0005, 0.003, 0.008, 0.015, 0.03), (0.3, 0.25, 0.2, 0.15, 0.1))  # bounds and their shares
BRIGHT = 0.15  # share of photos brightened by up to
BRIGHTEST = 1.8
OWN = 2  # estimates of each photo, which differ: have a similarity of less than
DIFFERENT = 0.985
RIGHT = 0.6  # least similarity to the true kernel
FEW = 0.3  # share of deconvolutions with the few iterations of a tile
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


class Batch(NamedTuple):
    """Crops of a step.

    Attributes:
        maps: (n, h, w, `MAPS`), of `correction_maps`.
        levels: (n, 2), of `image_levels`.
        sharp: (n, h, w), scaled as the maps.
    """

    maps: Any
    levels: Any
    sharp: Any


class Item(NamedTuple):
    """One deconvolution of a blurred photo.

    Attributes:
        kind: of the kernel: "true", "perturbed" or "estimated".
        similarity: of the kernel to the true one.
        extent: of the kernel in pixels.
        noise: bound of the noise of the photo.
        scale: of all maps.
        levels: as in `Batch`.
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
            limits=CLIPPED,
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


@contextlib.contextmanager
def _processes(count: int) -> Iterator[Callable[..., Iterable[None]]]:
    """`map`, on several processes; what has not begun is dropped if the block ends early."""
    if count == 1:
        yield map
        return
    executor = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield executor.map
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
    with _processes(config.processes) as run:
        for _ in tqdm(
            run(write, missing, [paths[i] for i in missing]), title, len(missing), unit="photo", dynamic_ncols=True
        ):
            pass
    return [item for path in paths.values() for item in _read_items(path)]


def _turn(batch: Batch, rng: np.random.Generator) -> Batch:
    """The crops, rotated by a random multiple of 90 degrees and mirrored at random."""
    quarter, is_mirrored = int(rng.integers(4)), bool(rng.integers(2))

    def turn(x):
        x = np.rot90(x, quarter, (1, 2))
        return np.ascontiguousarray(x[:, :, ::-1] if is_mirrored else x)

    return Batch(turn(batch.maps), batch.levels, turn(batch.sharp))


class TrainingState(NamedTuple):
    """State of a training and the mean of its weights.

    Attributes:
        state: of the training.
        mean: exponential mean of its variables.
    """

    state: State
    mean: Any


class _Deconvolver:
    """Network, data and steps of the training."""

    def __init__(self, config: Config, folder: Path):
        if config.crop % FACTOR:
            raise ValueError(f"`crop` must be a multiple of {FACTOR}, got {config.crop}")
        if config.warm_up >= config.steps:
            raise ValueError(f"`warm_up` must be less than `steps`, got {config.warm_up} of {config.steps}")
        self.config, self.net = config, DeconvolutionNet(config.width, config.deep_width)
        schedule = optax.warmup_cosine_decay_schedule(0, config.rate, config.warm_up, config.steps)
        self.tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=config.decay))
        self.held_out = pool(config, folder, held_out=True)
        self.items = [x for x in pool(config, folder, held_out=False) if min(x.sharp.shape) >= config.crop]
        if not self.items:
            raise ValueError(f"no deconvolution has {config.crop}x{config.crop} pixels; choose a smaller `crop`")
        self.predict = jit(self.net.apply)

    def init(self, key: Array) -> TrainingState:
        key, net_key = jax.random.split(key)
        side = self.config.crop
        variables = dict(self.net.init(net_key, jnp.zeros((1, side, side, MAPS)), jnp.zeros((1, 2))))
        return TrainingState(State(key, variables, self.tx.init(variables["params"])), variables)

    def step(self, state: TrainingState, batch: Batch, t: Array) -> tuple[TrainingState, Array]:
        def loss(params):
            found = batch.maps[..., 0] + self.net.apply({"params": params}, batch.maps, batch.levels)
            error = jnp.mean((found - batch.sharp) ** 2, (1, 2))
            return jnp.mean(10 * jnp.log10(error + 1e-6))

        inner = state.state
        value, grad = jax.value_and_grad(loss)(inner.variables["params"])
        updates, opt_state = self.tx.update(grad, inner.opt_state, inner.variables["params"])
        variables = {"params": optax.apply_updates(inner.variables["params"], updates)}
        # at first the mean of all, so that the random weights of the beginning do not stay in it
        share = jnp.minimum(self.config.average, t / (t + 1))
        mean = jax.tree.map(lambda m, v: share * m + (1 - share) * v, state.mean, variables)
        return TrainingState(State(inner.key, variables, opt_state), mean), value[None]

    def batch(self, t: int) -> Batch:
        """Random crops of random deconvolutions."""
        rng, side = np.random.default_rng([self.config.seed, t]), self.config.crop
        rows = []
        for i in rng.integers(len(self.items), size=self.config.batch):
            item = self.items[i]
            top, left = (int(rng.integers(n - side + 1)) for n in item.sharp.shape)
            window = slice(top, top + side), slice(left, left + side)
            rows.append((item.maps[window], item.levels, item.sharp[window]))
        return _turn(Batch(*(np.stack(column).astype(np.float32) for column in zip(*rows))), rng)

    def measure(self, state: TrainingState) -> dict[str, float]:
        """Mean PSNR of the sparse and of the learned deconvolution, by kind of the kernel."""
        metrics: dict[str, list[float]] = {}
        for item in self.held_out:
            learned = self._apply(state, item)
            for name, x in (("sparse", item.maps[..., 0]), ("learned", learned)):
                x, sharp = (np.clip(v.astype(np.float32) / item.scale, 0, 1) for v in (x, item.sharp))
                metrics.setdefault(f"psnr_{name}_{item.kind}", []).append(-10 * np.log10(np.mean((x - sharp) ** 2)))
        return {name: float(np.mean(values)) for name, values in sorted(metrics.items())}

    def _apply(self, state: TrainingState, item: Item) -> NDArray[np.float32]:
        h, w = item.sharp.shape
        # to one of few shapes, so that few programs are compiled
        padding = [(0, -n % (16 * FACTOR)) for n in (h, w)]
        maps = np.pad(item.maps.astype(np.float32), [*padding, (0, 0)])
        correction = self.predict(state.mean, maps[None], item.levels[None])[0]
        return item.maps[..., 0] + np.asarray(correction)[:h, :w]

    def samples(self, state: TrainingState) -> NDArray:
        """Sparse, learned and sharp crops."""
        images = []
        for item in self.held_out[:8]:
            scaled: list[NDArray] = [item.maps[..., 0], self._apply(state, item), item.sharp]
            images.append([np.clip(x[:128, :128].astype(np.float32) / item.scale, 0, 1) for x in scaled])
        return np.concatenate([np.stack(row) for row in zip(*images)])


def training(config: Config, folder: Path) -> Training:
    """Training of a `DeconvolutionNet` on the mean of 10 log10 of the squared error of each crop, by AdamW.

    Raises:
        ValueError: for wrong settings, or a folder without photos.
    """
    deconvolver = _Deconvolver(config, folder)
    return Training(
        name="deconvolver",
        metrics=("loss",),
        init=deconvolver.init,
        step=deconvolver.step,
        batch=deconvolver.batch,
        measure=deconvolver.measure,
        samples=deconvolver.samples,
        network=lambda state: state.mean,
    )
