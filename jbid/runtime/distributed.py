"""jbid.runtime.distributed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any


def initialize_distributed(given: str | None) -> None:
    """Connect with the other processes of a run over several hosts, as --distributed says. Raises ValueError."""
    if given is None:
        return
    import jax

    # else SIGTERM would be taken for a notice and not end the process
    jax.config.update("jax_enable_preemption_service", False)
    parts: tuple[Any, ...] = ()
    if given:
        address, _, numbers = given.partition(",")
        try:
            count, index = (int(part) for part in numbers.split(","))
        except ValueError:
            count = index = -1
        if ":" not in address or not 0 <= index < count:
            raise ValueError(f"got --distributed {given}, expected HOST:PORT,N,I with I from 0 to N - 1")
        parts = address, count, index
    try:
        jax.distributed.initialize(*parts)
    except (RuntimeError, ValueError) as error:
        hint = "" if given else "; it is neither a TPU pod nor Slurm, give HOST:PORT,N,I"
        raise ValueError(f"--distributed {given}: {str(error).splitlines()[0]}{hint}") from None


def local_share(work: Sequence[Any]) -> Sequence[Any]:
    """The consecutive part of the work that is this process's, all of it where there is but one."""
    import jax

    count, index = jax.process_count(), jax.process_index()
    return work[len(work) * index // count : len(work) * (index + 1) // count]


def wait_for_all(what: str, seconds: int = 30 * 86400) -> None:
    """Return when all processes of the run have come as far, however long that takes; at once where there is one.

    Raises jax.errors.JaxRuntimeError where they have not after so many seconds.
    """
    import jax

    if jax.process_count() == 1:
        return
    from orbax.checkpoint.multihost import sync_global_processes

    sys.stdout.flush()
    # Ctrl-C is the system's matter meanwhile, as no Python runs; all that was made is kept
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        # with their numbers given, by the coordinator and not by a collective, which gives up after half a minute
        sync_global_processes(what, timeout=seconds, processes=set(range(jax.process_count())))
    finally:
        signal.signal(signal.SIGINT, before)


def leave_early(code: int) -> int:
    """The exit code of a process of several that ends before its time; it may not return.

    Those that end for the same reason, as for a wrong option, end together and in order. Else JAX would wait for
    the others at the end, for minutes, and then abort.
    """
    import jax

    try:
        wait_for_all("leaving", seconds=5)
    except jax.errors.JaxRuntimeError:
        print("jbid: ends without the other processes, whose run ends with this one's", file=sys.stderr)
        sys.stderr.flush()
        os._exit(code)
    return code
