"""jbid.pipeline.launch."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from jbid.pipeline.config import Config
from jbid.pipeline.prepare import PreparedImage
from jbid.pipeline.solve import Restoration
from jbid.runtime.console import progress_bar, report_smaller_batch


def launch(
    tasks: Sequence[PreparedImage],
    settings: Config,
    *,
    name: str,
    folder: Path,
    resume: bool,
    seconds: float,
    asked: list[bool],
    memory: int | None = None,
) -> tuple[list[Restoration], bool]:
    """`jbid.deblur.solve` with progress bars, checkpointed in `folder` every `seconds`.

    Returns the answers and whether they are complete.
    """
    from tqdm import tqdm

    from jbid.engine.checkpoint import Checkpoint
    from jbid.pipeline.solve import solve

    def on_tile(done, total):
        if done == 1:
            tiles.reset(total)
        tiles.update()
        if asked:
            raise KeyboardInterrupt

    if folder.exists() and not resume:
        shutil.rmtree(folder)
    checkpoint = Checkpoint(folder, seconds=seconds)
    try:
        # only pictures that need more than one tile show the second bar
        with tqdm(desc=f"{name} tiles", unit="tile", dynamic_ncols=True, delay=1, leave=False) as tiles:
            if not settings.steps:
                return solve(tasks, settings, on_tile=on_tile), True
            with progress_bar(name, settings.steps, asked) as on_chunk:
                told = {"on_chunk": on_chunk, "on_fewer": report_smaller_batch(name), "on_tile": on_tile}
                answers = solve(tasks, settings, memory=memory, checkpoint=checkpoint, **told)
    finally:
        checkpoint.close()
    return answers, answers[0].complete
