"""Functions for arrays of NumPy or JAX alike.

A function on NumPy arrays runs on the host at once; the same function on JAX arrays can be compiled and batched.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft

# what comes out is of the kind that went in, which types of these functions cannot say
if TYPE_CHECKING:
    AnyArray = Any
    Scalar = Any
else:
    AnyArray = jax.Array | np.ndarray
    Scalar = float | np.floating | AnyArray
Carry = TypeVar("Carry")


def is_host(x: AnyArray) -> bool:
    """True for an array of NumPy."""
    return isinstance(x, np.ndarray)


def namespace(x: AnyArray) -> Any:
    """`numpy` or `jax.numpy`, whichever the array is of."""
    return np if is_host(x) else jnp


def fft(x: AnyArray) -> ModuleType:
    """Module with the Fourier transforms of such arrays; SciPy's are faster than NumPy's and keep single precision."""
    return scipy.fft if is_host(x) else jnp.fft


def repeat(steps: int, step: Callable[[Any, Carry], Carry], carry: Carry, *, on_host: bool) -> Carry:
    """carry = step(i, carry) for i < steps: a Python loop on the host, a compiled one otherwise."""
    if not on_host:
        return jax.lax.fori_loop(0, steps, step, carry)
    for i in range(steps):
        carry = step(i, carry)
    return carry


def conjugate_gradients(
    normal: Callable[[AnyArray], AnyArray],
    target: AnyArray,
    x: AnyArray,
    iterations: int,
    precondition: Callable[[AnyArray], AnyArray] = lambda v: v,
) -> AnyArray:
    """x after `iterations` of conjugate gradients on A x = target, with A v = normal(v) symmetric and positive.

    `precondition` approximates the inverse of A, and is symmetric and positive as well.
    """

    def step(_, carry):
        x, residual, direction, power = carry
        image = normal(direction)
        # at the solution all of these are zero
        length = power / (dot(direction, image) + tiny)
        x = add(x, length, direction)
        residual = add(residual, -length, image)
        solved = precondition(residual)
        new = dot(residual, solved)
        direction *= new / (power + tiny)
        direction += solved
        return x, residual, direction, new

    def add(a, factor, b):
        if memory is None:
            return a + factor * b
        # in place, because new arrays take longer than the sums
        a += np.multiply(b, factor, out=memory)
        return a

    xp, tiny = namespace(target), np.finfo(np.float32).tiny

    def dot(a, b):
        return xp.vdot(a, b)

    residual = target - normal(x)
    memory = np.empty_like(residual) if is_host(target) else None
    solved = precondition(residual)
    start = (xp.array(x), residual, xp.array(solved), dot(residual, solved))
    return repeat(iterations, step, start, on_host=is_host(target))[0]
