"""Scoring protocols: the compared values of an image, the compared part of it, and the alignment before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jbid.metrics import Aligned, align
from jbid.ops.color import luma, studio_luma

BORDER = 15  # pixels


class Protocol(NamedTuple):
    """Scoring protocol for an image (h, w, c) in [0, 1] against the ground truth.

    Attributes:
        name: on the command line and in reports.
        description: for reports.
        extract: makes the compared values of an image.
        is_color: all channels are compared.
        max_shift: largest shift of the alignment in pixels; 0: no alignment.
        border: pixels left out at each side.
        has_gain: the image is scaled by the brightness gain that fits the ground truth best.
    """

    name: str
    description: str
    extract: Callable[[NDArray], NDArray]
    is_color: bool = False
    max_shift: int = 10
    border: int = BORDER
    has_gain: bool = False

    def score(self, image: NDArray, sharp: NDArray) -> Aligned:
        """`jbid.metrics.align` of the extracted values.

        The channel of a gray result is repeated for a color image, so that both have one range.
        """
        if image.shape[-1] < sharp.shape[-1]:
            image = np.repeat(image, sharp.shape[-1], -1)
        elif image.shape[-1] > sharp.shape[-1]:
            image = luma(image)
        if self.has_gain:
            image = np.clip(self._gain(image, sharp) * image, 0, 1)
        return align(self.extract(image), self.extract(sharp), max_shift=self.max_shift, border=self.border)

    def _gain(self, image: NDArray, sharp: NDArray) -> float:
        """argmin_g ||g x - t||^2 = <x, t> / <x, x> of the aligned full-range luma x and the ground truth's t."""
        truth = luma(sharp)
        aligned = align(luma(image), truth, max_shift=self.max_shift, border=self.border).image
        rows, columns = (slice(self.border, n - self.border) for n in truth.shape[:2])
        return float(np.vdot(aligned, truth[rows, columns]) / max(np.vdot(aligned, aligned), 1e-12))

    def to_dict(self) -> dict[str, Any]:
        """Entry of a report."""
        shift = f"best of all shifts within {self.max_shift} pixels in quarters" if self.max_shift else "no shift"
        part = f"border of {self.border} left out" if self.border else "whole image"
        return {
            "name": self.name,
            "maxshift": self.max_shift,
            "border": self.border,
            "iteration": "last",
            "description": f"8-bit result; {self.description}; {part}; {shift}; PSNR and Matlab's SSIM there",
        }


def _identity(image: NDArray) -> NDArray:
    return image


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "sd_matlab",
            "Y of Matlab's rgb2ycbcr, which spans 16 to 235, as in SelfDeblur's scripts; gray images unchanged",
            studio_luma,
        ),
        Protocol("sd_fullrange", "full-range BT.601 luma", luma),
        Protocol(
            "gain_aligned",
            "as sd_matlab, after the one brightness gain that fits the ground truth best",
            studio_luma,
            has_gain=True,
        ),
        Protocol("rgb_aligned", "all three channels, shifted together", _identity, True),
        Protocol("rgb_raw", "all three channels", _identity, True, 0, 0),
    )
}


def get_protocol(name: str, max_shift: int) -> Protocol:
    """The protocol of this name with another largest shift, if it aligns at all.

    Raises:
        ValueError: for an unknown name or a shift out of range.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"`protocol` must be one of {', '.join(PROTOCOLS)}, got {name!r}")
    if not 0 <= max_shift <= BORDER:
        raise ValueError(f"`maxshift` must be 0 to {BORDER}, the border that is left out, got {max_shift}")
    protocol = PROTOCOLS[name]
    return protocol._replace(max_shift=max_shift) if protocol.border else protocol
