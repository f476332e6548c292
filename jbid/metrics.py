"""Scores of images and kernels, as published evaluations compute them: NumPy, double precision, on the host."""

from __future__ import annotations

import functools
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal
from numpy.typing import NDArray
from skimage.metrics import structural_similarity


class Aligned(NamedTuple):
    """Score of an image after the shift that fits the ground truth best.

    Attributes:
        psnr: in dB.
        ssim: of the compared part.
        shift: down and right, in pixels.
        squared_error: sum over the compared pixels, for a range of 1.
        image: the aligned part that was compared.
    """

    psnr: float
    ssim: float
    shift: tuple[float, float]
    squared_error: float
    image: NDArray


def psnr(image: NDArray, truth: NDArray) -> float:
    """Peak signal-to-noise ratio, 10 log10(1 / mean (image - truth)^2) in dB, of images in [0, 1].

    Example:
        >>> import numpy as np
        >>> round(psnr(np.full((8, 8), 0.5), np.full((8, 8), 0.6)), 6)
        20.0
    """
    error = np.mean(np.square(np.asarray(image, float) - np.asarray(truth, float)))
    return float(10 * np.log10(1 / error)) if error else float("inf")


def ssim_matlab(image: NDArray, truth: NDArray) -> float:
    """Mean SSIM of two gray images in [0, 1], as Matlab's older `ssim.m`.

    Gaussian 11x11 window (sigma 1.5), only where it fits; K = (0.01, 0.03) (Wang et al. 2004). Images are first
    averaged over f x f pixels and subsampled by f = max(1, round(shorter side / 256)), as in the authors' later code.

    Args:
        image, truth: (h, w), of one size; at least 11x11 after the subsampling.
    """
    images = [np.asarray(v, float) for v in (image, truth)]
    # Matlab rounds halves away from zero
    f = max(1, int(np.floor(min(images[0].shape) / 256 + 0.5)))
    if f > 1:
        # an even window of imfilter has its center at the upper left of the middle
        images = [scipy.ndimage.uniform_filter(v, f, mode="reflect", origin=-1 if f % 2 == 0 else 0) for v in images]
        images = [v[::f, ::f] for v in images]
    return float(
        structural_similarity(*images, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0)
    )


def _window_sums(x: NDArray, shape: tuple[int, int]) -> NDArray:
    """Sums over all windows of `shape` that fit into x, from cumulative sums."""
    total = np.pad(np.cumsum(np.cumsum(x, 0), 1), ((1, 0), (1, 0)))
    h, w = shape
    return total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]


def align(image: NDArray, truth: NDArray, *, max_shift: int = 10, border: int = 15) -> Aligned:
    """Score after the best shift: `comp_upto_shift` of SelfDeblur's evaluation of Levin's and Lai's sets.

    The squared error at all shifts is exact: sum t^2 - 2 correlation(p, t) + window sum of p^2, with the ground truth t
    and each of the 16 sub-pixel phases p of the image. The correlation is computed by FFT. Channels shift together.

    Args:
        image, truth: (h, w) or (h, w, c) in [0, 1], of one size.
        max_shift: largest shift in pixels; shifts go in steps of 1/4, by bilinear interpolation.
        border: pixels along the sides of the ground truth that do not count.

    Raises:
        ValueError: for other shapes, or too small images.
    """
    image, truth = np.asarray(image, float), np.asarray(truth, float)
    if image.shape != truth.shape or image.ndim not in (2, 3):
        raise ValueError(f"`image` and `truth` must have one size, got the shapes {image.shape} and {truth.shape}")
    if max_shift > border or min(image.shape[:2]) <= 2 * border:
        raise ValueError(
            f"`max_shift` must not exceed `border`, and the image must exceed {2 * border} pixels, got the shift "
            f"{max_shift}, the border {border} and {image.shape}"
        )

    rows, columns = image.shape[:2]
    inner = truth[border : rows - border, border : columns - border]
    low = border - max_shift
    wide = image[low : rows - low, low : columns - low]
    dy, dx = _find_shift(wide, inner, max_shift)
    aligned = scipy.ndimage.shift(wide, (-dy, -dx, 0)[: image.ndim], order=1, mode="nearest")
    aligned = aligned[max_shift : wide.shape[0] - max_shift, max_shift : wide.shape[1] - max_shift]
    return Aligned(
        psnr=psnr(aligned, inner),
        ssim=float(np.mean([ssim_matlab(*pair) for pair in zip(_channels(aligned), _channels(inner))])),
        shift=(float(dy), float(dx)),
        squared_error=float(np.sum((aligned - inner) ** 2)),
        image=aligned,
    )


def _channels(image: NDArray) -> list[NDArray]:
    """Channels (h, w) of an image."""
    return [image] if image.ndim == 2 else list(np.moveaxis(image, -1, 0))


def _find_shift(wide: NDArray, inner: NDArray, max_shift: int) -> tuple[float, float]:
    """Shift down and right of `wide`, in steps of 1/4 pixel, with the least squared error against `inner`."""
    fast = tuple(scipy.fft.next_fast_len(n, real=True) for n in wide.shape[:2])
    spectra = [np.conj(scipy.fft.rfft2(channel, fast)) for channel in _channels(inner)]
    best = (np.inf, 0.0, 0.0)
    phases = (0.0, 0.25, 0.5, 0.75) if max_shift else (0.0,)
    # columns first, as Matlab's loops break ties
    for fx in phases:
        across = wide if fx == 0 else (1 - fx) * wide[:, :-1] + fx * wide[:, 1:]
        for fy in phases:
            phase = across if fy == 0 else (1 - fy) * across[:-1] + fy * across[1:]
            h, w = phase.shape[0] - inner.shape[0] + 1, phase.shape[1] - inner.shape[1] + 1
            error = np.zeros((h, w))
            for channel, spectrum in zip(_channels(phase), spectra):
                correlation = scipy.fft.irfft2(scipy.fft.rfft2(channel, fast) * spectrum, fast)[:h, :w]
                error += _window_sums(channel**2, inner.shape[:2]) - 2 * correlation
            i, j = np.unravel_index(np.argmin(error), error.shape)
            best = min(best, (error[i, j], i - max_shift + fy, j - max_shift + fx))
    return best[1:]


def kernel_similarity(kernel: NDArray, truth: NDArray, fractions: int = 1) -> float:
    """Largest normalized cross-correlation over all shifts, the better of the kernel and its 180-degree rotation.

    max_s sum_p k(p) t(p + s) / (||k|| ||t||), in [0, 1] for non-negative kernels; sizes may differ (Hu and Yang 2012).
    Both orientations count, because Levin's kernel files do not share one. With `fractions` above one, shifts go in
    steps of 1 / `fractions` pixels, and the Fourier series interpolates the correlation: the position of a kernel is
    unobservable, and thin kernels half a pixel apart correlate little at whole pixels.

    Example:
        >>> import numpy as np
        >>> round(kernel_similarity(np.eye(5), np.pad(np.eye(5), ((2, 0), (0, 2)))), 6)
        1.0
    """
    kernel, truth = np.asarray(kernel, float), np.asarray(truth, float)
    scale = np.linalg.norm(kernel) * np.linalg.norm(truth)
    if scale == 0:
        return 0.0

    def largest(k):
        correlation = scipy.signal.correlate(k, truth)
        for axis, n in enumerate(correlation.shape if fractions > 1 else ()):
            correlation = scipy.signal.resample(correlation, n * fractions, axis=axis)
        return correlation.max()

    return float(max(largest(kernel), largest(kernel[::-1, ::-1])) / scale)


def vif(image: NDArray, truth: NDArray) -> float:
    """Visual information fidelity of a gray image in [0, 1] in the pixel domain; 1 for the ground truth itself.

    Ratio of two amounts of information: that of the image about the ground truth, and that of the ground truth about
    itself. The model is a Gaussian scale mixture in local windows at four scales, with neural noise of variance 2 in
    levels of 255 (Sheikh and Bovik 2006, Image Information and Visual Quality; their `vifp_mscale`). An image of higher
    contrast can exceed 1.

    Raises:
        ValueError: for unequal shapes, or sides under 41 pixels, which the coarsest scale needs.
    """
    t, x = (255 * np.asarray(v, float) for v in (truth, image))
    if t.shape != x.shape or t.ndim != 2 or min(t.shape) < 41:
        raise ValueError(
            f"`image` and `truth` must be gray, of one shape of at least 41x41, got the shapes {x.shape} and {t.shape}"
        )
    noise, tiny = 2.0, 1e-10
    image_information = truth_information = 0.0
    for scale in range(4):
        n = 2 ** (4 - scale) + 1
        taps = np.exp(-((np.arange(n) - n // 2) ** 2) / (2 * (n / 5) ** 2))
        window = np.outer(taps, taps) / taps.sum() ** 2

        def mean(v, window=window):
            return scipy.signal.convolve(v, window, "valid")

        if scale:
            t, x = mean(t)[::2, ::2], mean(x)[::2, ::2]
        mt, mx = mean(t), mean(x)
        vt, vx = (np.maximum(mean(v * v) - m * m, 0) for v, m in ((t, mt), (x, mx)))
        covariance = mean(t * x) - mt * mx
        gain = covariance / (vt + tiny)
        rest = vx - gain * covariance
        # windows without variance carry no information; a negative gain counts as noise
        gain, rest = np.where(vt < tiny, 0, gain), np.where(vt < tiny, vx, rest)
        vt = np.where(vt < tiny, 0, vt)
        gain, rest = np.where(vx < tiny, 0, gain), np.where(vx < tiny, 0, rest)
        rest = np.where(gain < 0, vx, rest)
        gain, rest = np.maximum(gain, 0), np.maximum(rest, tiny)
        image_information += np.sum(np.log10(1 + gain * gain * vt / (rest + noise)))
        truth_information += np.sum(np.log10(1 + vt / noise))
    return float(image_information / truth_information) if truth_information else 1.0


def frequency_band_error(kernel: NDArray, truth: NDArray, *, bands: int = 5) -> NDArray[np.float64]:
    """Frequency band error (FBE): mean of |F(k) - F(t)| / |F(t)| in rings of spatial frequency, from low to high.

    Zhuang et al., Fig. 12, after Shi et al. 2022. The rings have equal widths between zero and 1/2 per pixel, the
    largest frequency along an axis; the corners beyond belong to none.

    Args:
        kernel, truth: of one shape; they are compared without a shift.
        bands: number of rings.

    Returns:
        Error of each ring, (bands,). Rings without a frequency of so small a kernel are NaN.
    """
    t, k = np.fft.fft2(truth), np.fft.fft2(kernel)
    error = np.abs(k - t) / np.maximum(np.abs(t), 1e-12)
    rows, columns = (np.fft.fftfreq(n) for n in truth.shape)
    radius = np.hypot(rows[:, None], columns)
    ring = np.where(radius <= 0.5, np.minimum(np.floor(radius / 0.5 * bands), bands - 1), bands)
    return np.array([error[ring == band].mean() for band in range(bands)])


def lpips(image: NDArray, truth: NDArray, weights: str | Path) -> float:
    """Learned perceptual distance of two images (h, w, 1 or 3) in [0, 1], AlexNet version 0.1 (Zhang et al. 2018).

    The authors' package computes it. Its wheel has the linear layers, but not the backbone.

    Args:
        image, truth: of one size.
        weights: torchvision's `alexnet-owt-7be5be79.pth`, the backbone.

    Raises:
        ValueError: if the package or the file is missing, or the file has other weights.
    """
    if not Path(weights).is_file():
        raise ValueError(
            f"{weights}: no such file; LPIPS needs torchvision's AlexNet weights, alexnet-owt-7be5be79.pth, from "
            "https://download.pytorch.org/models/"
        )
    try:
        import torch

        distance = _lpips_model(str(weights))
    except ImportError as error:
        raise ValueError(f"LPIPS needs the package {error.name}: pip install 'jbid[lpips]'") from None

    def tensor(v):
        v = np.asarray(v, np.float32)
        return torch.from_numpy(np.broadcast_to(v, (*v.shape[:2], 3)).transpose(2, 0, 1)[None] * 2 - 1)

    with torch.no_grad():
        return float(distance(tensor(image), tensor(truth)))


@functools.lru_cache(maxsize=1)
def _lpips_model(weights: str) -> Any:
    """LPIPS network of the authors' package with the user's backbone."""
    import lpips as package
    import torch

    # a random backbone avoids a download; the user's weights replace it below
    with warnings.catch_warnings():
        # the package uses a deprecated name of torchvision
        warnings.simplefilter("ignore")
        model = package.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    try:
        state = torch.load(weights, weights_only=True)
        for part in (model.net.slice1, model.net.slice2, model.net.slice3, model.net.slice4, model.net.slice5):
            part.load_state_dict({name: state[f"features.{name}"] for name in part.state_dict()})
    except (KeyError, IndexError, TypeError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"{weights}: not torchvision's AlexNet weights ({type(error).__name__})") from None
    return model


def pairwise_similarity(kernels: Sequence[NDArray]) -> NDArray[np.float64]:
    """Largest normalized cross-correlation over whole-pixel shifts of each pair of non-negative kernels, (n, n).

    Unlike `kernel_similarity` it does not rotate: estimates for one image share an orientation.

    Args:
        kernels: n kernels of one shape (s, s).
    """
    ks = np.stack([np.asarray(k, float) for k in kernels])
    ks /= np.maximum(np.linalg.norm(ks, axis=(1, 2), keepdims=True), 1e-30)
    fast = [scipy.fft.next_fast_len(2 * n - 1, real=True) for n in ks.shape[1:]]
    spectra = scipy.fft.rfft2(ks.astype(np.float32), fast)
    upper = [np.pad(scipy.fft.irfft2(spectra[i:] * s.conj(), fast).max((1, 2)), (i, 0)) for i, s in enumerate(spectra)]
    return np.maximum(upper, np.transpose(upper))
