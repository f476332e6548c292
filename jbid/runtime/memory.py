"""What the system gives a process: memory that the C library keeps mapped between steps, and mappings in number."""

from __future__ import annotations

import os
import sys

_TUNABLES = {
    "glibc.malloc.hugetlb": 1,
    "glibc.malloc.mmap_threshold": 8 << 30,
    "glibc.malloc.trim_threshold": 16 << 30,
    "glibc.malloc.top_pad": 256 << 20,
}


def tune_malloc() -> None:
    """Start this process anew with an allocator that keeps and reuses large blocks, in huge pages.

    XLA's CPU backend allocates its work space anew in each step; by default the C library takes it from and returns it
    to the kernel every time, which costs up to half of a step in page faults (benchmarks/design_choices.py). The
    setting can only be made before a process starts. Nothing happens on other systems than Linux, where
    GLIBC_TUNABLES is set already, or with JBID_KEEP_MEMORY=0.
    """
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ or os.environ.get("JBID_KEEP_MEMORY") == "0":
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(f"{name}={value}" for name, value in _TUNABLES.items())
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
