"""TensorBoard events, if tensorboardX is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def open_board(folder: Path, **options: Any) -> Any | None:
    """Writer of TensorBoard events (`add_scalar`, `add_image`, `close`); None without the package tensorboardX."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), **options)
