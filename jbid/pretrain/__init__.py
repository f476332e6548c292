"""Training of the networks that methods use, by their name on the command line."""

from __future__ import annotations

import importlib
from types import ModuleType

# names are known without importing the modules, which need JAX
NETWORKS = {
    "generator": "jbid.pretrain.kernel_gan",
    "initializer": "jbid.pretrain.initializer",
    "operator": "jbid.pretrain.blur_operator",
    "lines": "jbid.pretrain.text_lines",
    "deconvolver": "jbid.pretrain.deconvolver",
}


def get(name: str) -> ModuleType:
    """Module of a network, with `Config` and `training(config, folder)`."""
    return importlib.import_module(NETWORKS[name])
