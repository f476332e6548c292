"""Color: luma, YCbCr, linear light."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# full-range BT.601, as in JPEG and OpenCV: rows Y, Cb, Cr
_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


def rgb_to_ycbcr(rgb: NDArray) -> NDArray:
    """Convert (h, w, 3) RGB to full-range Y in [0, 1] and Cb, Cr in [-1/2, 1/2] (BT.601)."""
    return rgb @ _YCBCR.T.astype(rgb.dtype)


def ycbcr_to_rgb(ycbcr: NDArray) -> NDArray:
    """Invert `rgb_to_ycbcr`."""
    return ycbcr @ np.linalg.inv(_YCBCR).T.astype(ycbcr.dtype)


def luma(image: NDArray) -> NDArray:
    """Full-range luma (h, w, 1) of a color image; a gray image is returned as it is."""
    return image if image.shape[-1] == 1 else rgb_to_ycbcr(image)[..., :1]


def studio_luma(image: NDArray) -> NDArray:
    """Luma (h, w, 1) in the range 16 / 255 to 235 / 255 of Matlab's `rgb2ycbcr`; a gray image is returned as it is."""
    return image if image.shape[-1] == 1 else (16 + 219 * luma(image)) / 255


def srgb_to_linear(image: NDArray) -> NDArray:
    """Convert sRGB values to linear light, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4).astype(image.dtype)


def linear_to_srgb(light: NDArray) -> NDArray:
    """Invert `srgb_to_linear`."""
    light = np.maximum(light, 0)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055).astype(light.dtype)


def compress_highlights(image: NDArray, knee: float = 0.8) -> NDArray:
    """Image in [0, 1]: values above `knee` are compressed, with slope 1 at the knee and the largest becoming white.

    With t = (x - knee) / (1 - knee) and the largest value T of t, it is knee + (1 - knee) t (1 + t / T^2) / (1 + t)
    (Reinhard et al. 2002, Photographic Tone Reproduction for Digital Images, Eq. 4). An image without values above 1
    stays as it is.
    """
    largest = (float(image.max()) - knee) / (1 - knee)
    if largest <= 1:
        return image
    t = np.maximum((image - knee) / (1 - knee), 0)
    return np.where(image > knee, knee + (1 - knee) * t * (1 + t / largest**2) / (1 + t), image).astype(image.dtype)
