"""jbid.runtime.environment."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jbid


def source_commit() -> str | None:
    """The commit of the source tree that runs, with a plus where it was changed; None outside of one."""
    try:
        git = ["git", "-C", str(Path(__file__).parent)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = [*git, "status", "--porcelain", "--untracked-files=no"]
        return head + "+" * bool(subprocess.run(status, capture_output=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError):
        return None


def cpu_info(field: str) -> str:
    """A line of Linux's /proc/cpuinfo; elsewhere what Python knows of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(field))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions_and_device() -> dict[str, Any]:
    """What a result should be read with: versions, backend, device name."""
    import flax
    import jax
    import optax

    device = jax.local_devices()[0]
    return {
        "versions": {
            "jbid": jbid.__version__,
            "jax": jax.__version__,
            "flax": flax.__version__,
            "optax": optax.__version__,
        },
        "device": device_name(device),
        "devices": jax.device_count(),
        "processes": jax.process_count(),
    }


def device_name(device) -> str:
    """The accelerator's name, or on CPU the processor's and how many cores this process may use."""
    if device.platform != "cpu":
        return device.device_kind
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cpu_info('model name')}, {cores} cores"
