"""Compilation: `jax.jit` with options for the backend, the cache of compiled programs, and its limits."""

from __future__ import annotations

import functools
import gc
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jbid.runtime.environment import cpu_info

# of the memory mappings that Linux allows a process; an image of a new size needs some thousand
MAPPING_SHARE = 0.5


@functools.cache
def _compiler_options(backend: str) -> dict[str, str]:
    """On CPU, XLA's own convolutions instead of YNNPACK's, whose gradients are slow; reductions stay YNNPACK's.

    Measured by benchmarks/design_choices.py. Versions of jaxlib without the flag ignore it.
    """
    if backend != "cpu":
        return {}
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
    try:
        jax.jit(jnp.negative, compiler_options=options)(jnp.zeros(()))
    except Exception:  # the type differs between versions
        return {}
    return options


def jit(f: Callable, **kwargs: Any) -> Any:
    """`jax.jit(f, **kwargs)` with the compiler options that suit the backend."""
    return jax.jit(f, compiler_options=_compiler_options(jax.default_backend()), **kwargs)


def enable_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, so that the next run of the same sizes compiles nothing.

    The environment variable JAX_COMPILATION_CACHE_DIR overrides the folder.
    """
    from platformdirs import user_cache_path

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        # programs suit the instructions of one processor, and machines share home folders
        processor = hashlib.sha256((cpu_info("model name") + cpu_info("flags")).encode()).hexdigest()[:8]
        jax.config.update("jax_compilation_cache_dir", str(user_cache_path("jbid") / processor))


def clear_programs() -> None:
    """Clear all compiled programs once they use half of the memory mappings that Linux allows a process.

    XLA's CPU programs use hundreds of mappings each. At the limit (vm.max_map_count, by default 65,530) the compiler
    aborts the process with "Unable to allocate section memory". Nothing happens on other systems. Only programs that
    own their process call this, because it clears the caches of the whole process.
    """
    try:
        limit = int(Path("/proc/sys/vm/max_map_count").read_text())
        with open("/proc/self/maps", "rb") as file:
            count = sum(1 for _ in file)
    except OSError:
        return
    if count > MAPPING_SHARE * limit:
        jax.clear_caches()
        gc.collect()
