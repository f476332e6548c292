"""Names of earlier versions: accepted for one version, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

KEYS = {
    "start": "init",
    "finish": "deconvolve",
    "seeds": "n_seeds",
    "colour": "color",
    "clean": "remove_impulses",
    "regulariser": "regularizer",
    "normalise": "normalize",
    "weight": "reg_weight",
}


def modernize(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Keys and values under their present names.

    A name of an earlier version causes a FutureWarning that gives the new one.
    """
    new: dict[str, Any] = {}
    prefix = f"{source}: " if source else ""
    for key, value in values.items():
        if key in KEYS:
            _warn(f"{prefix}{key!r} is now {KEYS[key]!r}")
            key = KEYS[key]
        if key == "init" and isinstance(value, str) and "encoder" in value.split("+"):
            _warn(f"{prefix}the initial kernel 'encoder' is now 'learned'")
            value = "+".join("learned" if name == "encoder" else name for name in value.split("+"))
        new[key] = value
    if new.get("preset") == "instant":
        # an alias that stays: the preset of earlier versions is a method of its own now
        del new["preset"]
        new["method"] = "edges"
    return new


def _warn(text: str) -> None:
    warnings.warn(f"{text}; the old name will be removed in the next version", FutureWarning, stacklevel=4)
