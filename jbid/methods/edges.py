"""Edge-based kernel estimation and deconvolution, without a deep prior: the default method.

The kernel comes from `jbid.kernel_estimation`, the image from `jbid.deconvolution`. The other methods begin from the
same kernel and refine it with a deep image prior.
"""

from __future__ import annotations

from jbid.methods import MethodSpec

SPEC = MethodSpec(
    name="edges",
    summary="kernel estimated from edges, deconvolution; seconds",
    build=None,
    presets={name: dict(init="edges", patch=512) for name in ("quick", "paper")},
)
