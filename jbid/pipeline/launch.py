"""Launch of a run on prepared images, with progress bars and a checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from jbid.engine.checkpoint import Checkpoint
from jbid.engine.driver import RunContext
from jbid.pipeline.config import Config
from jbid.pipeline.prepare import PreparedImage
from jbid.pipeline.restoration import Restoration
from jbid.pipeline.solve import solve
from jbid.runtime.console import Interrupt, report_smaller_batch, step_bar, tile_bar


def launch(
    prepared: Sequence[PreparedImage],
    config: Config,
    *,
    name: str,
    folder: Path,
    resume: bool,
    seconds: float,
    interrupt: Interrupt,
    memory: int | None = None,
) -> list[Restoration]:
    """`jbid.pipeline.solve.solve` with progress bars and a checkpoint.

    Args:
        prepared: images of one padded shape and kernel size.
        config: the run.
        name: for the progress bars.
        folder: of the checkpoint; removed first unless the run resumes.
        resume: continue from the checkpoint.
        seconds: time between two saves.
        interrupt: stops the run, which saves its state first.
        memory: bytes that a batch may use on each device; None: what is free.

    Raises:
        KeyboardInterrupt: if `interrupt` is set during the deconvolution of a large image.
        ValueError: for a checkpoint of another run, or if a single image does not fit the memory.
    """
    with tile_bar(name, interrupt) as on_tile:
        context = RunContext(memory=memory, on_tile=on_tile, is_cancelled=interrupt.is_set)
        if not config.is_optimized:
            return solve(prepared, config, context=context)
        if folder.exists() and not resume:
            shutil.rmtree(folder)
        checkpoint = Checkpoint(folder, seconds=seconds)
        try:
            with step_bar(name, config.steps) as on_progress:
                context = context._replace(
                    checkpoint=checkpoint,
                    on_progress=on_progress,
                    on_smaller_batch=report_smaller_batch(name),
                )
                return solve(prepared, config, context=context)
        finally:
            checkpoint.close()
