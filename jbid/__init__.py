"""JAX blind image deconvolution: the sharp image and the blur kernel from a photo blurred by camera shake.

>>> import jbid
>>> restoration = jbid.deblur(jbid.read_image("photo.jpg"))  # doctest: +SKIP
>>> restoration.save("restored")  # doctest: +SKIP

Names are loaded on first use, so that `import jbid` alone does not import JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PLACES = {
    "jbid.api": (
        *("deblur", "deblur_batch", "estimate_kernel", "deconvolve", "transfer_blur"),
        *("blur", "motion_kernels", "add_noise", "estimate_noise"),
    ),
    "jbid.io.images": ("read_image", "write_image"),
    "jbid.methods.selfdeblur": ("selfdeblur",),
    "jbid.methods.gkpile": ("gkpile",),
    "jbid.methods.robust": ("robust",),
    "jbid.methods.explore.method": ("explore",),
    "jbid.engine.deep_prior": ("deep_prior",),
    "jbid.engine.driver": ("run", "RunContext"),
    "jbid.engine.wrappers": ("over_seeds", "over_images", "early_stopping"),
    "jbid.kernel_estimation.search": ("KernelEstimate",),
    "jbid.pipeline.restoration": ("Restoration",),
    "jbid.types": ("Method", "Generator", "Estimate"),
}
_MODULES = ("losses", "methods", "metrics", "nets")
_PLACE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [*_PLACE_OF, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"jbid.{name}")
    if name not in _PLACE_OF:
        raise AttributeError(f"module 'jbid' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if TYPE_CHECKING:
    from jbid import losses as losses
    from jbid import methods as methods
    from jbid import metrics as metrics
    from jbid import nets as nets
    from jbid.api import add_noise as add_noise
    from jbid.api import blur as blur
    from jbid.api import deblur as deblur
    from jbid.api import deblur_batch as deblur_batch
    from jbid.api import deconvolve as deconvolve
    from jbid.api import estimate_kernel as estimate_kernel
    from jbid.api import estimate_noise as estimate_noise
    from jbid.api import motion_kernels as motion_kernels
    from jbid.api import transfer_blur as transfer_blur
    from jbid.engine.deep_prior import deep_prior as deep_prior
    from jbid.engine.driver import RunContext as RunContext
    from jbid.engine.driver import run as run
    from jbid.engine.wrappers import early_stopping as early_stopping
    from jbid.engine.wrappers import over_images as over_images
    from jbid.engine.wrappers import over_seeds as over_seeds
    from jbid.io.images import read_image as read_image
    from jbid.io.images import write_image as write_image
    from jbid.kernel_estimation.search import KernelEstimate as KernelEstimate
    from jbid.methods.explore.method import explore as explore
    from jbid.methods.gkpile import gkpile as gkpile
    from jbid.methods.robust import robust as robust
    from jbid.methods.selfdeblur import selfdeblur as selfdeblur
    from jbid.pipeline.restoration import Restoration as Restoration
    from jbid.types import Estimate as Estimate
    from jbid.types import Generator as Generator
    from jbid.types import Method as Method
