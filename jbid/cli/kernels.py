"""`jbid kernels`: simulated blur kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from jbid.runtime.commandline import MAIN, Count, PngFile, execute


def kernels(
    *,
    size: Annotated[int, Parameter(group=MAIN)] = 31,
    count: Annotated[Count, Parameter(group=MAIN)] = 64,
    model: Annotated[str, Parameter(group=MAIN)] = "camera",
    seed: Annotated[int, Parameter(group=MAIN)] = 0,
    out: Annotated[PngFile, Parameter(group=MAIN)] = Path("kernels.png"),
) -> int:
    """Draw a grid of simulated motion-blur kernels, each scaled by its maximum.

    Example: jbid kernels --size 31 --count 16

    Parameters
    ----------
    size
        Odd size of the kernels in pixels.
    count
        Number of kernels.
    model
        camera, trajectory or gaussian_process.
    seed
        Random seed.
    out
        File of the grid, a name that ends in .png.
    """
    return execute(lambda: _kernels(size, count, model, seed, out), hint="")


def _kernels(size: int, count: int, model: str, seed: int, out: Path) -> int:
    import jax
    import numpy as np

    from jbid.io.files import make_folder
    from jbid.io.images import image_grid, write_image
    from jbid.ops.motion import motion_kernels

    images = np.asarray(motion_kernels(jax.random.key(seed), size, count, model))
    make_folder(out.parent)
    write_image(out, image_grid(images))
    print(f"{count} kernels of {size}x{size} pixels, {model} -> {out}")
    return 0
