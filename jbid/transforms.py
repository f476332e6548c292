"""From a method for one image and one seed to methods for many."""

from __future__ import annotations

import jax

from jbid.types import Method


def _batched(method: Method, blurred_axis: int | None) -> Method:
    def init(key, blurred, start=None):
        return jax.vmap(method.init, (0, blurred_axis, blurred_axis))(key, blurred, start)

    return Method(
        init,
        jax.vmap(method.step, (0, blurred_axis, None)),
        jax.vmap(method.restore, (0, blurred_axis)),
    )


def over_seeds(method: Method) -> Method:
    """The method with a leading seed axis on keys, states and results; all seeds share `blurred` and the start.

    Seed i of `keys` is the single run with `keys[i]`, up to rounding.
    """
    return _batched(method, None)


def over_images(method: Method) -> Method:
    """The method with a leading image axis on keys, `blurred`, starts, states and results; images must be of one size.

    `over_images(over_seeds(method))` takes keys of shape (images, seeds).
    """
    return _batched(method, 0)
