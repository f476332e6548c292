"""How results are scored: which values of a picture are compared, on what part, after which shift."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jbid.metrics import Aligned, align
from jbid.ops.color import luma, studio_luma

BORDER = 15


class Protocol(NamedTuple):
    """One way of scoring a picture (h, w, c) in [0, 1] against the truth; `values` are what of it is compared."""

    name: str
    description: str
    values: Callable[[NDArray], NDArray]
    color: bool = False  # whether all channels are compared
    max_shift: int = 10
    border: int = BORDER

    def score(self, image: NDArray, sharp: NDArray) -> Aligned:
        """`jbid.metrics.align` of what this protocol compares.

        A gray result of a picture in color counts as that gray in all channels, so that both have one range.
        """
        if image.shape[-1] < sharp.shape[-1]:
            image = np.repeat(image, sharp.shape[-1], -1)
        elif image.shape[-1] > sharp.shape[-1]:
            image = luma(image)
        return align(self.values(image), self.values(sharp), max_shift=self.max_shift, border=self.border)

    def told(self) -> dict[str, Any]:
        """What stands beside the scores in a report."""
        shift = f"best of all shifts within {self.max_shift} pixels in quarters" if self.max_shift else "no shift"
        part = f"border of {self.border} left out" if self.border else "whole picture"
        return {
            "name": self.name,
            "maxshift": self.max_shift,
            "border": self.border,
            "iteration": "last",
            "description": f"8-bit result; {self.description}; {part}; {shift}; PSNR and Matlab's SSIM there",
        }


def _unchanged(image: NDArray) -> NDArray:
    return image


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol(
            "sd_matlab",
            "Y of Matlab's rgb2ycbcr, which spans 16 to 235, as in SelfDeblur's scripts; gray pictures as they are",
            studio_luma,
        ),
        Protocol("sd_fullrange", "full-range BT.601 luma", luma),
        Protocol("rgb_aligned", "all three channels, moved together", _unchanged, True),
        Protocol("rgb_raw", "all three channels", _unchanged, True, 0, 0),
    )
}


def protocol(name: str, max_shift: int) -> Protocol:
    """The protocol of this name with another largest shift, where it shifts. Raises ValueError for one out of range."""
    if not 0 <= max_shift <= BORDER:
        raise ValueError(f"got --maxshift {max_shift}, expected 0 to {BORDER}, the border left out")
    found = PROTOCOLS[name]
    return found._replace(max_shift=max_shift) if found.border else found
