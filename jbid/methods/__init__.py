"""The methods, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jbid.methods import robust as _robust
from jbid.methods import selfdeblur as _selfdeblur
from jbid.types import Method

METHODS: dict[str, Callable[..., Method]] = {"selfdeblur": _selfdeblur.selfdeblur, "robust": _robust.robust}
PRESETS: dict[str, dict[str, dict[str, Any]]] = {"selfdeblur": _selfdeblur.PRESETS, "robust": _robust.PRESETS}
# what a method is asked for besides where the kernel is known
NON_BLIND: dict[str, dict[str, Any]] = {"selfdeblur": {"loss": "ssim"}, "robust": {}}
