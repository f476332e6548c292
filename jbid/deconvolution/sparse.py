"""Sparse non-blind deconvolution: hyper-Laplacian gradients by iteratively reweighted least squares."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from jaxtyping import Bool, Float

from jbid.deconvolution.derivatives import Derivatives, power_of
from jbid.ops.color import luma, rgb_to_ycbcr, ycbcr_to_rgb
from jbid.ops.conv import blur_operators, crop_center, fast_shape, pad_edge
from jbid.ops.kernels import normalize_kernel
from jbid.ops.namespace import AnyArray, Scalar, conjugate_gradients, fft, is_host, namespace, repeat
from jbid.ops.noise import detect_impulses, estimate_noise, remove_impulses
from jbid.ops.periodic import laplacian_spectrum
from jbid.runtime.parallel import map_threads

CONTRAST = 0.17  # standard deviation that images are scaled to, so that thresholds mean the same for all

CLIPPED = (1 / 255, 0.99)  # values from which on a pixel may be clipped
THRESHOLD = 0.002  # of kernel values over the largest one; smaller ones are noise
# of `sparse_deconvolution` for chroma, and its weight over that of luma
CHROMA_OPTIONS = {"rounds": 2, "iterations": 6}
CHROMA_WEIGHT = 4.0
LEAST_POWER = 1e-4  # added to |K|^2 by the preconditioner
SAMPLED = 7  # one weight of so many counts for their mean
# of the second derivatives, after Levin et al.; that of the first ones is 1
_SECOND = 0.25


def _periodic_solver(kernel: AnyArray, image: AnyArray) -> Callable[[AnyArray, Scalar], AnyArray]:
    """A function (v, weight) -> F^-1[F v / (|K|^2 + weight (L + L^2 / 4))] for images like `image`."""
    xp, (h, w) = namespace(image), image.shape[:2]
    padded = fast_shape(h, w)
    power = abs(fft(kernel).rfft2(kernel, padded)) ** 2 + LEAST_POWER
    laplacian = laplacian_spectrum(xp.zeros(padded, image.dtype))
    penalty = laplacian + _SECOND * laplacian**2

    def solve(v, weight):
        spectrum = fft(v).rfft2(v, padded, axes=(0, 1))
        spectrum *= (1 / (power + weight * penalty))[..., None]
        return fft(v).irfft2(spectrum, padded, axes=(0, 1))[:h, :w]

    return solve


class Clipped(NamedTuple):
    """Pixels of a blurred image that are clipped.

    Attributes:
        dark, bright: (h, w, 1), True where the camera may have seen less, or more, than the image shows.
    """

    dark: Bool[AnyArray, "h w 1"]
    bright: Bool[AnyArray, "h w 1"]

    @classmethod
    def of(cls, image: Float[AnyArray, "h w c"]) -> Clipped:
        """Pixels with no channel above the lowest level, and with any channel at the highest one."""
        return cls((image <= CLIPPED[0]).all(-1, keepdims=True), (image >= CLIPPED[1]).any(-1, keepdims=True))

    def within_range(self, blurred: AnyArray, predicted: AnyArray) -> AnyArray:
        """0 for clipped pixels that are predicted to lie beyond what the image shows, else 1."""
        is_beyond = (self.dark & (predicted < blurred)) | (self.bright & (predicted > blurred))
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
    rounds: int = 5,
    iterations: int = 25,
    is_preconditioned: bool = True,
    epsilon: float = 0.005,
    trusted: Float[AnyArray, "h w 1"] | None = None,
    clipped: Clipped | None = None,
) -> Float[AnyArray, "H W c"]:
    """argmin_x ||t (k * x - y)||^2 + weight sum_j w_j |d_j x|^exponent over the latent image.

    The data term is the truncated convolution, so it assumes nothing about the pixels beyond the border. d_j are the
    first derivatives (w_j = 1) and the second ones (w_j = 1/4). Iteratively reweighted least squares: |d x|^p is
    replaced by max(|d x|, epsilon)^(p - 2) (d x)^2 at the last x, and conjugate gradients lower each quadratic.
    After Levin, Fergus, Durand and Freeman 2007, Image and Depth from a Conventional Camera (sparse deconvolution,
    Eq. 6 to 8 and appendix A).

    Args:
        blurred, kernel: observed image y, and k with sum one.
        init_image: latent image to begin with.
        weight, exponent: of the gradient prior.
        rounds, iterations: number of reweightings, and steps of conjugate gradients in each.
        is_preconditioned: these steps are preconditioned by `_periodic_solver` with the mean weight of the derivatives.
        epsilon: bound of the gradients from below.
        trusted: t, 1 or 0 for pixels without information; None: 1 everywhere.
        clipped: pixels that count only while the prediction is within the range, y = min(1, k * x). None: none is.
    """
    xp = namespace(blurred)
    forward, adjoint = blur_operators(kernel, init_image.shape)
    everywhere = 1.0 if trusted is None else trusted
    derivatives = Derivatives(init_image)
    solve = _periodic_solver(kernel, init_image) if is_preconditioned else lambda v, weight: v
    orders = [weight * w * inside for w, inside in zip((1, 1, _SECOND, _SECOND, _SECOND), derivatives.inside)]

    def reweight(i, x):
        if is_host(x) and i == 0:
            return orders
        # the first round has the plain quadratic
        power = xp.where(i == 0, 0.0, exponent - 2).astype(x.dtype)
        return [w * power_of(d, epsilon, power) for w, d in zip(orders, derivatives.of(x))]

    def round_(i, x):
        weights = reweight(i, x)
        mask = everywhere if clipped is None else everywhere * clipped.within_range(blurred, forward(x))

        def normal(v):
            result = adjoint(mask * forward(v))
            result += derivatives.penalty_gradient(v, weights)
            return result

        # down the columns, where no weight is zero; some of them will do
        mean = xp.exp(xp.log(weights[0][::SAMPLED]).mean())
        return conjugate_gradients(normal, adjoint(mask * blurred), x, iterations, partial(solve, weight=mean))

    return repeat(rounds, round_, init_image, on_host=is_host(blurred))


def sparse_latent(
    blurred: Float[AnyArray, "h w c"],
    kernel: Float[AnyArray, "kh kw"],
    *,
    weight: Scalar,
    per_channel: bool = False,
    unknown: Bool[AnyArray, "h w"] | None = None,
    **options: Any,
) -> Float[AnyArray, "H W c"]:
    """Latent image with its surroundings, not clipped: `sparse_deconvolution` of luma and, with less effort, of chroma.

    Gradients of luma and chroma are sparser than those of red, green and blue, and chroma is smooth. Pixels with
    impulse noise are not trusted. Clipped ones count in luma while the prediction is within the range, and not at all
    in chroma.

    Args:
        blurred: gray or RGB, in [0, 1].
        kernel: with sum one.
        weight: of the gradient prior, for luma.
        per_channel: red, green and blue instead, each with its own clipped pixels, which is slower.
        unknown: True for pixels that do not count; None: all do.
        **options: of `sparse_deconvolution`, for luma or all channels.
    """
    clean, trusted = remove_impulses(blurred), 1.0 - detect_impulses(blurred).astype(blurred.dtype)
    trusted = trusted if unknown is None else trusted * ~unknown[..., None]
    is_split = blurred.shape[-1] == 3 and not per_channel
    planes = rgb_to_ycbcr(clean) if is_split else clean
    clipped = Clipped.of(blurred)
    chroma = {"trusted": trusted * ~clipped.bright, "weight": CHROMA_WEIGHT * weight, **CHROMA_OPTIONS}

    def solve(i):
        image = planes[..., i : i + 1]
        own = {"trusted": trusted, "weight": weight, **options}
        own["clipped"] = Clipped.of(blurred[..., i : i + 1]) if per_channel else clipped
        return sparse_deconvolution(image, kernel, pad_edge(image, kernel.shape), **(chroma if is_split and i else own))

    solved = (map_threads if is_host(blurred) else map)(solve, range(planes.shape[-1]))
    x = namespace(blurred).concatenate(list(solved), -1)
    return ycbcr_to_rgb(x) if is_split else x


def deconvolve_sparse(
    blurred: Float[AnyArray, "h w c"],
    kernel: Float[AnyArray, "kh kw"],
    *,
    threshold: float = THRESHOLD,
    weight: Scalar | None = None,
    highest: float = 1.0,
    **options: Any,
) -> Float[AnyArray, "h w c"]:
    """Sharp image on the observed window, in [0, highest]: `sparse_latent` of an image with impulse noise.

    Args:
        blurred: in [0, 1].
        kernel: normalized after values under `threshold` times the maximum are removed as noise.
        threshold: a small share, because larger ones cost accuracy (docs/development-notes.md).
        weight: of the gradient prior; None: `regularization_weight` of the noise level of luma.
        highest: value that the result is clipped to; lights that were clipped in the image may come out above 1.
        **options: of `sparse_latent`.
    """
    kernel = normalize_kernel(kernel, threshold)
    weight = regularization_weight(estimate_noise(luma(remove_impulses(blurred)))) if weight is None else weight
    x = sparse_latent(blurred, kernel, weight=weight, **options)
    return namespace(x).clip(crop_center(x, kernel.shape), 0, highest)


def deconvolve_gray(
    image: Float[AnyArray, "h w"], kernel: Float[AnyArray, "kh kw"], init_image: Float[AnyArray, "H W"] | None = None
) -> Float[AnyArray, "H W"]:
    """Latent image by a short `sparse_deconvolution` of a gray image, scaled to `CONTRAST` meanwhile."""
    scale = CONTRAST / namespace(image).maximum(image.std(), 1e-3)
    y = (image * scale)[..., None]
    x = pad_edge(y, kernel.shape) if init_image is None else init_image[..., None] * scale
    weight = regularization_weight(estimate_noise(y))
    # another solution would need another fit of the predicted gain, whose features it is
    options: dict[str, Any] = {"rounds": 3, "iterations": 10, "is_preconditioned": False}
    return sparse_deconvolution(y, kernel, x, weight=weight, **options)[..., 0] / scale
