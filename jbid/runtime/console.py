"""jbid.runtime.console."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def interruptible() -> Iterator[list[bool]]:
    """A list that becomes non-empty at Ctrl-C; the second Ctrl-C stops at once."""
    asked: list[bool] = []

    def on_signal(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(True)
        print("\njbid: stopping and saving; once more to stop at once", file=sys.stderr)

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def progress_bar(description: str, steps: int, asked: list[bool]) -> Iterator:
    """A progress bar as an `on_chunk` for `run`."""
    from tqdm import tqdm

    from jbid.engine.driver import CHUNK

    with tqdm(total=steps, desc=description, unit="step", dynamic_ncols=True) as bar:

        def on_chunk(now):
            if bar.n == 0 and now.step > CHUNK:
                # resumed: what an earlier run did must not count as speed
                bar.initial = bar.n = now.step - CHUNK
            bar.set_postfix_str(f"loss {np.nanmin(now.loss):.5f}", refresh=False)
            bar.update(now.step - bar.n)
            return bool(asked)

        yield on_chunk


def report_smaller_batch(name: str) -> Callable[[int, int], None]:
    """An `on_fewer` for `run_in_parts`: a line above the progress bars."""
    from tqdm import tqdm

    def on_fewer(before, now):
        tqdm.write(f"{name}: out of memory with {before} images and seeds at once, goes on with {now}")

    return on_fewer


def print_error(text: str) -> None:
    """One line of error."""
    print(f"jbid: error: {' '.join(text.split())}", file=sys.stderr)
