"""Scores of a restoration against the ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple
from typing import Protocol as TypingProtocol

import numpy as np
from numpy.typing import NDArray

from jbid.bench.options import ScoringOptions
from jbid.bench.protocols import PROTOCOLS, Protocol, get_protocol
from jbid.bench.sets import check_not_empty
from jbid.data.levin import Item
from jbid.deconvolution.tiled import deconvolve_tiled
from jbid.metrics import Aligned, kernel_similarity, lpips, vif
from jbid.ops.color import luma
from jbid.pipeline.restoration import Restoration

SMALL_SHIFT = 5  # pixels, Levin's own largest shift; SelfDeblur's script uses 10
SMALLEST_VIF = 41  # pixels of a side that the coarsest scale of VIF needs


class Scorer(TypingProtocol):
    """Scores of the results of a benchmark, with or without a ground truth."""

    def to_dict(self) -> dict[str, Any]:
        """Identity of the scores: rows with another one are scored again."""
        ...

    def score(self, item: Item, image: NDArray, kernel: NDArray | None) -> dict[str, Any]:
        """Scores of a restored image and its kernel, as entries of a row."""
        ...

    def score_network(self, item: Item, image: NDArray | None) -> dict[str, Any]:
        """Scores of the network's own image."""
        ...

    def score_candidates(self, item: Item, restoration: Restoration) -> dict[str, Any]:
        """Scores of all candidates."""
        ...


class Scoring(NamedTuple):
    """Scores against the ground truth.

    Attributes:
        protocols: the first one gives psnr and ssim, the others psnr_<name> and ssim_<name>.
        is_full: add error ratio, VIF and the scores of the blurred image and of the true kernel.
        lpips: weights of the backbone of LPIPS; None: without LPIPS.
        has_candidates: score each candidate.
    """

    protocols: tuple[Protocol, ...]
    is_full: bool = True
    lpips: Path | None = None
    has_candidates: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Identity of the scores: rows with another one are scored again."""
        protocols = [protocol.to_dict() for protocol in self.protocols]
        return {"protocols": protocols, "full": self.is_full, "lpips": self.lpips is not None}

    def score(self, item: Item, image: NDArray, kernel: NDArray | None) -> dict[str, Any]:
        """Scores of a restored image (h, w, c) in [0, 1]; in color if the protocol compares colors."""
        assert item.sharp is not None and item.kernel is not None
        first, *others = self.protocols
        best = first.score(image, item.sharp)
        row: dict[str, Any] = {"psnr": best.psnr, "ssim": best.ssim}
        for other in others:
            aligned = other.score(image, item.sharp)
            row |= {f"psnr_{other.name}": aligned.psnr, f"ssim_{other.name}": aligned.ssim}
        row["kernel_similarity"] = None if kernel is None else kernel_similarity(kernel, item.kernel)
        row["shift"] = best.shift
        return row | (_full_scores(item, image, best, self) if self.is_full else {})

    def score_network(self, item: Item, image: NDArray | None) -> dict[str, Any]:
        """Scores of the network's own image if it shows the whole image."""
        if image is None or item.sharp is None or image.shape[:2] != item.sharp.shape[:2]:
            return {}
        # a luma image has no colors to compare
        if self.protocols[0].is_color and image.shape[2] != item.sharp.shape[2]:
            return {}
        aligned = self.protocols[0].score(quantize(image), item.sharp)
        return {"psnr_network": aligned.psnr, "ssim_network": aligned.ssim}

    def score_candidates(self, item: Item, restoration: Restoration) -> dict[str, Any]:
        """PSNR of the deconvolution with the kernel of each candidate, for the regret of the selection."""
        if not self.has_candidates:
            return {}
        assert item.sharp is not None
        protocol, image = self.protocols[0], restoration.prepared.image
        image = image if protocol.is_color else luma(image)
        scores = {}
        for candidate, kernel in zip(restoration.candidates, restoration.kernels):
            if np.isfinite(kernel).all():
                latent = quantize(deconvolve_tiled(image, kernel))
                scores[candidate.name] = protocol.score(latent, item.sharp).psnr
        return {"psnr_candidates": scores}


def quantize(image: NDArray) -> NDArray:
    """The image in [0, 1] rounded to 8 bits."""
    return np.round(image * 255) / 255


def make_scoring(options: ScoringOptions, *, is_full: bool = True) -> Scoring:
    """Scoring of a benchmark's options.

    Args:
        options: of the benchmark.
        is_full: value of `Scoring.is_full` if the options leave it open.

    Raises:
        ValueError: for options out of range and if LPIPS cannot be computed.
    """
    check_not_empty(protocol=options.protocol)
    if options.lpips is not None:
        # a wrong file must be reported before the first image is restored
        lpips(np.zeros((64, 64, 1)), np.zeros((64, 64, 1)), options.lpips)
    protocols = tuple(get_protocol(name, options.maxshift) for name in dict.fromkeys(options.protocol))
    is_full = is_full if options.full is None else options.full
    if options.lpips is not None and not is_full:
        raise ValueError("`lpips` needs `full`, which is off here. Set `full` = True.")
    return Scoring(protocols, is_full, options.lpips, options.each_seed)


def _full_scores(item: Item, image: NDArray, best: Aligned, scoring: Scoring) -> dict[str, Any]:
    """Error ratio, VIF, LPIPS and the scores of the blurred image and of the true kernel."""
    assert item.sharp is not None and item.kernel is not None
    protocol = scoring.protocols[0]
    # error ratios are relative to the deconvolution with the true kernel
    latent = deconvolve_tiled(item.blurred if protocol.is_color else luma(item.blurred), item.kernel)
    true_kernel = protocol.score(latent, item.sharp)
    blurred = protocol.score(item.blurred, item.sharp)
    row: dict[str, Any] = {
        "error_ratio": best.squared_error / true_kernel.squared_error,
        "psnr_blurred": blurred.psnr,
        "ssim_blurred": blurred.ssim,
        "psnr_true_kernel": true_kernel.psnr,
    }
    if protocol.max_shift > SMALL_SHIFT:
        aligned = protocol._replace(max_shift=SMALL_SHIFT).score(image, item.sharp)
        row |= {f"psnr_maxshift{SMALL_SHIFT}": aligned.psnr, f"ssim_maxshift{SMALL_SHIFT}": aligned.ssim}
    return row | _perceptual_scores(item, image, scoring)


def _perceptual_scores(item: Item, image: NDArray, scoring: Scoring) -> dict[str, Any]:
    """VIF and LPIPS on aligned full-range luma, of the restored and of the blurred image."""
    assert item.sharp is not None
    protocol = scoring.protocols[0]
    gray = PROTOCOLS["sd_fullrange"]._replace(max_shift=protocol.max_shift, border=protocol.border)
    rows, columns = (slice(protocol.border, n - protocol.border) for n in item.sharp.shape[:2])
    sharp = luma(item.sharp)[rows, columns, 0]
    scores: dict[str, Any] = {}
    for suffix, compared in (("", image), ("_blurred", item.blurred)):
        aligned = gray.score(compared, item.sharp).image[..., 0]
        scores[f"vif{suffix}"] = vif(aligned, sharp) if min(sharp.shape) >= SMALLEST_VIF else None
        if scoring.lpips is not None:
            scores[f"lpips{suffix}"] = lpips(aligned[..., None], sharp[..., None], scoring.lpips)
    return scores
