"""Memory: sizes as text, and settings of the C library's allocator."""

from __future__ import annotations

import os
import re
import sys

_TUNABLES = {
    "glibc.malloc.hugetlb": 1,
    "glibc.malloc.mmap_threshold": 8 << 30,
    "glibc.malloc.trim_threshold": 16 << 30,
    "glibc.malloc.top_pad": 256 << 20,
}

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_memory(text: str) -> int:
    """Bytes of a size such as "6GiB", "800M" or "2.5g".

    Raises:
        ValueError: for another text.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", text, re.IGNORECASE)
    if not match or not float(match[1]):
        raise ValueError(f"`memory` must be a size such as 6GiB or 800MB, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2].lower()])


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
