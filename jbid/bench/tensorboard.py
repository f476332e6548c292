"""Losses, scores and pictures of a benchmark as TensorBoard's events, for those who ask for them."""

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


class Board:
    """Writes to a folder that TensorBoard reads; without one it does nothing."""

    def __init__(self, folder: Path | None):
        self._writer: Any = None
        if folder is None:
            return
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ValueError("--tensorboard needs tensorboardX: pip install 'jbid[report]'") from None
        # by their numbers, or processes that begin in the same second would write to one file
        self._writer = SummaryWriter(str(make_folder(folder)), filename_suffix=f".{jax.process_index()}")

    def losses(self, name: str, losses: NDArray) -> None:
        """The loss (steps, seeds) of one image's run, every ten steps and at the end; of many seeds three of them."""
        if self._writer is None:
            return
        kinds: dict[str, Callable[[NDArray], Any]] = {"": np.nanmin}
        if losses.shape[1] > 1:
            kinds = {"lowest": np.nanmin, "median": np.nanmedian, "highest": np.nanmax}
        for t in sorted({*range(CHUNK - 1, len(losses), CHUNK), len(losses) - 1} - {-1}):
            if np.isfinite(losses[t]).any():
                for word, of in kinds.items():
                    self._writer.add_scalar("/".join(filter(None, ("loss", name, word))), of(losses[t]), t + 1)

    def row(self, table: str, at: int, row: Mapping[str, Any], panels: Sequence[tuple[str, NDArray]] = ()) -> None:
        """The numbers of a table's row, the one at this place, and its pictures (h, w, c) in [0, 1]."""
        if self._writer is None:
            return
        for key, value in row.items():
            if isinstance(value, (int, float)) and np.isfinite(value):
                self._writer.add_scalar(f"{table}/{key}", value, at)
        for caption, image in panels:
            shown = np.clip(np.broadcast_to(image, (*image.shape[:2], 3)), 0, 1)
            self._writer.add_image(f"{row['name']}/{caption}", shown, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


@contextmanager
def board(folder: Path | None) -> Iterator[Board]:
    """A board that is closed at the end. Raises ValueError where a folder is given and tensorboardX is missing."""
    one = Board(folder)
    try:
        yield one
    finally:
        one.close()
