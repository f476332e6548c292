"""Runs over several processes or hosts."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

_T = TypeVar("_T")


def initialize_distributed(address: str) -> None:
    """Connect with the other processes of a run over several hosts.

    Args:
        address: "HOST:PORT,N,I" for process I of N with the coordinator at HOST:PORT; "" detects a TPU pod or Slurm.

    Raises:
        ValueError: for another address, or if there is no connection.
    """
    import jax

    # otherwise SIGTERM would announce a preemption instead of ending the process
    jax.config.update("jax_enable_preemption_service", False)
    arguments: tuple[Any, ...] = ()
    if address:
        host, _, numbers = address.partition(",")
        try:
            count, index = (int(number) for number in numbers.split(","))
        except ValueError:
            count = index = -1
        if ":" not in host or not 0 <= index < count:
            raise ValueError(f"`distributed` must be HOST:PORT,N,I with I from 0 to N - 1, got {address}")
        arguments = host, count, index
    try:
        jax.distributed.initialize(*arguments)
    except (RuntimeError, ValueError) as error:
        hint = "" if address else ". This is neither a TPU pod nor Slurm: give HOST:PORT,N,I."
        raise ValueError(f"`distributed` {address}: {str(error).splitlines()[0]}{hint}") from None


def local_share(items: Sequence[_T]) -> Sequence[_T]:
    """The consecutive share of the items that this process works on; all of them for a single process."""
    import jax

    count, index = jax.process_count(), jax.process_index()
    return items[len(items) * index // count : len(items) * (index + 1) // count]


def wait_for_all(name: str, seconds: int = 30 * 86400) -> None:
    """Wait until all processes of the run have reached the barrier `name`; return at once for a single process.

    Raises:
        jax.errors.JaxRuntimeError: if they have not within `seconds`.
    """
    import jax

    if jax.process_count() == 1:
        return
    from orbax.checkpoint.multihost import sync_global_processes

    sys.stdout.flush()
    # no Python code runs meanwhile, so the system handles Ctrl-C; all results are saved already
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        # with explicit processes the coordinator synchronizes, and not a collective, which gives up after half a minute
        sync_global_processes(name, timeout=seconds, processes=set(range(jax.process_count())))
    finally:
        signal.signal(signal.SIGINT, before)


def leave_early(code: int) -> int:
    """Exit code of one of several processes that ends before the others; it may end the process itself.

    Processes that end for the same reason, such as a wrong option, end together. Otherwise JAX would wait for the
    others for minutes and then abort.
    """
    import jax

    try:
        wait_for_all("leaving", seconds=5)
    except jax.errors.JaxRuntimeError:
        print("jbid: error: another process did not exit; aborting the distributed run", file=sys.stderr)
        sys.stderr.flush()
        os._exit(code)
    return code
