"""From blurred pictures to sharp ones: colour, method, choice among seeds, finish."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jbid import images as im
from jbid.checkpoint import Checkpoint
from jbid.finish import finish
from jbid.run import Progress, compiled, run
from jbid.settings import Settings, build
from jbid.transforms import over_images, over_seeds
from jbid.types import Method

SMALLEST = 32  # pixels; below, the five scales of the image network have nothing left to work on


class Deblurred(NamedTuple):
    """One picture's answer."""

    image: NDArray[np.float32]  # h w c, in [0, 1]: finished if asked for
    kernel: NDArray[np.float32]  # sums to one
    network_image: NDArray[np.float32]  # h w c: the method's own, not finished
    losses: NDArray[np.float32]  # steps done, seeds
    seed: int  # the chosen one
    seconds: float  # this picture's share of the launch and of the finish


def check_size(shape: Sequence[int], kernel_size: int) -> None:
    """Raise ValueError where a picture of this shape is too small to deblur with such a kernel."""
    h, w = shape[:2]
    if min(h, w) < SMALLEST:
        raise ValueError(f"got an image of {w}x{h} pixels, expected at least {SMALLEST}x{SMALLEST}")
    if kernel_size > min(h, w):
        raise ValueError(f"kernel size {kernel_size} is larger than the image of {w}x{h}; use a smaller one")


@functools.lru_cache(maxsize=8)
def _method(settings_json: str, channels: int, kernel_bytes: bytes | None) -> Method:
    # one method object per distinct setting, so that `run` finds its compiled functions again
    settings = Settings(**json.loads(settings_json))
    shape = (settings.kernel_size, settings.kernel_size)
    kernel = None if kernel_bytes is None else jnp.asarray(np.frombuffer(kernel_bytes, np.float32).reshape(shape))
    return over_images(over_seeds(build(settings, channels, kernel)))


_finish = functools.lru_cache(maxsize=1)(lambda: compiled(finish))


def deblur(
    images: Sequence[NDArray],
    settings: Settings,
    *,
    kernel: NDArray | None = None,
    on_chunk: Callable[[Progress], bool | None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[Deblurred]:
    """Deblur pictures of one shape (h, w, c), float in [0, 1], in one launch of images x seeds.

    With `settings.colour` "luma", the method sees full-range Y alone, and the answer takes chroma from the blurred
    picture, or, finished, from deconvolving each channel with the kernel found. Seed i starts from
    `jax.random.key(settings.seed + i)`; the seed with the smallest final loss is chosen. A given `kernel`
    (kernel_size squared) is held fixed. Raises ValueError for pictures that are too small.
    """
    pictures = np.stack([np.asarray(i, np.float32) for i in images])
    check_size(pictures.shape[1:], settings.kernel_size)
    start = time.perf_counter()
    observed = np.stack([im.luma(p) for p in pictures]) if settings.colour == "luma" else pictures
    known = None if kernel is None else np.asarray(kernel, np.float32).tobytes()
    method = _method(json.dumps(settings._asdict()), observed.shape[-1], known)
    keys = jax.vmap(jax.random.key)(settings.seed + jnp.arange(settings.seeds))
    keys = jnp.broadcast_to(keys, (len(pictures), settings.seeds))
    result = run(method, keys, jnp.asarray(observed), settings.steps, on_chunk=on_chunk, checkpoint=checkpoint)
    restored = jax.device_get(result.restored)
    share = (time.perf_counter() - start) / len(pictures)
    answers = []
    for i, picture in enumerate(pictures):
        start = time.perf_counter()
        losses = result.losses[:, i]
        best = int(np.nanargmin(losses[-1])) if len(losses) and np.isfinite(losses[-1]).any() else 0
        own, k = restored.image[i, best], restored.kernel[i, best]
        if settings.colour == "luma" and picture.shape[-1] == 3:
            own = im.to_rgb(np.concatenate([own, im.to_ycbcr(picture)[..., 1:]], -1))
        final = np.asarray(_finish()(jnp.asarray(picture), jnp.asarray(k))) if settings.finish else own
        answers.append(Deblurred(final, k, own, losses, settings.seed + best, share + time.perf_counter() - start))
    return answers
