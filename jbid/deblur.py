"""From blurred pictures to sharp ones: colour, patch, start, kernel size, method, choice, finish."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jbid import images as im
from jbid.allocator import forget_programs
from jbid.auto import (
    SECOND_SETTINGS,
    Candidate,
    EdgeStart,
    chosen_first,
    cleaned,
    deconvolved,
    edge_start,
    fitted_to,
    judge,
    ladder_size,
    support,
)
from jbid.checkpoint import Checkpoint
from jbid.encoder import encoded
from jbid.methods import kernel_sizes
from jbid.noise import noise_level
from jbid.run import Progress, Result, compiled
from jbid.scale import run_in_parts
from jbid.score import aligned_mean, failure
from jbid.settings import ESTIMATES, STARTS, Settings, build, start_words
from jbid.tiles import Region, finish_large, informative
from jbid.transforms import over_images
from jbid.types import Method
from jbid.weights import folder_of

EDGE_PATCH = 512  # pixels of the side that a start is estimated from at least
# standard deviation of noise from which on the own image of a network that was stopped early is better than a
# deconvolution, docs/experiments.md
NETWORK_FROM = 0.06
SMALLEST = 32  # pixels; below, the five scales of the image network have nothing left to work on


@functools.cache
def _noise():
    return compiled(noise_level)


class Start(NamedTuple):
    """A kernel that the optimisation sets out from."""

    name: str
    kernel: NDArray[np.float32]  # of the task's shape, sum one


class Task(NamedTuple):
    """A picture made ready: what the kernel is estimated from, and where that sets out."""

    picture: NDArray[np.float32]  # h w c, in linear light if asked for
    region: Region  # of the picture, that the kernel is estimated from
    observed: NDArray[np.float32]  # the region, luma or colour, without impulse noise
    room: tuple[int, int]  # rows and columns that it is padded to, to share a program with others
    kernel_shape: tuple[int, int]  # odd sides
    starts: tuple[Start, ...]  # seed i sets out from starts[i % n]; none: a random start
    known: bool  # whether the start is the true kernel, to be kept
    edges: EdgeStart | None  # how start or size were found
    warnings: tuple[str, ...]
    seconds: float


class Deblurred(NamedTuple):
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


def check_size(shape: Sequence[int], kernel_size: int | str | tuple[int, int]) -> None:
    """Raise ValueError where a picture of this shape is too small to deblur with such a kernel."""
    h, w = shape[:2]
    if min(h, w) < SMALLEST:
        raise ValueError(f"got an image of {w}x{h} pixels, expected at least {SMALLEST}x{SMALLEST}")
    if isinstance(kernel_size, str):
        return
    sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    if sides[0] > h or sides[1] > w:
        raise ValueError(f"kernel size {max(sides)} is larger than the image of {w}x{h}; use a smaller one")


def _region(picture: NDArray, settings: Settings) -> Region:
    h, w = picture.shape[:2]
    if settings.region is not None:
        region = Region(*settings.region)
        if region.x + region.width > w or region.y + region.height > h:
            raise ValueError(f"region {','.join(map(str, region))} reaches beyond the picture of {w}x{h} pixels")
        return region
    return informative(picture, settings.patch) if settings.patch else Region(0, 0, w, h)


def _edges(picture: NDArray, part: NDArray, settings: Settings, size: int | None) -> EdgeStart:
    """`edge_start` on enough of the picture; again with other settings, on more of it, where that looks doubtful."""

    def gray(side):
        chosen = settings.region is not None or not settings.patch
        return im.luma(part if chosen else informative(picture, side).of(picture))[..., 0]

    side = max(settings.patch, EDGE_PATCH)
    edges = edge_start(gray(side), size)
    if edges.doubtful:
        edges = edge_start(gray(side * 3 // 2), size, settings=SECOND_SETTINGS, before=edges)
    return edges


def prepare(picture: NDArray, settings: Settings, *, kernel: NDArray | None = None) -> Task:
    """The task of a picture (h, w, c), float in [0, 1]: patch chosen, start and kernel size found.

    A given `kernel` (odd and square) is kept as it is. Raises ValueError for a picture, region or starting kernel that
    does not go with the kernel size.
    """
    began = time.perf_counter()
    # here, as each size of picture has programs of its own
    forget_programs()
    picture = np.asarray(picture, np.float32)
    check_size(picture.shape, settings.kernel_size)
    if settings.linear:
        picture = im.to_linear(picture)
    region = _region(picture, settings)
    part = region.of(picture)
    check_size(part.shape, settings.kernel_size)
    h, w = part.shape[:2]
    words = start_words(settings.start)
    edges, shape = None, None
    given: list[NDArray] = []
    warnings: list[str] = []
    size = settings.kernel_size if isinstance(settings.kernel_size, int) else None
    if size:
        shape = (size, size)
    elif settings.kernel_size == "half":
        shape = ((h + 1) // 2 | 1, (w + 1) // 2 | 1)
    if kernel is not None:
        shape = kernel.shape
    elif not words and settings.start != "random":
        given = [im.read_kernel(settings.start)]
        shape = shape or (ladder_size(max(given[0].shape)),) * 2
    if kernel is None and (set(words) & set(ESTIMATES) or shape is None):
        edges = _edges(picture, part, settings, size)
        warnings += [edges.warning] if edges.warning else []
        if shape is None:
            found = edges.kernel.shape[0]
            roomy = min(ladder_size(found), (min(h, w) - 1) // 2 * 2 + 1)
            # a network makes do with a kernel cut to the part that it sees
            shape = (max(found, roomy) if settings.preset == "instant" else roomy,) * 2
    assert shape is not None
    if settings.steps and kernel is None:
        shape, told = _size_of(settings, shape, (h, w), found=edges is not None and size is None)
        warnings += [told] if told else []
    observed = im.luma(part) if settings.colour == "luma" else part
    observed = cleaned(observed) if settings.clean else observed
    if kernel is not None:
        starts = [Start("known kernel", np.asarray(kernel, np.float32))]
    elif words:
        starts = [Start(word, _started(word, shape, edges, settings)) for word in words]
    else:
        starts = [Start(settings.start, fitted_to(k, shape)) for k in given]
    if settings.preset == "instant" and edges is not None and settings.kernel_size == "auto":
        # there is no network to leave room for
        side = max(part.stop - part.start for part in support(starts[0].kernel)) | 1
        starts = [start._replace(kernel=fitted_to(start.kernel, side)) for start in starts]
        shape = (side, side)
    check_size(part.shape, shape)
    known = kernel is not None
    spent = time.perf_counter() - began
    return Task(picture, region, observed, (h, w), shape, tuple(starts), known, edges, tuple(warnings), spent)


# the methods whose loss alone looks at the picture's pixels: the engine knows which of those are unknown
PADDED = ("selfdeblur", "gkpile")


def rooms(
    shapes: Iterable[Sequence[int]], settings: Settings, *, waste: float = 0.15
) -> dict[tuple[int, int], tuple[int, int]]:
    """For each (rows, columns) of pictures, those of the part that the method sees, padded to share programs.

    From large to small, a shape joins the first group whose room, grown to hold it, none of the group fills by less
    than 1 - `waste`; so pictures of many sizes compile few programs. What is padded counts as unknown. Methods that
    look at pixels elsewhere than in the loss, and runs that stop themselves, keep their own shapes.
    """
    if settings.method not in PADDED or settings.options.get("stop", False):
        waste = 0

    def seen(shape):
        if settings.region:
            return settings.region[3], settings.region[2]
        return tuple(min(side, settings.patch or side) for side in shape[:2])

    shapes = list(shapes)
    groups: list[list[tuple[int, int]]] = []

    def room(group):
        return max(h for h, _ in group), max(w for _, w in group)

    for shape in sorted({seen(shape) for shape in shapes}, key=lambda s: -s[0] * s[1]):
        for group in groups:
            h, w = room([*group, shape])
            if all(part[0] * part[1] >= (1 - waste) * h * w for part in [*group, shape]):
                group.append(shape)
                break
        else:
            groups.append([shape])
    found = {shape: room(group) for group in groups for shape in group}
    return {(shape[0], shape[1]): found[seen(shape)] for shape in shapes}


def _size_of(
    settings: Settings, shape: tuple[int, int], room: tuple[int, int], found: bool
) -> tuple[tuple[int, int], str | None]:
    """The kernel shape that the method has for the wanted one, and a warning where a found one does not fit."""
    sides = kernel_sizes(settings.method, settings.options)
    wanted = max(shape)
    if sides is None:
        return shape, None
    fitting = [side for side in sides if side <= min(room)]
    large = [side for side in sides if side >= wanted]
    if large and (large[0] in fitting or not found):
        return (large[0], large[0]), None
    if not found or not fitting:
        what = f"the largest of {settings.method} in a picture of {room[1]}x{room[0]}"
        raise ValueError(f"kernel size {wanted} is larger than {max(fitting, default=0)}, {what}; use another --method")
    return (fitting[-1], fitting[-1]), (
        f"a kernel of up to {wanted} pixels was found, {settings.method} takes one of {fitting[-1]} here; "
        "--method robust takes any"
    )


def _started(word: str, shape: tuple[int, int], edges: EdgeStart | None, settings: Settings) -> NDArray[np.float32]:
    """The kernel, of this shape and with sum one, that a word for a start stands for."""
    if word == "uniform":
        return np.full(shape, 1 / (shape[0] * shape[1]), np.float32)
    assert edges is not None
    if word == "edges":
        return fitted_to(edges.kernel, shape)
    if shape[0] != shape[1]:
        what = f"got a kernel of {shape[1]}x{shape[0]} pixels, expected a square one for the start encoder"
        raise ValueError(f"{what}; use another --kernel-size")
    folder = folder_of(settings.options.get("weights", ""))
    return encoded(edges, shape[0], folder)


@functools.lru_cache(maxsize=8)
def _method(settings_json: str, shape: tuple[int, int], channels: int, kernel_bytes: bytes | None) -> Method:
    # one method object per distinct setting, so that `run` finds its compiled functions again
    settings = Settings(**json.loads(settings_json))
    kernel = None if kernel_bytes is None else jnp.asarray(np.frombuffer(kernel_bytes, np.float32).reshape(shape))
    return over_images(build(settings, shape, channels, kernel))


def starts_of_seeds(task: Task, seeds: int) -> NDArray[np.float32]:
    """The kernel that each seed sets out from, (seeds, kh, kw): the starts in turn."""
    return np.stack([task.starts[i % len(task.starts)].kernel for i in range(seeds)])


def optimised(tasks: Sequence[Task], settings: Settings, **options) -> Result:
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
        starts = np.concatenate([starts_of_seeds(task, settings.seeds) for task in tasks])
    h, w = (max(sides) for sides in zip(*(task.room for task in tasks)))
    observed = np.stack([_padded(task.observed, (h, w)) for task in tasks])
    result = run_in_parts(
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


def _padded(observed: NDArray, room: tuple[int, int]) -> NDArray:
    """The observed part with pixels that are no numbers, and so unknown, below and to the right."""
    below, right = (full - side for full, side in zip(room, observed.shape[:2]))
    return np.pad(observed, ((0, below), (0, right), (0, 0)), constant_values=np.nan)


def solve(
    tasks: Sequence[Task],
    settings: Settings,
    *,
    memory: int | None = None,
    on_chunk: Callable[[Progress], bool | None] | None = None,
    on_fewer: Callable[[int, int], object] | None = None,
    on_tile: Callable[[int, int], object] | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[Deblurred]:
    """Optimise tasks whose observed parts and kernels have one size together, choose, and restore the pictures.

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
        result = optimised(tasks, settings, memory=memory, checkpoint=checkpoint, **told)
        restored = jax.device_get(result.restored)
    share = (time.perf_counter() - began) / len(tasks)
    answers = []
    for i, task in enumerate(tasks):
        began = time.perf_counter()
        noise = float(_noise()(jnp.asarray(task.observed)))
        whole = task.region[2:] == task.picture.shape[1::-1]
        # a network that does not stop itself has fitted the noise in the end
        own_is_better = noise > NETWORK_FROM and settings.options.get("stop", False)
        too_noisy = settings.finish == "auto" and whole and own_is_better
        finished = result is None or (bool(settings.finish) and not too_noisy)
        if result is None:
            candidates = _of_start(task) if task.edges else []
            kernel, own, spread = task.starts[0].kernel, None, None
            kernels: list[NDArray] = []
            losses, stopped, complete = np.zeros((0, 1), np.float32), np.zeros(1, np.int32), True
        else:
            losses, stopped, complete = result.losses[:, i], result.stopped[i], result.complete
            h, w = task.observed.shape[:2]
            images = restored.image[i, :, :h, :w]
            own, candidates, kernels, spread = _chosen(task, settings, images, restored.kernel[i], losses, finished)
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
            Deblurred(
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


def _of_start(task: Task) -> list[Candidate]:
    """What speaks against the start, the answer where there is no network, and against what else it might have been."""
    assert task.edges is not None
    start, picture = task.starts[0], task.edges.picture
    both = [start.kernel, fitted_to(task.edges.kernel, start.kernel.shape)]
    if np.array_equal(both[0], both[1]):
        return task.edges.candidates
    return judge(picture, deconvolved(picture, both), both, [f"start from {start.name}", task.edges.candidates[0].name])


def _chosen(
    task: Task, settings: Settings, images: NDArray, kernels: NDArray, losses: NDArray, finish: bool
) -> tuple[NDArray, list[Candidate], list[NDArray], NDArray | None]:
    """The network image kept, all candidates and their kernels in order, the spread over seeds that did not fail."""
    gray = im.luma(task.observed)[..., 0]
    seeds = [f"seed {settings.seed + s}" for s in range(settings.seeds)]
    names, pool = list(seeds), [np.asarray(k) for k in kernels]
    by_name = dict(zip(seeds, images))
    shown = [im.luma(x)[..., 0] for x in images]
    good = [s for s in range(len(seeds)) if failure(gray, shown[s], pool[s]) is None]

    spread = None
    if len(good) > 1 and not task.known:
        moved = [aligned_mean([pool[s]], pool[good[0]]) for s in good]
        top, left = (n // 2 for n in task.kernel_shape)
        spread = np.std(deconvolved(gray, moved), 0)[top : top + gray.shape[0], left : left + gray.shape[1]]
        if finish:
            names.append("mean of seeds")
            pool.append(np.mean(moved, 0))
    estimates = [start for start in task.starts if start.name in ESTIMATES]
    if finish:
        names += ["start" if len(estimates) == 1 else f"start from {start.name}" for start in estimates]
        pool += [start.kernel for start in estimates]
    latents = deconvolved(gray, [np.where(np.isfinite(k), k, 0) for k in pool])
    judged = judge(gray, latents, pool, names, [*shown, *latents[len(seeds) :]])
    last = losses[-1] if len(losses) else np.full(len(seeds), np.nan)
    judged[: len(seeds)] = [c._replace(loss=float(v)) for c, v in zip(judged, last)]
    if task.known:
        # one kernel for all, so nothing to judge but how well each network came down
        order = sorted(range(len(seeds)), key=lambda s: (not np.isfinite(last[s]), last[s]))
    else:
        order = chosen_first(judged)
    # the network image of the best seed, also where another kernel is kept
    seed = next(names[j] for j in order if names[j] in by_name)
    return by_name[seed], [judged[j] for j in order], [pool[j] for j in order], spread


def _picture(task: Task, finish: bool, settings: Settings, kernel: NDArray, own: NDArray | None, on_tile) -> NDArray:
    if finish or own is None:
        image = finish_large(task.picture, kernel, on_tile=on_tile)
    elif settings.colour == "luma" and task.picture.shape[-1] == 3:
        image = im.to_rgb(np.concatenate([own, im.to_ycbcr(task.picture)[..., 1:]], -1))
    else:
        image = own
    return im.from_linear(np.clip(image, 0, 1)) if settings.linear else image


def check_finish(settings: Settings, shape: Sequence[int]) -> None:
    """Raise ValueError where the network's own image is asked for but covers a part of the picture alone."""
    if not settings.finish and (settings.region or 0 < settings.patch < max(shape[:2])):
        raise ValueError(
            "without --finish the network must see the whole picture: add --finish, or --patch 0 without --region"
        )


def deblur(
    images: Sequence[NDArray],
    settings: Settings,
    *,
    kernel: NDArray | None = None,
    **options: Any,
) -> list[Deblurred]:
    """Deblur pictures of one shape (h, w, c), float in [0, 1]: `prepare`, then `solve` for each kernel size found.

    `options` are those of `solve`. Raises ValueError for what cannot be deblurred.
    """
    for picture in images:
        check_finish(settings, picture.shape)
    tasks = [prepare(picture, settings, kernel=kernel) for picture in images]
    answers: dict[int, Deblurred] = {}
    for shape in sorted({task.kernel_shape for task in tasks}):
        at = [i for i, task in enumerate(tasks) if task.kernel_shape == shape]
        answers |= zip(at, solve([tasks[i] for i in at], settings, **options))
    return [answers[i] for i in range(len(tasks))]


def report(answer: Deblurred, task: Task) -> dict[str, Any]:
    """What a JSON file tells of an answer beside its settings."""
    return {
        "kernel_size": list(task.kernel_shape),
        "region": list(task.region),
        "start": task.edges.told() if task.edges else None,
        "chosen": answer.chosen,
        "candidates": [candidate.told() for candidate in answer.candidates],
        "spread_of_seeds": None if answer.spread is None else float(answer.spread.mean()),
        "warnings": list(answer.warnings),
        "noise": round(answer.noise, 5),
        "finished": answer.finished,
        "steps_done": len(answer.losses),
        "stopped": [int(n) for n in answer.stopped],
        "seconds": round(answer.seconds, 2),
    }


def start_file(start: str) -> Path | None:
    """The kernel file that a start names, or None. Raises ValueError where it is neither a word nor a file."""
    if start == "random" or start_words(start):
        return None
    if not Path(start).is_file():
        raise ValueError(
            f"got start {start!r}, expected random, {', '.join(STARTS)}, several such as edges+encoder, or the file of "
            "a kernel"
        )
    return Path(start)
