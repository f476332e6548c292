"""TensorBoard events of a benchmark: losses, scores and images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from jbid.engine.driver import CHUNK
from jbid.io.files import make_folder
from jbid.io.tensorboard import open_board


class EventLog:
    """TensorBoard events in a folder; without a folder nothing is written.

    Args:
        folder: made if it does not exist.

    Raises:
        ValueError: for a folder if tensorboardX is not installed.
    """

    def __init__(self, folder: Path | None):
        self._writer: Any = None
        if folder is None:
            return
        # the index of the process, since processes that begin in the same second would write to one file
        self._writer = open_board(make_folder(folder), filename_suffix=f".{jax.process_index()}")
        if self._writer is None:
            raise ValueError("`tensorboard` needs the package tensorboardX: pip install 'jbid[report]'")

    def add_losses(self, name: str, losses: NDArray) -> None:
        """Log the losses (steps, seeds) of one image every ten steps; of many seeds the lowest, median and highest."""
        if self._writer is None:
            return
        kinds: dict[str, Callable[[NDArray], Any]] = {"": np.nanmin}
        if losses.shape[1] > 1:
            kinds = {"lowest": np.nanmin, "median": np.nanmedian, "highest": np.nanmax}
        for t in sorted({*range(CHUNK - 1, len(losses), CHUNK), len(losses) - 1} - {-1}):
            if np.isfinite(losses[t]).any():
                for kind, reduce in kinds.items():
                    self._writer.add_scalar("/".join(filter(None, ("loss", name, kind))), reduce(losses[t]), t + 1)

    def add_row(
        self, table: str, index: int, row: Mapping[str, Any], panels: Sequence[tuple[str, NDArray]] = ()
    ) -> None:
        """Log the numbers of a table's row and its images (h, w, c) in [0, 1]."""
        if self._writer is None:
            return
        for key, value in row.items():
            if isinstance(value, (int, float)) and np.isfinite(value):
                self._writer.add_scalar(f"{table}/{key}", value, index)
        for caption, image in panels:
            rgb = np.clip(np.broadcast_to(image, (*image.shape[:2], 3)), 0, 1)
            self._writer.add_image(f"{row['name']}/{caption}", rgb, dataformats="HWC")

    def close(self) -> None:
        """Write pending events."""
        if self._writer is not None:
            self._writer.close()


@contextmanager
def event_log(folder: Path | None) -> Iterator[EventLog]:
    """`EventLog` that is closed at the end."""
    log = EventLog(folder)
    try:
        yield log
    finally:
        log.close()
