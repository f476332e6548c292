"""The methods, by name."""

from __future__ import annotations

from jbid.methods import selfdeblur as _selfdeblur

METHODS = {"selfdeblur": _selfdeblur.selfdeblur}
PRESETS = {"selfdeblur": _selfdeblur.PRESETS}
