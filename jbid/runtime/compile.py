"""jbid.runtime.compile."""

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

MAPPING_SHARE = 0.5  # of the mappings that a process may have; a picture of a new size takes some thousand


def clear_programs() -> None:
    """Let go of all compiled programs where this process comes near to as many mappings as Linux allows it.

    XLA's programs for CPUs take hundreds each. Where there are none left (65,530, unless vm.max_map_count says
    otherwise, enough for Lai's first 88 images), the compiler ends the process with "Unable to allocate section
    memory". Nothing happens on other systems.
    """
    try:
        most = int(Path("/proc/sys/vm/max_map_count").read_text())
        with open("/proc/self/maps", "rb") as file:
            count = sum(1 for _ in file)
    except OSError:
        return
    if count > MAPPING_SHARE * most:
        import jax

        jax.clear_caches()
        gc.collect()


def enable_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder: the next start with the same sizes compiles nothing."""
    import jax
    from platformdirs import user_cache_path

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        # programs are made for the instructions of one processor, and home folders are shared between machines
        processor = hashlib.sha256((cpu_info("model name") + cpu_info("flags")).encode()).hexdigest()[:8]
        jax.config.update("jax_compilation_cache_dir", str(user_cache_path("jbid") / processor))


@functools.cache
def _compiler_options(backend: str) -> dict[str, str]:
    """On CPU, XLA's own convolutions in place of YNNPACK's, whose gradients take twice as long; reductions stay there.

    Measured by benchmarks/design_choices.py. Ignored by versions of jaxlib that do not know the flag.
    """
    if backend != "cpu":
        return {}
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
    try:
        jax.jit(jnp.negative, compiler_options=options)(jnp.zeros(()))
    except Exception:  # the type differs between versions
        return {}
    return options


def jit(f: Callable, **kwargs) -> Any:
    """`jax.jit(f, **kwargs)` with the compiler options that suit the backend."""
    return jax.jit(f, compiler_options=_compiler_options(jax.default_backend()), **kwargs)
