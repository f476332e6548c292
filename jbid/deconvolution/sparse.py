"""Sparse non-blind deconvolution: hyper-Laplacian gradients by iteratively reweighted least squares."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jbid.ops.conv import blur_operators, crop_center, pad_edge
from jbid.ops.kernels import normalize_kernel
from jbid.ops.namespace import AnyArray, Scalar, conjugate_gradients, is_host, namespace, repeat
from jbid.ops.noise import detect_impulses, estimate_noise, remove_impulses
from jbid.runtime.parallel import map_threads

CONTRAST = 0.17  # standard deviation that images are scaled to, so that thresholds mean the same for all

CLIPPED = (1 / 255, 0.99)  # values from which on a pixel may be clipped
THRESHOLD = 0.002  # of kernel values over the largest one; smaller ones are noise
# of the second derivatives, after Levin et al.; that of the first ones is 1
_SECOND = 0.25


def _subtract(a: AnyArray, b: AnyArray, out: NDArray[np.float32] | None) -> AnyArray:
    return a - b if out is None else np.subtract(a, b, out=out)


def _add_adjoint(total: AnyArray, v: AnyArray, step: int) -> AnyArray:
    """`total`, in place on the host, plus the adjoint of x[step:] - x[:-step] applied to `v`."""
    if not is_host(v):
        return total + jnp.pad(v, (step, 0)) - jnp.pad(v, (0, step))
    total[step:] += v
    total[:-step] -= v
    return total


def _power(d: AnyArray, least: float, power: Scalar) -> AnyArray:
    """max(|d|, least)^power, in place on the host, where exp and log are faster than a power."""
    if not is_host(d):
        return jnp.maximum(abs(d), least) ** power
    np.maximum(np.abs(d, out=d), least, out=d)
    np.multiply(np.log(d, out=d), power, out=d)
    return np.exp(d, out=d)


class _Derivatives:
    """Both first and all three second derivatives of images (H, W, c) like `x`, as one long row each.

    In this order memory is read in sequence. What lies across the ends of two rows means nothing: `inside` is 0 there,
    else 1. On the host results overwrite earlier ones, because new arrays take longer than the differences.
    """

    def __init__(self, x: AnyArray):
        below, across, count = x.shape[1] * x.shape[2], x.shape[2], x.size
        self.below, self.across = below, across
        lengths = count - below, count - across, count - 2 * below, count - 2 * across, count - below - across
        in_row = np.arange(below)
        self.inside = [
            np.tile(in_row < below - n * across, x.shape[0])[:length].astype(x.dtype)
            for n, length in zip((0, 1, 0, 2, 1), lengths)
        ]
        self.memory: list[Any] = [np.empty(n, x.dtype) if is_host(x) else None for n in (*lengths, count)]

    def of(self, x: AnyArray) -> list[AnyArray]:
        """Derivatives down, across, twice down, twice across, and down and across."""
        v, below, across, memory = x.reshape(-1), self.below, self.across, self.memory
        first = _subtract(v[below:], v[:-below], memory[0]), _subtract(v[across:], v[:-across], memory[1])
        second = [
            _subtract(d[step:], d[:-step], out)
            for d, step, out in zip((*first, first[0]), (below, across, across), memory[2:])
        ]
        return [*first, *second]

    def penalty_gradient(self, x: AnyArray, weights: list[AnyArray]) -> AnyArray:
        """Gradient of sum_j w_j (d_j x)^2 / 2, for weights that are 0 where `inside` is."""
        values = self.of(x)
        for i, weight in enumerate(weights):
            values[i] *= weight
        down, across, down2, across2, mixed = values
        down = _add_adjoint(_add_adjoint(down, down2, self.below), mixed, self.across)
        across = _add_adjoint(across, across2, self.across)
        if is_host(x):
            total = self.memory[-1]
            total[:] = 0
        else:
            total = jnp.zeros(x.size, x.dtype)
        return _add_adjoint(_add_adjoint(total, down, self.below), across, self.across).reshape(x.shape)


def _within_range(blurred: AnyArray, predicted: AnyArray, dark: float, bright: float) -> AnyArray:
    """0 for pixels whose value is clipped and predicted to lie beyond, else 1."""
    is_beyond = ((blurred <= dark) & (predicted < blurred)) | ((blurred >= bright) & (predicted > blurred))
    return 1.0 - is_beyond.astype(blurred.dtype)


def regularization_weight(noise: Scalar) -> Scalar:
    """Weight of `sparse_deconvolution` for a noise level: max(1e-4, 0.2 sigma^1.4), sigma a standard deviation.

    A fit to the best weights on images with known kernels (docs/development-notes.md).
    """
    return namespace(noise).maximum(0.2 * noise**1.4, 1e-4)


def sparse_deconvolution(
    blurred: Float[AnyArray, "h w c"],
    kernel: Float[AnyArray, "kh kw"],
    init_image: Float[AnyArray, "H W c"],
    *,
    weight: Scalar = 1e-4,
    exponent: float = 0.8,
    rounds: int = 8,
    iterations: int = 25,
    epsilon: float = 0.005,
    trusted: Float[AnyArray, "h w 1"] | None = None,
    limits: tuple[float, float] | None = None,
) -> Float[AnyArray, "H W c"]:
    """argmin_x ||t (k * x - y)||^2 + weight sum_j w_j |d_j x|^exponent over the latent image.

    The data term is the truncated convolution, so it assumes nothing about the pixels beyond the border. d_j are the
    first derivatives (w_j = 1) and the second ones (w_j = 1/4). Iteratively reweighted least squares: |d x|^p is
    replaced by max(|d x|, epsilon)^(p - 2) (d x)^2 at the last x, and conjugate gradients lower each quadratic.
    After Levin, Fergus, Durand and Freeman 2007, Image and Depth from a Conventional Camera (sparse deconvolution,
    Eq. 6 to 8 and appendix A).

    Args:
        blurred: observed image y.
        kernel: k, with sum one.
        init_image: latent image to begin with.
        weight: of the gradient prior.
        exponent: of the gradients.
        rounds: number of reweightings.
        iterations: steps of conjugate gradients in each round.
        epsilon: bound of the gradients from below.
        trusted: t, 1 or 0 for pixels without information; None: 1 everywhere.
        limits: values from which on pixels are clipped, at the dark and the bright end. Such a pixel counts only while
            the prediction is within the range: y = min(1, k * x). None: no pixel is clipped.
    """
    xp = namespace(blurred)
    forward, adjoint = blur_operators(kernel, init_image.shape)
    everywhere = 1.0 if trusted is None else trusted
    derivatives = _Derivatives(init_image)
    orders = [weight * w * inside for w, inside in zip((1, 1, _SECOND, _SECOND, _SECOND), derivatives.inside)]

    def reweight(i, x):
        if is_host(x) and i == 0:
            return orders
        # the first round has the plain quadratic
        power = xp.where(i == 0, 0.0, exponent - 2).astype(x.dtype)
        return [w * _power(d, epsilon, power) for w, d in zip(orders, derivatives.of(x))]

    def round_(i, x):
        weights = reweight(i, x)
        mask = everywhere if limits is None else everywhere * _within_range(blurred, forward(x), *limits)

        def normal(v):
            result = adjoint(mask * forward(v))
            result += derivatives.penalty_gradient(v, weights)
            return result

        return conjugate_gradients(normal, adjoint(mask * blurred), x, iterations)

    return repeat(rounds, round_, init_image, on_host=is_host(blurred))


def sparse_latent(
    clean: Float[AnyArray, "h w c"],
    kernel: Float[AnyArray, "kh kw"],
    *,
    weight: Scalar,
    trusted: Float[AnyArray, "h w 1"],
    **options: Any,
) -> Float[AnyArray, "H W c"]:
    """`sparse_deconvolution` with a normalized kernel, from the image continued at its border; clipped pixels count
    only while the prediction is within the range.

    Args:
        clean: in [0, 1], without impulse noise.
        kernel, weight, trusted, **options: of `sparse_deconvolution`.
    """
    init_image = pad_edge(clean, kernel.shape)

    def solve(clean, init_image):
        return sparse_deconvolution(
            clean, kernel, init_image, weight=weight, trusted=trusted, limits=CLIPPED, **options
        )

    if not is_host(clean):
        return solve(clean, init_image)
    # one channel for each thread
    channels = [slice(i, i + 1) for i in range(clean.shape[-1])]
    return np.concatenate(map_threads(lambda c: solve(clean[..., c], init_image[..., c]), channels), -1)


def deconvolve_sparse(
    blurred: Float[AnyArray, "h w c"],
    kernel: Float[AnyArray, "kh kw"],
    *,
    threshold: float = THRESHOLD,
    weight: Scalar | None = None,
    **options: Any,
) -> Float[AnyArray, "h w c"]:
    """Sharp image on the observed window, in [0, 1]: `sparse_latent` of an image with impulse noise.

    Args:
        blurred: in [0, 1].
        kernel: normalized after values under `threshold` times the maximum are removed as noise.
        threshold: a small share, because larger ones cost accuracy (docs/development-notes.md).
        weight: of the gradient prior; None: `regularization_weight` of the estimated noise level.
        **options: of `sparse_deconvolution`.
    """
    kernel = normalize_kernel(kernel, threshold)
    clean = remove_impulses(blurred)
    weight = regularization_weight(estimate_noise(clean)) if weight is None else weight
    # pixels with impulse noise are not trusted
    trusted = 1.0 - detect_impulses(blurred).astype(blurred.dtype)
    x = sparse_latent(clean, kernel, weight=weight, trusted=trusted, **options)
    return namespace(x).clip(crop_center(x, kernel.shape), 0, 1)


def deconvolve_gray(
    image: Float[AnyArray, "h w"], kernel: Float[AnyArray, "kh kw"], init_image: Float[AnyArray, "H W"] | None = None
) -> Float[AnyArray, "H W"]:
    """Latent image by a short `sparse_deconvolution` of a gray image, scaled to `CONTRAST` meanwhile."""
    scale = CONTRAST / namespace(image).maximum(image.std(), 1e-3)
    y = (image * scale)[..., None]
    x = pad_edge(y, kernel.shape) if init_image is None else init_image[..., None] * scale
    weight = regularization_weight(estimate_noise(y))
    return sparse_deconvolution(y, kernel, x, weight=weight, rounds=3, iterations=10)[..., 0] / scale
