"""Helpers that several test modules share."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jbid.engine.driver import Progress, RunContext

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden"

# networks small enough to compile in seconds, as options of a method and as arguments of the command line
TINY_NETWORK = {"channels": 4, "skip_channels": 2, "scales": 1}
TINY_ARGUMENTS = [f"--set={name}={value}" for name, value in TINY_NETWORK.items()]


def stoppable(stop: Callable[[Progress], Any] | None = None, **options: Any) -> RunContext:
    """A context whose run is cancelled once stop(progress) is true; `stop` may also just record the progress."""
    is_cancelled = False

    def report(progress):
        nonlocal is_cancelled
        is_cancelled = bool(stop and stop(progress) is True)

    return RunContext(on_progress=report, is_cancelled=lambda: is_cancelled, **options)


def third_loss(method, blurred, init=None):
    """Loss of the third step, without the rest that `run` compiles; `init` may be that of a method with equal state."""
    state, step = (init or jax.jit(method.init))(jax.random.key(0), blurred, None), jax.jit(method.step)
    for t in range(3):
        state, info = step(state, blurred, jnp.asarray(t))
    return info.loss


def golden_rows(name):
    """Rows of a CSV file of golden numbers."""
    with open(GOLDEN / name, newline="") as file:
        return list(csv.DictReader(file))
