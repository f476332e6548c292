"""Console: progress bars, Ctrl-C and error lines."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jbid.engine.driver import Progress

RESUME_HINT = "Interrupted. Run the same command with --resume to continue."


class Interrupt:
    """A request of the user to stop, made with Ctrl-C."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """Request the stop."""
        self._is_set = True

    def is_set(self) -> bool:
        """Return True once the user wants to stop."""
        return self._is_set

    def check(self) -> None:
        """Raise KeyboardInterrupt if the user wants to stop."""
        if self._is_set:
            raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Interrupt that the first Ctrl-C sets; the second raises KeyboardInterrupt at once."""
    interrupt = Interrupt()

    def on_signal(number, frame):
        interrupt.check()
        interrupt.set()
        print("\njbid: Saving a checkpoint. Press Ctrl-C again to quit immediately.", file=sys.stderr)

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def step_bar(description: str, steps: int) -> Iterator[Callable[[Progress], None]]:
    """Progress bar of a run, as `RunContext.on_progress`."""
    import numpy as np
    from tqdm import tqdm

    with tqdm(total=steps, desc=description, unit="step", dynamic_ncols=True) as bar:

        def on_progress(progress: Progress) -> None:
            if bar.n == 0 and progress.first:
                # the steps of an earlier, interrupted run do not count as speed
                bar.initial = bar.n = progress.first
            bar.set_postfix_str(f"loss {np.nanmin(progress.loss):.5f}", refresh=False)
            bar.update(progress.step - bar.n)

        yield on_progress


@contextmanager
def stage_line(description: str, interrupt: Interrupt) -> Iterator[Callable[[str], None]]:
    """Line with the present stage of a kernel estimation, as `RunContext.on_stage`.

    The callback raises KeyboardInterrupt once the user wants to stop.
    """
    from tqdm import tqdm

    with tqdm(desc=f"{description}: preparing", bar_format="{desc}", dynamic_ncols=True, leave=False) as line:

        def on_stage(text: str) -> None:
            line.set_description_str(f"{description}: {text}")
            interrupt.check()

        yield on_stage


@contextmanager
def tile_bar(description: str, interrupt: Interrupt) -> Iterator[Callable[[int, int], None]]:
    """Progress bar of a deconvolution in tiles, as `RunContext.on_tile`; hidden for small images.

    The callback raises KeyboardInterrupt once the user wants to stop.
    """
    from tqdm import tqdm

    with tqdm(desc=f"{description} tiles", unit="tile", dynamic_ncols=True, delay=1, leave=False) as bar:

        def on_tile(done: int, total: int) -> None:
            if done == 1:
                # the clock starts after the first tile, which compiles programs
                bar.reset(total)
                bar.n = bar.last_print_n = bar.initial = 1
                bar.refresh()
            else:
                bar.update()
            interrupt.check()

        yield on_tile


def report_smaller_batch(name: str) -> Callable[[int, int], None]:
    """Line above the progress bars, as `RunContext.on_smaller_batch`."""
    from tqdm import tqdm

    def on_smaller_batch(before: int, now: int) -> None:
        tqdm.write(f"{name}: out of memory at batch size {before}, retrying with {now}")

    return on_smaller_batch


def print_error(text: str) -> None:
    """Print an error on one line of stderr."""
    print(f"jbid: error: {' '.join(text.split())}", file=sys.stderr)


def print_note(text: str) -> None:
    """Print a note on one line of stderr."""
    print(f"jbid: note: {' '.join(text.split())}", file=sys.stderr)


def print_warning(text: str) -> None:
    """Print a warning on one line of stderr."""
    print(f"jbid: warning: {' '.join(text.split())}", file=sys.stderr)
