"""Checks of the options that method builders take."""

from __future__ import annotations

from collections.abc import Iterable

import jax.numpy as jnp


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise ValueError if `value` of the parameter `name` is none of `choices`."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}")


def check_positive(**numbers: float) -> None:
    """Raise ValueError if one of the named numbers is not above 0."""
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"`{name}` must be above 0, got {number}")


def check_at_least(least: float, **numbers: float) -> None:
    """Raise ValueError if one of the named numbers is below `least`."""
    for name, number in numbers.items():
        if not number >= least:
            raise ValueError(f"`{name}` must be at least {least}, got {number}")


def compute_dtype(name: str) -> type | None:
    """Dtype that networks compute in; None for that of their parameters.

    Args:
        name: "float32" or "bfloat16".

    Raises:
        ValueError: for another name.
    """
    check_choice("dtype", name, ("float32", "bfloat16"))
    return jnp.bfloat16 if name == "bfloat16" else None
