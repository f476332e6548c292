"""`jbid blur`: the forward model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from jbid.cli.inputs import about
from jbid.runtime.commandline import MAIN, execute


def blur(
    images: Annotated[tuple[Path, ...], Parameter(name="IMAGE")],
    /,
    *,
    kernel: Annotated[Path, Parameter(group=MAIN)],
    noise: Annotated[str | None, Parameter(group=MAIN)] = None,
    seed: Annotated[int, Parameter(group=MAIN)] = 0,
    out: Annotated[Path, Parameter(group=MAIN)] = Path("blurred"),
) -> int:
    """Blur sharp images with a kernel: y = k * x + n. Writes NAME_blurred.png.

    The result is smaller than the image by the kernel's size minus one: only pixels that see the whole kernel are
    known.

    Example: jbid blur sharp.png --kernel kernel.png --noise gaussian:0.01

    Parameters
    ----------
    images
        Files of sharp images.
    kernel
        Image file of the kernel.
    noise
        gaussian:SIGMA, impulse:PROBABILITY, shot:RATE, clipping:GAIN (with a number, low or high), or saturation.
    seed
        Random seed of the noise.
    out
        Folder of the results.
    """
    return execute(lambda: _blur(images, kernel, noise, seed, out), hint="")


def _blur(paths: tuple[Path, ...], kernel_path: Path, noise: str | None, seed: int, out: Path) -> int:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jbid.io.files import make_folder
    from jbid.io.images import read_image, read_kernel, write_image
    from jbid.ops import conv
    from jbid.ops.noise import add_noise, parse_noise

    model = parse_noise(noise)[0] if noise else None
    kernel = read_kernel(kernel_path)
    images = {path: read_image(path) for path in paths}
    for path, image in images.items():
        if kernel.shape[0] > image.shape[0] or kernel.shape[1] > image.shape[1]:
            raise ValueError(f"{kernel_path}: the kernel {kernel.shape} is larger than {path}, {image.shape[:2]}")
        if model == "saturation" and image.shape[-1] != 3:
            raise ValueError(about(path, "`noise` saturation needs a color image"))
    folder = make_folder(out)
    for i, (path, image) in enumerate(images.items()):
        blurred = conv.blur(jnp.asarray(image), jnp.asarray(kernel))
        if noise:
            blurred = add_noise(jax.random.fold_in(jax.random.key(seed), i), blurred, noise)
        write_image(folder / f"{path.stem}_blurred.png", np.asarray(blurred))
        print(f"-> {folder / f'{path.stem}_blurred.png'}")
    return 0
