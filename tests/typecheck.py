"""The checker of array shapes and types at each call of jbid's functions; conftest.py installs it."""

from __future__ import annotations

import operator
import types
from collections.abc import Callable
from functools import reduce
from typing import Any, Union, get_args, get_origin

import jax
import numpy as np
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray


def check(function: Callable) -> Callable:
    """Check arguments and results with beartype.

    Shapes and element types are checked; whether NumPy or JAX holds the array is not, because JAX takes both. As in
    PEP 484, an integer is a valid float.
    """
    function.__annotations__ = {name: _of_either(hint) for name, hint in function.__annotations__.items()}
    return beartype(conf=BeartypeConf(is_pep484_tower=True))(function)


def _of_either(hint: Any) -> Any:
    if hint is jax.Array or hint is np.ndarray or get_origin(hint) is np.ndarray:
        return hint | jax.Array | np.ndarray
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return hint.dtype[jax.Array, hint.dim_str] | hint.dtype[np.ndarray, hint.dim_str]
    if get_origin(hint) in (tuple, list, Union, types.UnionType):
        parts = tuple(_of_either(part) for part in get_args(hint))
        return get_origin(hint)[parts] if get_origin(hint) in (tuple, list) else reduce(operator.or_, parts)
    return hint
