"""Restoration of prepared images: optimize, select, deconvolve."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jbid.deconvolution.tiled import deconvolve_tiled
from jbid.engine.batching import run_batched
from jbid.engine.driver import RunContext, RunResult
from jbid.engine.wrappers import over_images
from jbid.kernel_estimation.gain import GainPredictor
from jbid.kernel_estimation.ranking import latent_images
from jbid.kernel_estimation.search import clean_image
from jbid.ops.color import compress_highlights, linear_to_srgb, luma, rgb_to_ycbcr, ycbcr_to_rgb
from jbid.ops.kernels import delta_kernel, pad_to_odd_square
from jbid.ops.noise import estimate_noise
from jbid.pipeline.config import Config, build
from jbid.pipeline.grouping import batch_key, group_by, pad_unknown, padded_shapes
from jbid.pipeline.prepare import PreparedImage, prepare
from jbid.pipeline.restoration import Restoration
from jbid.pipeline.select import Selection, rank_initial, select
from jbid.types import Method

# standard deviation of noise above which the own image of a network that stops early beats a deconvolution,
# docs/development-notes.md
NETWORK_NOISE = 0.06
# standard deviation of noise from which on any deconvolution is better than the image, even if it is not blurred, and
# the probability of it
MUCH_NOISE, LIKELY = 0.075, 0.9
USUAL_RANGE = 0.6  # of the values of an image; the weights of the deconvolution are made for this much


@functools.lru_cache(maxsize=8)
def _method(config_json: str, shape: tuple[int, int], channels: int, kernel_bytes: bytes | None) -> Method:
    # one method object for equal configurations, so that `run` reuses its compiled functions
    config = Config(**json.loads(config_json))
    kernel = None if kernel_bytes is None else jnp.asarray(np.frombuffer(kernel_bytes, np.float32).reshape(shape))
    return over_images(build(config, shape, channels, kernel))


def optimize(prepared: Sequence[PreparedImage], config: Config, context: RunContext | None = None) -> RunResult:
    """Run the method on images of one padded shape and kernel size, all images x seeds at once as memory allows.

    Returns:
        A result whose arrays have leading axes of images and seeds; the losses have them after the steps.
    """
    first = prepared[0]
    known = first.initial_kernels[0].kernel.tobytes() if first.is_kernel_known else None
    # fields that prepare has dealt with must not make a new method
    same = config._replace(kernel_size="auto", patch=0, region=None, init="", seed=0)
    method = _method(json.dumps(same._asdict()), first.kernel_shape, first.observed.shape[-1], known)
    batch = (len(prepared), config.n_seeds)
    keys = jax.vmap(jax.random.key)(config.seed + jnp.arange(config.n_seeds))
    init_kernel = None
    if known is None and first.initial_kernels:
        init_kernel = np.concatenate([item.kernels_of_seeds(config.n_seeds) for item in prepared])
    h, w = (max(sides) for sides in zip(*(item.padded_shape for item in prepared)))
    observed = np.stack([pad_unknown(item.observed, (h, w)) for item in prepared])
    result = run_batched(
        method,
        jnp.tile(keys, len(prepared)),
        observed.repeat(config.n_seeds, 0),
        config.steps,
        init_kernel=init_kernel,
        context=context,
    )
    return result._replace(
        output=jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), result.output),
        losses=result.losses.reshape(-1, *batch),
        stopped=result.stopped.reshape(batch),
    )


def solve(prepared: Sequence[PreparedImage], config: Config, *, context: RunContext | None = None) -> list[Restoration]:
    """Restore prepared images whose padded shapes and kernel sizes are equal.

    Seed i begins with `jax.random.key(config.seed + i)`. For each image, the kernels of all seeds, their average and
    the initial kernels are ranked by the no-reference score; failed seeds are dropped. The image is a deconvolution
    with the chosen kernel, or the best seed's own image, by `config.deconvolve`. With color "luma" the network sees
    full-range Y alone, and its own image takes the chroma of the blurred one.

    Args:
        prepared: from `prepare`.
        config: the run.
        context: memory, checkpoint, progress and cancellation; none of them changes the result.
    """
    began = time.perf_counter()
    context = context or RunContext()
    result = optimize(prepared, config, context) if config.is_optimized else None
    share = (time.perf_counter() - began) / len(prepared)
    return [_restore(i, item, config, result, context, share) for i, item in enumerate(prepared)]


def restore(
    images: Sequence[NDArray], config: Config, *, kernel: NDArray | None = None, context: RunContext | None = None
) -> list[Restoration]:
    """Prepare and solve images (h, w, c) in [0, 1]; those of one shape and kernel size run together.

    Args:
        images: any number, of any sizes.
        config: the run.
        kernel: a known kernel with odd sides.
        context: memory, progress and cancellation.

    Raises:
        ValueError: as `jbid.pipeline.prepare.prepare`.
    """
    padded = padded_shapes([image.shape for image in images], config)
    on_stage = context.on_stage if context else None
    prepared = [
        prepare(image, config, kernel=kernel, on_stage=on_stage)._replace(padded_shape=padded[image.shape[:2]])
        for image in images
    ]
    restorations: dict[int, Restoration] = {}
    indices = range(len(prepared))
    for group in group_by(indices, lambda i: batch_key(prepared[i])):
        restorations |= zip(group, solve([prepared[i] for i in group], config, context=context))
    return [restorations[i] for i in indices]


def _restore(
    index: int, prepared: PreparedImage, config: Config, result: RunResult | None, context: RunContext, share: float
) -> Restoration:
    """Restoration of one image from the result of the run; None: the method runs none."""
    began = time.perf_counter()
    noise = float(estimate_noise(prepared.observed))
    is_too_noisy = config.deconvolve == "auto" and _is_network_better(prepared, config, noise)
    is_deconvolved = result is None or (bool(config.deconvolve) and not is_too_noisy)
    if result is None:
        selection = Selection(None, rank_initial(prepared), [], None)
        kernel = prepared.initial_kernels[0].kernel
        losses, stopped, is_complete = np.zeros((0, 1), np.float32), np.zeros(1, np.int32), True
    else:
        losses, stopped, is_complete = result.losses[:, index], result.stopped[index], result.is_complete
        h, w = prepared.observed.shape[:2]
        images = np.asarray(result.output.image[index])[:, :h, :w]
        selection = select(prepared, config, images, np.asarray(result.output.kernel[index]), losses, is_deconvolved)
        kernel = selection.kernels[0]
    confidence = _confidence(prepared, config, kernel, noise)
    warnings = list(prepared.warnings)
    chosen = selection.candidates[0].name if selection.candidates else "known kernel"
    if confidence is not None and confidence < config.min_confidence:
        image = np.clip(prepared.image, 0, 1)
        image = linear_to_srgb(image) if config.linear else image
        kernel, chosen = np.asarray(delta_kernel(kernel.shape, np), np.float32), "no blur"
        warnings.append(
            f"the image is left as it is: no blur was found that can be removed (confidence {confidence:.0%}). If it "
            "is blurred, try a `region` with clear edges or a `kernel_size`; `min_confidence` = 0 always deblurs"
        )
    else:
        image = _final_image(prepared, config, kernel, None if is_deconvolved else selection.network_image, context)
    if prepared.kept is not None:
        image = prepared.kept.put_back(image)
        warnings += prepared.kept.warnings
    if is_too_noisy and not is_deconvolved:
        warnings.append(
            f"the estimated noise is {noise:.2f}, so the network's own image is the answer; `deconvolve` = True "
            "deconvolves all the same"
        )
    warnings += _failure_warnings(selection)
    return Restoration(
        image=image,
        kernel=kernel,
        network_image=selection.network_image,
        losses=losses,
        stopped=stopped,
        is_complete=is_complete,
        is_deconvolved=is_deconvolved,
        noise=noise,
        confidence=confidence,
        chosen=chosen,
        candidates=selection.candidates,
        kernels=selection.kernels,
        spread=selection.spread,
        warnings=tuple(warnings),
        seconds=prepared.seconds + share + time.perf_counter() - began,
        prepared=prepared,
        settings=config._asdict(),
    )


def _confidence(prepared: PreparedImage, config: Config, kernel: NDArray, noise: float) -> float | None:
    """Probability that a deconvolution with the chosen kernel is better than the image; None for a known kernel."""
    if prepared.is_kernel_known:
        return None
    least = LIKELY if noise > MUCH_NOISE else 0.0
    if not config.is_optimized and prepared.estimate is not None:
        return max(prepared.estimate.confidence, least)
    gray = clean_image(luma(prepared.observed))[..., 0]
    square = pad_to_odd_square(kernel)
    predictor = GainPredictor(gray)
    (found,) = predictor.assess(latent_images(gray, [square]), [square])
    return max(found.confidence, least)


def _is_network_better(prepared: PreparedImage, config: Config, noise: float) -> bool:
    """True if the network's own image beats a deconvolution.

    A network that does not stop early has fitted the noise in the end, and one that saw a part has no whole image.
    """
    is_whole = prepared.region[2:] == prepared.image.shape[1::-1]
    return is_whole and noise > NETWORK_NOISE and config.spec.stops_early(config.options)


def _failure_warnings(selection: Selection) -> list[str]:
    failure = selection.candidates[0].failure if selection.candidates else None
    if failure == "delta kernel":
        return []
    return [f"all candidates failed the checks; the best of them is the answer ({failure})"] if failure else []


def _highest(config: Config) -> float:
    """Value that an answer is clipped to."""
    return 1.0 if config.highlights == "clip" else np.inf


def _deconvolve(prepared: PreparedImage, config: Config, kernel: NDArray, context: RunContext) -> NDArray[np.float32]:
    """`deconvolve_tiled`, with more contrast meanwhile for an image of little range, such as one in fog."""
    image = prepared.image
    deconvolve = partial(
        deconvolve_tiled,
        kernel=kernel,
        method="auto" if isinstance(config.deconvolve, bool) else config.deconvolve,
        unknown=None if prepared.kept is None else prepared.kept.unknown,
        highest=_highest(config),
        is_exact=prepared.is_kernel_known,
        on_tile=context.on_tile,
    )
    # of all values, so that a star on dark ground is not stretched beyond white and taken for clipped
    low, high = float(image.min()), float(image.max())
    if high - low >= USUAL_RANGE or high == low:
        return deconvolve(image)
    scale, middle = USUAL_RANGE / (high - low), (high + low) / 2
    stretched = (0.5 + scale * (image - middle)).astype(np.float32)
    return middle + (deconvolve(stretched) - 0.5) / scale


def _final_image(
    prepared: PreparedImage, config: Config, kernel: NDArray, network_image: NDArray | None, context: RunContext
) -> NDArray[np.float32]:
    if network_image is None:
        image = _deconvolve(prepared, config, kernel, context)
    elif config.color == "luma" and prepared.image.shape[-1] == 3:
        image = ycbcr_to_rgb(np.concatenate([network_image, rgb_to_ycbcr(prepared.image)[..., 1:]], -1))
    else:
        image = network_image
    image = np.clip(image, 0, _highest(config))
    image = linear_to_srgb(image) if config.linear else image
    return compress_highlights(image) if config.highlights == "compress" else image
