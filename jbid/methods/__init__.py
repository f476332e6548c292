"""Registry of the methods: each is declared by the `SPEC` of its module.

A further method is one module and one line in `_MODULES`, or at run time a `MethodSpec` passed to `register`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jbid.types import Method

# names are known without importing the modules, which need JAX
_MODULES = {
    "edges": "jbid.methods.edges",
    "selfdeblur": "jbid.methods.selfdeblur",
    "gkpile": "jbid.methods.gkpile",
    "explore": "jbid.methods.explore.method",
    "robust": "jbid.methods.robust",
}
PRESETS = ("quick", "paper")


class MethodSpec(NamedTuple):
    """Declaration of a method.

    Attributes:
        name: on the command line and in configurations.
        summary: one line for help texts.
        build: makes the `Method`: build(kernel_size, *, steps, out_channels, kernel=None, **options). None: the
            method runs no optimization, and its answer is a deconvolution with the initial kernel.
        presets: fields of `jbid.pipeline.config.Config` and options of `build`, by the preset's name.
        non_blind: fields and options for a known kernel, applied after the preset.
        kernel_sizes: available kernel sizes in ascending order, a function of the options; None: every odd size.
        weight_files: prefixes of the names of the weight files that the method reads.
        file_options: options that name a file the result depends on.
        is_maskable: NaN pixels of the observed image play no part outside the loss, so images can be padded.
        stops_early: returns True if a run with these options may stop before its last step.
    """

    name: str
    summary: str
    build: Callable[..., Method] | None
    presets: Mapping[str, Mapping[str, Any]]
    non_blind: Mapping[str, Any] = {}
    kernel_sizes: Callable[[Mapping[str, Any]], Sequence[int]] | None = None
    weight_files: tuple[str, ...] = ()
    file_options: tuple[str, ...] = ()
    is_maskable: bool = False
    stops_early: Callable[[Mapping[str, Any]], bool] = lambda options: False

    def available_sizes(self, options: Mapping[str, Any]) -> list[int] | None:
        """Kernel sizes of the method in ascending order; None if it takes every odd size.

        Raises:
            ValueError: if the method needs pretrained networks and there are none.
        """
        if self.kernel_sizes is None:
            return None
        sizes = list(self.kernel_sizes(options))
        if not sizes:
            raise ValueError(f"no generator_<size>.npz in the folder of weights for {self.name}; train one first")
        return sizes

    def fitting_size(self, options: Mapping[str, Any], size: int) -> int:
        """Kernel size that the method uses for a kernel of `size`: the next larger one, or its largest.

        Raises:
            ValueError: as `available_sizes`.
        """
        sizes = self.available_sizes(options)
        return size if sizes is None else next((side for side in sizes if side >= size), sizes[-1])


_registered: dict[str, MethodSpec] = {}


def names() -> list[str]:
    """Names of all methods, the default one first."""
    return [*_MODULES, *(name for name in _registered if name not in _MODULES)]


def get(name: str) -> MethodSpec:
    """Declaration of a method.

    Raises:
        ValueError: for an unknown name.
    """
    if name in _registered:
        return _registered[name]
    if name not in _MODULES:
        raise ValueError(f"`method` must be one of {', '.join(names())}, got {name!r}")
    return importlib.import_module(_MODULES[name]).SPEC


def register(spec: MethodSpec) -> None:
    """Add a method, so that `jbid.deblur(image, method=spec.name)` finds it.

    A name that exists is replaced, for the rest of the process.

    Raises:
        ValueError: if a preset has an unknown name, or there is none.
    """
    unknown = set(spec.presets) - set(PRESETS)
    if unknown or not spec.presets:
        got = ", ".join(sorted(spec.presets)) or "none"
        raise ValueError(f"`presets` must be among {', '.join(PRESETS)}, got {got}")
    _registered[spec.name] = spec
