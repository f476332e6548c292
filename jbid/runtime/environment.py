"""Environment of a result: versions, device and source commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jbid


def source_commit() -> str | None:
    """Commit of the running source tree, with a plus if it has changes; None outside of a repository."""
    try:
        git = ["git", "-C", str(Path(__file__).parent)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = [*git, "status", "--porcelain", "--untracked-files=no"]
        return head + "+" * bool(subprocess.run(status, capture_output=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError):
        return None


def cpu_info(field: str) -> str:
    """A field of Linux's /proc/cpuinfo; on other systems the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(field))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions_and_device() -> dict[str, Any]:
    """Versions of jbid and its libraries, device name, numbers of devices and processes, for a report."""
    import jax

    return {
        "versions": {"jbid": jbid.__version__} | {name: version(name) for name in ("jax", "flax", "optax")},
        "device": device_name(jax.local_devices()[0]),
        "devices": jax.device_count(),
        "processes": jax.process_count(),
    }


def core_count() -> int:
    """Number of CPU cores that this process may use."""
    # not every system knows which cores a process is bound to
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_name(device: Any) -> str:
    """Name of an accelerator; on CPU that of the processor, with the number of cores that this process may use."""
    if device.platform != "cpu":
        return device.device_kind
    return f"{cpu_info('model name')}, {core_count()} cores"
