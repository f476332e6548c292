"""Image and kernel scores, as the field computes them. NumPy, double precision, on the host."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal
from numpy.typing import NDArray
from skimage.metrics import structural_similarity


class Aligned(NamedTuple):
    """The score of an image that was shifted to fit the truth best."""

    psnr: float  # dB
    ssim: float
    shift: tuple[float, float]  # down and right, pixels
    squared_error: float  # sum over the compared pixels, range 1
    image: NDArray  # the aligned part that was compared


def psnr(image: NDArray, truth: NDArray) -> float:
    """10 log10(1 / mean (image - truth)^2) in dB, for images in [0, 1]; inf where they are equal."""
    error = np.mean(np.square(np.asarray(image, float) - np.asarray(truth, float)))
    return float(10 * np.log10(1 / error)) if error else float("inf")


def ssim_matlab(image: NDArray, truth: NDArray) -> float:
    """Mean SSIM of two gray images in [0, 1] as Matlab's older `ssim.m` gives it.

    Gaussian 11x11 window (sigma 1.5), only where it fits; K = (0.01, 0.03); larger images are first averaged over
    f x f pixels and taken every f-th, f = round(shorter side / 256) (Wang et al. 2004 and the authors' later code).
    """
    images = [np.asarray(v, float) for v in (image, truth)]
    # Matlab rounds halves away from zero
    f = max(1, int(np.floor(min(images[0].shape) / 256 + 0.5)))
    if f > 1:
        # an even window of imfilter has its centre at the upper left of the middle
        images = [scipy.ndimage.uniform_filter(v, f, mode="reflect", origin=-1 if f % 2 == 0 else 0) for v in images]
        images = [v[::f, ::f] for v in images]
    return float(
        structural_similarity(*images, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0)
    )


def _window_sums(x: NDArray, shape: tuple[int, int]) -> NDArray:
    """The sum over every window of `shape` that fits into x, from cumulative sums."""
    total = np.pad(np.cumsum(np.cumsum(x, 0), 1), ((1, 0), (1, 0)))
    h, w = shape
    return total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]


def align(image: NDArray, truth: NDArray, *, max_shift: int = 10, border: int = 15) -> Aligned:
    """Score after the shift that fits best: SelfDeblur's `comp_upto_shift` on its evaluation of Levin's and Lai's sets.

    The outer `border` pixels of the truth are left out; of all shifts within `max_shift` pixels in steps of 1/4, by
    bilinear interpolation, the one with the smallest squared error counts, and PSNR and SSIM are taken there. image
    and truth are gray, in [0, 1] and of one size.

    The sum of squares over all shifts is exact but fast: for each of the 16 sub-pixel phases it is
    sum t^2 - 2 correlation(p, t) + window sum of p^2, by FFT. Raises ValueError for other shapes or too small images.
    """
    image, truth = np.asarray(image, float), np.asarray(truth, float)
    if image.shape != truth.shape or image.ndim != 2:
        raise ValueError(f"got images of shapes {image.shape} and {truth.shape}, expected two gray ones of one size")
    if max_shift > border or min(image.shape) <= 2 * border:
        raise ValueError(
            f"got image {image.shape}, border {border} and shift {max_shift}, expected a shift up to the border and "
            f"an image of more than {2 * border} pixels"
        )
    inner = truth[border:-border, border:-border]
    low, high = border - max_shift, image.shape[0] - border + max_shift
    wide = image[low:high, low : image.shape[1] - border + max_shift]
    fast = tuple(scipy.fft.next_fast_len(n, real=True) for n in wide.shape)
    inner_spectrum = np.conj(scipy.fft.rfft2(inner, fast))
    best = (np.inf, 0.0, 0.0)
    # columns first, as Matlab's loops break ties
    for fx in (0.0, 0.25, 0.5, 0.75):
        columns = wide if fx == 0 else (1 - fx) * wide[:, :-1] + fx * wide[:, 1:]
        for fy in (0.0, 0.25, 0.5, 0.75):
            phase = columns if fy == 0 else (1 - fy) * columns[:-1] + fy * columns[1:]
            h, w = phase.shape[0] - inner.shape[0] + 1, phase.shape[1] - inner.shape[1] + 1
            correlation = scipy.fft.irfft2(scipy.fft.rfft2(phase, fast) * inner_spectrum, fast)[:h, :w]
            error = _window_sums(phase**2, inner.shape) - 2 * correlation
            i, j = np.unravel_index(np.argmin(error), error.shape)
            best = min(best, (error[i, j], i - max_shift + fy, j - max_shift + fx))
    _, dy, dx = best
    aligned = scipy.ndimage.shift(wide, (-dy, -dx), order=1, mode="nearest")
    aligned = aligned[max_shift : wide.shape[0] - max_shift, max_shift : wide.shape[1] - max_shift]
    error = float(np.sum((aligned - inner) ** 2))
    return Aligned(psnr(aligned, inner), ssim_matlab(aligned, inner), (float(dy), float(dx)), error, aligned)


def kernel_similarity(kernel: NDArray, truth: NDArray) -> float:
    """Largest normalised cross-correlation over all shifts, the better of the kernel and its 180-degree rotation.

    max_s sum_p k(p) t(p + s) / (||k|| ||t||), in [0, 1] for non-negative kernels; sizes may differ (Hu and Yang 2012).
    Both orientations count since Levin's kernel files do not share one.
    """
    kernel, truth = np.asarray(kernel, float), np.asarray(truth, float)
    scale = np.linalg.norm(kernel) * np.linalg.norm(truth)
    if scale == 0:
        return 0.0
    return float(max(scipy.signal.correlate(k, truth).max() for k in (kernel, kernel[::-1, ::-1])) / scale)
