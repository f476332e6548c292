"""The methods, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jbid.methods import gkpile as _gkpile
from jbid.methods import robust as _robust
from jbid.methods import selfdeblur as _selfdeblur
from jbid.types import Method

METHODS: dict[str, Callable[..., Method]] = {
    "selfdeblur": _selfdeblur.selfdeblur,
    "gkpile": _gkpile.gkpile,
    "robust": _robust.robust,
}
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "selfdeblur": _selfdeblur.PRESETS,
    "gkpile": _gkpile.PRESETS,
    "robust": _robust.PRESETS,
}
# what a method is asked for besides where the kernel is known
NON_BLIND: dict[str, dict[str, Any]] = {"selfdeblur": {"loss": "ssim"}, "gkpile": {"loss": "ssim"}, "robust": {}}
# the kernel sizes of a method that cannot have any, from its options
_SIZES: dict[str, Callable[[dict[str, Any]], Sequence[int]]] = {"gkpile": _gkpile.kernel_sizes}


def size_for(method: str, options: Mapping[str, Any], size: int) -> int | None:
    """The side of the kernel that a method works with where one of `size` is wanted: the next larger it has.

    None where it has none that large.
    """
    if method not in _SIZES:
        return size
    return next((side for side in _SIZES[method](dict(options)) if side >= size), None)


def largest_size(method: str, options: Mapping[str, Any]) -> int:
    """The largest kernel size of a method that cannot have any. Raises ValueError if it has no weights at all."""
    sides = _SIZES[method](dict(options))
    if not sides:
        raise ValueError(f"{method} has no pretrained weights; see docs/pretraining.md")
    return max(sides)
