"""First and second derivatives of images, and the gradient of their penalty."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jbid.ops.namespace import AnyArray, Scalar, is_host


def _subtract(a: AnyArray, b: AnyArray, out: NDArray[np.float32] | None) -> AnyArray:
    return a - b if out is None else np.subtract(a, b, out=out)


def _add_adjoint(total: AnyArray, v: AnyArray, step: int) -> AnyArray:
    """`total`, in place on the host, plus the adjoint of x[step:] - x[:-step] applied to `v`."""
    if not is_host(v):
        return total + jnp.pad(v, (step, 0)) - jnp.pad(v, (0, step))
    total[step:] += v
    total[:-step] -= v
    return total


def power_of(d: AnyArray, least: float, power: Scalar) -> AnyArray:
    """max(|d|, least)^power, in place on the host, where exp and log are faster than a power."""
    if not is_host(d):
        return jnp.maximum(abs(d), least) ** power
    np.maximum(np.abs(d, out=d), least, out=d)
    np.multiply(np.log(d, out=d), power, out=d)
    return np.exp(d, out=d)


class Derivatives:
    """Both first and all three second derivatives of images (H, W, c) like `x`, as one long row each.

    In this order memory is read in sequence. What lies across the ends of two rows means nothing: `inside` is 0 there,
    else 1. On the host results overwrite earlier ones, because new arrays take longer than the differences.
    """

    def __init__(self, x: AnyArray):
        below, across, count = x.shape[1] * x.shape[2], x.shape[2], x.size
        self.below, self.across = below, across
        lengths = count - below, count - across, count - 2 * below, count - 2 * across, count - below - across
        in_row = np.arange(below)
        self.inside = [
            np.tile(in_row < below - n * across, x.shape[0])[:length].astype(x.dtype)
            for n, length in zip((0, 1, 0, 2, 1), lengths)
        ]
        self.memory: list[Any] = [np.empty(n, x.dtype) if is_host(x) else None for n in (*lengths, count)]

    def of(self, x: AnyArray) -> list[AnyArray]:
        """Derivatives down, across, twice down, twice across, and down and across."""
        v, below, across, memory = x.reshape(-1), self.below, self.across, self.memory
        first = _subtract(v[below:], v[:-below], memory[0]), _subtract(v[across:], v[:-across], memory[1])
        second = [
            _subtract(d[step:], d[:-step], out)
            for d, step, out in zip((*first, first[0]), (below, across, across), memory[2:])
        ]
        return [*first, *second]

    def penalty_gradient(self, x: AnyArray, weights: list[AnyArray]) -> AnyArray:
        """Gradient of sum_j w_j (d_j x)^2 / 2, for weights that are 0 where `inside` is."""
        values = self.of(x)
        for i, weight in enumerate(weights):
            values[i] *= weight
        down, across, down2, across2, mixed = values
        down = _add_adjoint(_add_adjoint(down, down2, self.below), mixed, self.across)
        across = _add_adjoint(across, across2, self.across)
        if is_host(x):
            total = self.memory[-1]
            total[:] = 0
        else:
            total = jnp.zeros(x.size, x.dtype)
        return _add_adjoint(_add_adjoint(total, down, self.below), across, self.across).reshape(x.shape)
