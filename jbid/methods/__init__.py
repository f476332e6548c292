"""The methods, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jbid.methods import gkpile as _gkpile
from jbid.methods import robust as _robust
from jbid.methods import selfdeblur as _selfdeblur
from jbid.methods.explore import method as _explore
from jbid.types import Method

METHODS: dict[str, Callable[..., Method]] = {
    "selfdeblur": _selfdeblur.selfdeblur,
    "gkpile": _gkpile.gkpile,
    "explore": _explore.explore,
    "robust": _robust.robust,
}
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "selfdeblur": _selfdeblur.PRESETS,
    "gkpile": _gkpile.PRESETS,
    "explore": _explore.PRESETS,
    "robust": _robust.PRESETS,
}
# what a method is asked for besides where the kernel is known
NON_BLIND: dict[str, dict[str, Any]] = {
    "selfdeblur": {"loss": "ssim"},
    "gkpile": {"loss": "ssim"},
    "explore": {},
    "robust": {},
}
# the kernel sizes of a method that cannot have any, from its options
_SIZES: dict[str, Callable[[dict[str, Any]], Sequence[int]]] = {"gkpile": _gkpile.kernel_sizes}


def kernel_sizes(method: str, options: Mapping[str, Any]) -> list[int] | None:
    """The kernel sizes that a method has, ascending; None for one that can have any.

    Raises ValueError for a method that has pretrained networks where there are none.
    """
    if method not in _SIZES:
        return None
    sides = _SIZES[method](dict(options))
    if not sides:
        raise ValueError(f"no generator_<size>.npz in the folder of weights for {method}; see docs/pretraining.md")
    return list(sides)


def size_for(method: str, options: Mapping[str, Any], size: int) -> int:
    """The side of the kernel that a method works with where one of `size` is wanted: the next larger, or its largest.

    Raises ValueError as `kernel_sizes` does.
    """
    sides = kernel_sizes(method, options)
    return size if sides is None else next((side for side in sides if side >= size), sides[-1])
