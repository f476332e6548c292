"""Blur-operator families of the command line, by width."""

from __future__ import annotations

from jbid.nets.gated_wizard import GatedWizard
from jbid.nets.kernel_wizard import KernelWizard, Levels, Widths

# sizes of the layers by name; `Widths` belong to `KernelWizard`, `Levels` to `GatedWizard`
WIDTHS: dict[str, Widths | Levels] = {
    "published": Widths(features=64, fine=64, code=512, front=10, back=20, blocks=4),
    "compact": Levels(channels=(8, 16, 48, 96, 128), code=128, kernel=48, filters=(16, 32, 64)),
}


Wizard = KernelWizard | GatedWizard


def build_wizard(width: str, variational: bool) -> Wizard:
    """Network of a blur-operator family.

    Args:
        width: name in `WIDTHS`.
        variational: codes have a distribution.

    Raises:
        ValueError: for another name.
    """
    if width not in WIDTHS:
        raise ValueError(f"`width` must be one of {', '.join(WIDTHS)}, got {width!r}")
    sizes = WIDTHS[width]
    return KernelWizard(sizes, variational) if isinstance(sizes, Widths) else GatedWizard(sizes, variational)
