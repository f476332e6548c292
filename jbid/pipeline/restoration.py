"""Restoration: the answer for one image, with its candidates and its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jbid.io.files import make_folder, write_json
from jbid.io.images import Photo, write_image, write_kernel, write_photo
from jbid.kernel_estimation.ranking import Candidate
from jbid.pipeline.prepare import PreparedImage

SPREAD_WHITE = 0.1  # standard deviation that is drawn white


class Restoration(NamedTuple):
    """Answer for one image.

    Attributes:
        image: restored image (h, w, c) in [0, 1].
        kernel: estimated blur kernel (kh, kw) with sum one.
        network_image: the network's own image of the region, without deconvolution; None without a network.
        losses: (steps done, seeds).
        stopped: steps after which each seed stopped early, 0 if it did not.
        is_complete: False if the run was cancelled.
        is_deconvolved: the image is a deconvolution with the kernel; otherwise it is the network's.
        noise: estimated standard deviation of the noise.
        confidence: probability that a deconvolution with the best kernel is better than the blurred image; None for a
            known kernel. Below the setting `min_confidence` the image is left as it is, and the kernel is no blur.
        chosen: name of the chosen candidate, such as "seed 3" or "known kernel".
        candidates: the best-scoring one first; empty for a known kernel.
        kernels: of the candidates; empty without a network.
        spread: (h, w) of the region, standard deviation over the valid seeds; None for a single one.
        warnings: one line each.
        seconds: time of this image's share of the run.
        prepared: the image as it was prepared.
        settings: the configuration, for the report.

    Example:
        >>> import jbid, numpy as np
        >>> restoration = jbid.deblur(np.full((64, 64), 0.5), kernel=np.ones((3, 3)))
        >>> restoration.kernel.shape, restoration.warnings
        ((3, 3), ())
    """

    image: NDArray[np.float32]
    kernel: NDArray[np.float32]
    network_image: NDArray[np.float32] | None
    losses: NDArray[np.float32]
    stopped: NDArray[np.int32]
    is_complete: bool
    is_deconvolved: bool
    noise: float
    confidence: float | None
    chosen: str
    candidates: list[Candidate]
    kernels: list[NDArray[np.float32]]
    spread: NDArray[np.float32] | None
    warnings: tuple[str, ...]
    seconds: float
    prepared: PreparedImage
    settings: dict[str, Any]

    @property
    def score(self) -> float | None:
        """No-reference score of the chosen candidate, lower is better; None for a known kernel."""
        return self.candidates[0].terms.score if self.candidates else None

    def to_dict(self) -> dict[str, Any]:
        """Report of the restoration, ready for JSON."""
        estimate = self.prepared.estimate
        return {
            "settings": self.settings,
            "kernel_size": list(self.prepared.kernel_shape),
            "region": list(self.prepared.region),
            "kernel_estimate": estimate.to_dict() if estimate else None,
            "chosen": self.chosen,
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "spread_of_seeds": None if self.spread is None else float(self.spread.mean()),
            "warnings": list(self.warnings),
            "noise": round(self.noise, 5),
            "confidence": None if self.confidence is None else round(self.confidence, 3),
            "deconvolved": self.is_deconvolved,
            "steps_done": len(self.losses),
            "stopped": [int(n) for n in self.stopped],
            "seconds": round(self.seconds, 2),
        }

    def save(
        self,
        folder: str | Path,
        name: str = "restored",
        *,
        photo: Photo | None = None,
        suffix: str = ".png",
        report: dict[str, Any] | None = None,
    ) -> Path:
        """Write <name>_sharp, <name>_kernel.png, <name>.json and, with several seeds, <name>_spread.png.

        Args:
            folder: made if it does not exist.
            name: beginning of the file names.
            photo: the input photo, whose bit depth, alpha channel and metadata are kept.
            suffix: ".png" or ".tif", of the restored image.
            report: further entries of the JSON file.

        Returns:
            Path of the restored image.

        Raises:
            OSError: if the folder cannot be written to.
        """
        folder = make_folder(Path(folder))
        path = folder / f"{name}_sharp{suffix}"
        write_photo(path, (photo or Photo(self.image))._replace(image=self.image))
        write_kernel(folder / f"{name}_kernel.png", self.kernel)
        if self.spread is not None:
            write_image(folder / f"{name}_spread.png", np.clip(self.spread / SPREAD_WHITE, 0, 1)[..., None])
        # last, as it marks the result as complete
        write_json(folder / f"{name}.json", self.to_dict() | (report or {}))
        return path
