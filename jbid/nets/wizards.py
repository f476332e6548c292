"""jbid.nets.wizards."""

from __future__ import annotations

from jbid.nets.gated_wizard import GatedWizard
from jbid.nets.kernel_wizard import KernelWizard, Levels, Widths

WIDTHS: dict[str, Widths | Levels] = {
    "published": Widths(64, 64, 512, 10, 20, 4),
    "compact": Levels((8, 16, 48, 96, 128), 128, 48, (16, 32, 64)),
}


Wizard = KernelWizard | GatedWizard


def build_wizard(width: str, variational: bool) -> Wizard:
    """F and G of one of `WIDTHS`. Raises ValueError for another name."""
    if width not in WIDTHS:
        raise ValueError(f"got width {width!r}, expected one of {', '.join(WIDTHS)}")
    of = WIDTHS[width]
    return KernelWizard(of, variational) if isinstance(of, Widths) else GatedWizard(of, variational)
