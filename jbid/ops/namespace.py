"""Functions for arrays of NumPy or JAX alike.

A function on NumPy arrays runs on the host at once; the same function on JAX arrays can be compiled and batched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

# what comes out is of the kind that went in, which types of these functions cannot say
if TYPE_CHECKING:
    AnyArray = Any
else:
    AnyArray = jax.Array | np.ndarray
Carry = TypeVar("Carry")


def is_host(x: AnyArray) -> bool:
    """True for an array of NumPy."""
    return isinstance(x, np.ndarray)


def namespace(x: AnyArray) -> Any:
    """`numpy` or `jax.numpy`, whichever the array is of."""
    return np if is_host(x) else jnp


def repeat(steps: int, step: Callable[[Any, Carry], Carry], carry: Carry, *, on_host: bool) -> Carry:
    """carry = step(i, carry) for i < steps: a Python loop on the host, a compiled one otherwise."""
    if not on_host:
        return jax.lax.fori_loop(0, steps, step, carry)
    for i in range(steps):
        carry = step(i, carry)
    return carry
