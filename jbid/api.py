"""Public functions on NumPy arrays; `import jbid` offers all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from jbid.deconvolution.tiled import TILE, Deconvolution, deconvolve_tiled
from jbid.engine.driver import RunContext
from jbid.io.arrays import check_image, check_kernel, float_image
from jbid.io.weights import weights_folder
from jbid.kernel_estimation.search import KernelEstimate
from jbid.methods.explore import blur_operator, transfer
from jbid.ops import conv, motion, noise
from jbid.pipeline.config import resolve
from jbid.pipeline.prepare import check_deconvolve, prepare
from jbid.pipeline.restoration import Restoration
from jbid.pipeline.solve import restore
from jbid.runtime.console import step_bar


def deblur(
    image: ArrayLike,
    method: str = "edges",
    *,
    preset: Literal["quick", "paper"] = "quick",
    kernel_size: int | Literal["auto", "half"] | None = None,
    kernel: ArrayLike | None = None,
    init: str | None = None,
    n_seeds: int = 1,
    seed: int = 0,
    steps: int | None = None,
    color: Literal["luma", "rgb"] | None = None,
    region: tuple[int, int, int, int] | None = None,
    patch: int | None = None,
    deconvolve: bool | Literal["auto", "sparse", "learned"] | None = None,
    linear: bool = False,
    highlights: Literal["clip", "compress", "keep"] = "clip",
    progress: bool = False,
    **method_options: Any,
) -> Restoration:
    """Restore one blurred image: y = k * x + n, with image x and kernel k unknown.

    Args:
        image: (h, w) or (h, w, 3), floats in [0, 1], uint8 or uint16.
        method: "edges" (seconds), or a deep prior: "selfdeblur", "gkpile", "explore", "robust".
        preset: "quick", or "paper" for the published settings, which need a GPU.
        kernel_size: odd side in pixels, "auto" (found from the image) or "half" (half the image).
        kernel: the kernel, if it is known: non-blind deconvolution.
        init: initial kernel: "edges", "learned", "uniform", "random", or the file of a kernel.
        n_seeds: random seeds that run in parallel; the best-scoring result is the answer.
        seed: first random seed.
        steps: optimization steps.
        color: "luma" estimates from brightness alone, "rgb" from all channels.
        region: x, y, width, height of the part that the kernel is estimated from.
        patch: side of the part that the kernel is estimated from, chosen automatically; 0: the whole image.
        deconvolve: deconvolve with the kernel at the end; False returns the network's own image. "sparse" and "learned"
            choose the deconvolution, see `jbid.deconvolve`.
        linear: the image is sRGB and is restored in linear light.
        highlights: lights that are restored to more than white: "clip" to 1, "compress" with a soft shoulder, or "keep"
            as values above 1.
        progress: show progress bars.
        **method_options: of the method, such as channels=64; see for example `jbid.selfdeblur`.

    Returns:
        The restoration, whose `image` has the shape of the input. Arguments that are None follow from the preset.

    Raises:
        TypeError: if the image is no array of numbers.
        ValueError: for an image or argument out of range; the message names the argument.

    Example:
        >>> import jbid, numpy as np
        >>> image = np.random.default_rng(0).random((64, 64))
        >>> jbid.deblur(image, kernel=np.ones((3, 3))).image.shape
        (64, 64)
    """
    arguments = {name: value for name, value in locals().items() if name not in ("image", "method_options")}
    return deblur_batch([image], **arguments, **method_options)[0]


def deblur_batch(images: Sequence[ArrayLike], method: str = "edges", **options: Any) -> list[Restoration]:
    """Restore several images; those of one size run in the same batches.

    Args:
        images: as in `deblur`.
        method: as in `deblur`.
        **options: the other arguments of `deblur`.

    Raises:
        TypeError, ValueError: as `deblur`.

    Example:
        >>> import jbid, numpy as np
        >>> images = [np.random.default_rng(i).random((64, 64)) for i in range(2)]
        >>> [r.chosen for r in jbid.deblur_batch(images, kernel=np.ones((3, 3)))]
        ['known kernel', 'known kernel']
    """
    progress, kernel = options.pop("progress", False), options.pop("kernel", None)
    arrays = [check_image(image) for image in images]
    values = {name: value for name, value in options.items() if value is not None} | {"method": method}
    known = None if kernel is None else check_kernel(kernel)
    if known is not None:
        values["kernel_size"] = known.shape[0]
    config = resolve([("", values)], known_kernel=known is not None)
    for array in arrays:
        check_deconvolve(config, array.shape)
    if progress and config.is_optimized:
        with step_bar(config.method, config.steps) as on_progress:
            restorations = restore(arrays, config, kernel=known, context=RunContext(on_progress=on_progress))
    else:
        restorations = restore(arrays, config, kernel=known)
    return [r._replace(image=r.image[..., 0]) if np.ndim(image) == 2 else r for r, image in zip(restorations, images)]


def estimate_kernel(image: ArrayLike, *, size: int | None = None, learned: bool = False) -> KernelEstimate:
    """Estimate the blur kernel of an image from its edges, without a deep prior.

    Args:
        image: as in `deblur`.
        size: odd side in pixels; None: found from the image.
        learned: improve the estimate by the learned initializer.

    Returns:
        The estimate, with `kernel`, `support`, `candidates` and `warning`.

    Raises:
        TypeError, ValueError: as `deblur`.

    Example:
        >>> import jbid
        >>> from skimage import data
        >>> blurred = jbid.blur(data.camera()[100:168, 160:228], jbid.motion_kernels(5, 5, 1)[0])
        >>> jbid.estimate_kernel(blurred, size=5).kernel.shape
        (5, 5)
    """
    values = {"kernel_size": size or "auto", "init": "learned" if learned else "edges"}
    config = resolve([("", values)])
    prepared = prepare(check_image(image), config)
    assert prepared.estimate is not None
    return prepared.estimate._replace(kernel=prepared.initial_kernels[0].kernel)


def deconvolve(
    image: ArrayLike,
    kernel: ArrayLike,
    *,
    method: Deconvolution = "auto",
    weight: float | None = None,
    tile: int = TILE,
) -> NDArray[np.float32]:
    """Deconvolve an image with a known kernel, at any image size.

    Args:
        image: as in `deblur`.
        kernel: (kh, kw), not negative.
        method: "sparse": sparse gradients (Levin et al. 2007); "learned": corrected by a trained network; "auto":
            learned for the noise levels and kernels with which the network wins, unless many pixels are clipped.
        weight: of the gradient prior; None: by the noise level of the image.
        tile: side in pixels of the tiles that large images are restored in.

    Returns:
        The sharp image in [0, 1], of the shape of the input.

    Raises:
        TypeError, ValueError: as `deblur`.

    Example:
        >>> import jbid, numpy as np
        >>> jbid.deconvolve(np.random.default_rng(0).random((64, 64)), np.ones((3, 3))).shape
        (64, 64)
    """
    array, known = check_image(image), check_kernel(kernel)
    if max(known.shape) > min(array.shape[:2]):
        raise ValueError(f"`kernel` must not exceed the image of {array.shape[:2]} pixels, got {known.shape}")
    sharp = deconvolve_tiled(array, known, method=method, weight=weight, tile=tile)
    return sharp[..., 0] if np.ndim(image) == 2 else sharp


def transfer_blur(
    sharp: ArrayLike, blurred: ArrayLike, target: ArrayLike, *, weights: str | None = None
) -> NDArray[np.float32]:
    """Transfer the blur between two images to a third: F(target, G(sharp, blurred)) (Tran et al. 2021, section 3.4).

    Args:
        sharp, blurred: images of one size, as in `deblur`.
        target: the image to be blurred.
        weights: folder of a trained blur operator; None: the shipped one.

    Returns:
        The blurred target in [0, 1], of its shape.

    Raises:
        TypeError, ValueError: as `deblur`; for images of different sizes, and missing or damaged weights.

    Example:
        >>> import jbid, numpy as np
        >>> sharp, blurred, target = np.random.default_rng(0).random((3, 64, 64))
        >>> jbid.transfer_blur(sharp, blurred, target).shape
        (64, 64)
    """
    operator = blur_operator.operator("operator", weights_folder(weights or ""))
    code = transfer.extract_code(operator, check_image(sharp, "sharp"), check_image(blurred, "blurred"))
    result = transfer.apply_code(operator, check_image(target, "target"), code)
    return result[..., 0] if np.ndim(target) == 2 else result


def blur(image: ArrayLike, kernel: ArrayLike) -> Array:
    """Blur an image: y = k * x, true convolution, of the pixels that see the whole kernel.

    Args:
        image: (H, W) or (H, W, c); integers are scaled to [0, 1].
        kernel: (kh, kw).

    Returns:
        The blurred image, smaller than the input by the kernel's shape minus one.

    Raises:
        ValueError: for a kernel larger than the image, or arrays of other dimensions.

    Example:
        >>> import jbid, numpy as np
        >>> jbid.blur(np.ones((32, 32, 3)), np.full((5, 5), 1 / 25)).shape
        (28, 28, 3)
    """
    array, kernel = float_image(image), jnp.asarray(kernel)
    return conv.blur(array[..., None], kernel)[..., 0] if array.ndim == 2 else conv.blur(array, kernel)


def motion_kernels(key: Array | int, size: int, count: int, *, model: str = "camera") -> Array:
    """Simulate motion-blur kernels.

    Args:
        key: random key of JAX, or an integer seed.
        size: odd side in pixels, at least 5.
        count: number of kernels.
        model: "camera", "trajectory" or "gaussian_process".

    Returns:
        (count, size, size), not negative, each with sum one.

    Raises:
        ValueError: for an even or too small size, or another model.

    Example:
        >>> import jbid
        >>> jbid.motion_kernels(0, 21, 3).shape
        (3, 21, 21)
    """
    return motion.motion_kernels(_key(key), size, count, model)


def add_noise(key: Array | int, image: ArrayLike, spec: str) -> Array:
    """Add noise to an image.

    Args:
        key: random key of JAX, or an integer seed.
        image: (h, w) or (h, w, c) in [0, 1]; integers are scaled.
        spec: "gaussian:SIGMA", "impulse:PROBABILITY", "shot:RATE", "clipping:GAIN" or "saturation"; a level may
            be low or high.

    Raises:
        ValueError: for another specification.

    Example:
        >>> import jbid, numpy as np
        >>> jbid.add_noise(0, np.ones((8, 8)), "gaussian:0.01").shape
        (8, 8)
    """
    array = float_image(image)
    if array.ndim == 2:
        return noise.add_noise(_key(key), array[..., None], spec)[..., 0]
    return noise.add_noise(_key(key), array, spec)


def estimate_noise(image: ArrayLike) -> Array:
    """Estimate the standard deviation of white Gaussian noise, averaged over channels (Donoho and Johnstone 1994).

    Args:
        image: (h, w) or (h, w, c) in [0, 1]; integers are scaled.

    Example:
        >>> import jbid, numpy as np
        >>> noisy = jbid.add_noise(0, np.full((64, 64), 0.5), "gaussian:0.05")
        >>> bool(abs(jbid.estimate_noise(noisy) - 0.05) < 0.005)
        True
    """
    array = float_image(image)
    return noise.estimate_noise(array[..., None] if array.ndim == 2 else array)


def _key(key: Array | int) -> Array:
    return jax.random.key(key) if isinstance(key, (int, np.integer)) else key
