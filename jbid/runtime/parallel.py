"""Independent work side by side: on CPU NumPy code on threads, where nothing is compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from jbid.runtime.environment import core_count


def runs_on_host() -> bool:
    """True without an accelerator: code for arrays of NumPy or JAX then gets NumPy's.

    On CPU it is faster that way, and no image size has to be compiled (docs/development-notes.md).
    """
    return jax.default_backend() == "cpu"


def map_threads(function: Callable[..., Any], *columns: Iterable[Any]) -> list[Any]:
    """`list(map(function, *columns))` on all cores; NumPy and SciPy work outside of Python's lock."""
    with ThreadPoolExecutor(core_count()) as threads:
        return list(threads.map(function, *columns))
