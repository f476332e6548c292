"""From blurred pictures to sharp ones: color, patch, start, kernel size, method, choice, finish."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jbid.deconvolution.tiled import deconvolve_tiled
from jbid.engine.batching import run_batched
from jbid.engine.checkpoint import Checkpoint
from jbid.engine.driver import Progress, RunResult
from jbid.engine.wrappers import over_images
from jbid.kernel_estimation.ranking import Candidate
from jbid.ops.color import linear_to_srgb, rgb_to_ycbcr, ycbcr_to_rgb
from jbid.ops.noise import estimate_noise
from jbid.pipeline.config import Config, build
from jbid.pipeline.grouping import pad_unknown
from jbid.pipeline.prepare import PreparedImage, check_deconvolve, prepare
from jbid.pipeline.select import rank_initial, select
from jbid.runtime.compile import jit
from jbid.types import Method

# standard deviation of noise from which on the own image of a network that was stopped early is better than a
# deconvolution, docs/experiments.md
NETWORK_NOISE = 0.06


@functools.cache
def _noise():
    return jit(estimate_noise)


class Restoration(NamedTuple):
    """One picture's answer."""

    image: NDArray[np.float32]  # h w c, in [0, 1]: finished if asked for
    kernel: NDArray[np.float32]  # sums to one
    network_image: NDArray[np.float32] | None  # of the region: the network's own, not finished
    losses: NDArray[np.float32]  # steps done, seeds
    stopped: NDArray[np.int32]  # steps after which each seed stopped itself, 0 where it did not
    complete: bool  # False where the run was interrupted
    finished: bool  # whether the image is a deconvolution with the kernel; else it is the network's
    noise: float  # estimated standard deviation
    chosen: str  # "seed 3", "start", "mean of seeds" or "known kernel"
    candidates: list[Candidate]  # what was chosen from, the chosen one first
    kernels: list[NDArray[np.float32]]  # theirs; empty where no network ran
    spread: NDArray[np.float32] | None  # of the region: standard deviation over the good seeds
    warnings: tuple[str, ...]
    seconds: float  # this picture's share of the launch, and its start and finish


@functools.lru_cache(maxsize=8)
def _method(settings_json: str, shape: tuple[int, int], channels: int, kernel_bytes: bytes | None) -> Method:
    # one method object per distinct setting, so that `run` finds its compiled functions again
    settings = Config(**json.loads(settings_json))
    kernel = None if kernel_bytes is None else jnp.asarray(np.frombuffer(kernel_bytes, np.float32).reshape(shape))
    return over_images(build(settings, shape, channels, kernel))


def initial_kernels(task: PreparedImage, seeds: int) -> NDArray[np.float32]:
    """The kernel that each seed sets out from, (seeds, kh, kw): the starts in turn."""
    return np.stack([task.starts[i % len(task.starts)].kernel for i in range(seeds)])


def optimize(tasks: Sequence[PreparedImage], settings: Config, **options) -> RunResult:
    """The method on tasks of one shape and kernel size, on all images x seeds at once, as far as memory allows.

    All that the result holds has leading axes of images and seeds, the losses behind their steps.
    """
    first = tasks[0]
    known = first.starts[0].kernel.tobytes() if first.known else None
    # what is decided already must not make a new method
    same = settings._replace(kernel_size="auto", patch=0, region=None, start="", seed=0)
    method = _method(json.dumps(same._asdict()), first.kernel_shape, first.observed.shape[-1], known)
    both = (len(tasks), settings.seeds)
    keys = jax.vmap(jax.random.key)(settings.seed + jnp.arange(settings.seeds))
    starts = None
    if known is None and first.starts:
        starts = np.concatenate([initial_kernels(task, settings.seeds) for task in tasks])
    h, w = (max(sides) for sides in zip(*(task.room for task in tasks)))
    observed = np.stack([pad_unknown(task.observed, (h, w)) for task in tasks])
    result = run_batched(
        method,
        jnp.tile(keys, len(tasks)),
        observed.repeat(settings.seeds, 0),
        settings.steps,
        start=starts,
        **options,
    )
    return result._replace(
        restored=jax.tree.map(lambda x: x.reshape(*both, *x.shape[1:]), result.restored),
        losses=result.losses.reshape(-1, *both),
        stopped=result.stopped.reshape(both),
    )


def solve(
    tasks: Sequence[PreparedImage],
    settings: Config,
    *,
    memory: int | None = None,
    on_chunk: Callable[[Progress], bool | None] | None = None,
    on_fewer: Callable[[int, int], object] | None = None,
    on_tile: Callable[[int, int], object] | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[Restoration]:
    """Optimize tasks whose observed parts and kernels have one size together, choose, and restore the pictures.

    Parts of several sizes may go together where `Task.room` is the same (`rooms`). Pictures and seeds are spread over
    the local devices, as many at once as `memory` (bytes on each) allows: `jbid.scale.run_in_parts`, which
    `on_fewer` is for.

    Seed i starts from `jax.random.key(settings.seed + i)`. For each picture, the kernels of all seeds, their aligned
    mean and the start are judged without the truth by `jbid.score`; failed seeds are dropped. With `settings.finish`
    the picture is deconvolved with the chosen kernel; without, and with "auto" where noise is very high
    and the method stops itself, the seeds alone are judged, and the answer is the best one's own image and kernel. With
    "luma" the network sees full-range Y alone, and that image takes its chroma from the blurred picture.
    """
    began = time.perf_counter()
    result = None
    if settings.steps:
        told = {"on_chunk": on_chunk, "on_fewer": on_fewer}
        result = optimize(tasks, settings, memory=memory, checkpoint=checkpoint, **told)
        restored = jax.device_get(result.restored)
    share = (time.perf_counter() - began) / len(tasks)
    answers = []
    for i, task in enumerate(tasks):
        began = time.perf_counter()
        noise = float(_noise()(jnp.asarray(task.observed)))
        whole = task.region[2:] == task.picture.shape[1::-1]
        # a network that does not stop itself has fitted the noise in the end
        own_is_better = noise > NETWORK_NOISE and settings.options.get("stop", False)
        too_noisy = settings.finish == "auto" and whole and own_is_better
        finished = result is None or (bool(settings.finish) and not too_noisy)
        if result is None:
            candidates = rank_initial(task) if task.edges else []
            kernel, own, spread = task.starts[0].kernel, None, None
            kernels: list[NDArray] = []
            losses, stopped, complete = np.zeros((0, 1), np.float32), np.zeros(1, np.int32), True
        else:
            losses, stopped, complete = result.losses[:, i], result.stopped[i], result.complete
            h, w = task.observed.shape[:2]
            images = restored.image[i, :, :h, :w]
            own, candidates, kernels, spread = select(task, settings, images, restored.kernel[i], losses, finished)
            kernel = kernels[0]
        image = _picture(task, finished, settings, kernel, own, on_tile)
        warnings = task.warnings
        if too_noisy and not finished:
            warnings += (f"noise of {noise:.2f}: the network's own image is kept; --finish deconvolves all the same",)
        chosen = candidates[0].name if candidates else "known kernel"
        if candidates and candidates[0].failure == "delta kernel":
            warnings += ("no blur was found; the picture stays nearly as it was",)
        elif candidates and candidates[0].failure:
            warnings += (f"every answer failed; the least bad one is kept ({candidates[0].failure})",)
        seconds = task.seconds + share + time.perf_counter() - began
        answers.append(
            Restoration(
                image,
                kernel,
                own,
                losses,
                stopped,
                complete,
                finished,
                noise,
                chosen,
                candidates,
                kernels,
                spread,
                warnings,
                seconds,
            )
        )
    return answers


def _picture(
    task: PreparedImage, finish: bool, settings: Config, kernel: NDArray, own: NDArray | None, on_tile
) -> NDArray:
    if finish or own is None:
        image = deconvolve_tiled(task.picture, kernel, on_tile=on_tile)
    elif settings.color == "luma" and task.picture.shape[-1] == 3:
        image = ycbcr_to_rgb(np.concatenate([own, rgb_to_ycbcr(task.picture)[..., 1:]], -1))
    else:
        image = own
    return linear_to_srgb(np.clip(image, 0, 1)) if settings.linear else image


def deblur(
    images: Sequence[NDArray],
    settings: Config,
    *,
    kernel: NDArray | None = None,
    **options: Any,
) -> list[Restoration]:
    """Deblur pictures of one shape (h, w, c), float in [0, 1]: `prepare`, then `solve` for each kernel size found.

    `options` are those of `solve`. Raises ValueError for what cannot be deblurred.
    """
    for picture in images:
        check_deconvolve(settings, picture.shape)
    tasks = [prepare(picture, settings, kernel=kernel) for picture in images]
    answers: dict[int, Restoration] = {}
    for shape in sorted({task.kernel_shape for task in tasks}):
        at = [i for i, task in enumerate(tasks) if task.kernel_shape == shape]
        answers |= zip(at, solve([tasks[i] for i in at], settings, **options))
    return [answers[i] for i in range(len(tasks))]
