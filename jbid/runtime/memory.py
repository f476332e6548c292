"""Memory of the process: settings of the C library's allocator."""

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
    """Restart this process with an allocator that keeps and reuses large blocks, in huge pages.

    XLA's CPU backend allocates its work space in each step. By default the C library requests it from the kernel and
    returns it every time, which costs page faults (benchmarks/design_choices.py). The setting applies only to a
    process that starts. Nothing happens on systems other than Linux, with GLIBC_TUNABLES set, or with
    JBID_KEEP_MEMORY=0.
    """
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ or os.environ.get("JBID_KEEP_MEMORY") == "0":
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(f"{name}={value}" for name, value in _TUNABLES.items())
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
