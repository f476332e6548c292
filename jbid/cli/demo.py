"""`jbid demo`: blur a photo, restore it blindly, and compare the result with the original."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from jbid.runtime.commandline import MAIN, execute

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jbid.pipeline.config import Config
    from jbid.pipeline.restoration import Restoration

SIZE, KERNEL = 256, 21


def demo(
    *,
    method: Annotated[str | None, Parameter(group=MAIN)] = None,
    preset: Annotated[str | None, Parameter(group=MAIN)] = None,
    noise: Annotated[str, Parameter(group=MAIN)] = "gaussian:0.005",
    out: Annotated[Path, Parameter(group=MAIN)] = Path("demo"),
) -> int:
    """Blur a photo that ships with scikit-image, restore it blindly, print the gain and draw a panel.

    Example: jbid demo --method robust --noise gaussian:0.05

    Parameters
    ----------
    method
        edges (default), selfdeblur, gkpile or robust.
    preset
        quick or paper.
    noise
        As in jbid blur.
    out
        Folder of the results.
    """
    return execute(lambda: _run(method, preset, noise, out), hint="")


def _run(method: str | None, preset: str | None, noise: str, out: Path) -> int:
    from jbid.io.files import make_folder
    from jbid.pipeline.config import resolve

    values = {"method": method, "preset": preset}
    config = resolve([("", {name: value for name, value in values.items() if value is not None})])
    return _demo(make_folder(out), config, noise)


def blurred_sample(noise: str) -> tuple[NDArray, NDArray, NDArray]:
    """A blurred photo, the sharp one on the same window, and the kernel: scikit-image's astronaut at 256x256 pixels."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from skimage import data, transform

    from jbid.ops.conv import blur, crop_center
    from jbid.ops.motion import gaussian_process_kernel
    from jbid.ops.noise import add_noise

    side = SIZE + KERNEL - 1
    photo = transform.resize(data.astronaut(), (side, side), anti_aliasing=True).astype(np.float32)
    kernel = gaussian_process_kernel(jax.random.key(3), KERNEL)
    blurred = add_noise(jax.random.key(4), jnp.clip(blur(jnp.asarray(photo), kernel), 0, 1), noise)
    # as a camera would store it
    stored = np.round(np.clip(np.asarray(blurred), 0, 1) * 255) / np.float32(255)
    return stored, np.asarray(crop_center(photo, kernel.shape)), np.asarray(kernel)


def _demo(out: Path, config: Config, noise: str) -> int:
    from jbid.io.images import write_image, write_kernel
    from jbid.metrics import align
    from jbid.ops.color import luma
    from jbid.pipeline.solve import restore

    if not find_spec("matplotlib"):
        raise ValueError("the demo draws with matplotlib: pip install 'jbid[demo]'")
    blurred, sharp, kernel = blurred_sample(noise)
    print("the kernel size is unknown; the first run compiles", flush=True)
    began = time.perf_counter()
    restoration = restore([blurred], config)[0]
    seconds = time.perf_counter() - began
    for name, image in (("blurred", blurred), ("restored", restoration.image), ("true", sharp)):
        write_image(out / f"{name}.png", image)
    write_kernel(out / "kernel_true.png", kernel)
    write_kernel(out / "kernel_estimated.png", restoration.kernel)
    before, after = (align(luma(v)[..., 0], luma(sharp)[..., 0]) for v in (blurred, restoration.image))
    _panel(out / "panel.png", blurred, restoration, sharp, kernel, before.psnr, after.psnr)
    gain = after.psnr - before.psnr
    print(f"blurred:  {before.psnr:.2f} dB, SSIM {before.ssim:.4f}")
    print(f"restored: {after.psnr:.2f} dB, SSIM {after.ssim:.4f} ({gain:+.2f} dB) in {seconds:.0f} s")
    print("luma, after the best shift, without a border of 15 pixels")
    print(f"-> {out / 'panel.png'}")
    return 0


def _panel(
    path: Path,
    blurred: NDArray,
    restoration: Restoration,
    sharp: NDArray,
    kernel: NDArray,
    psnr_before: float,
    psnr_after: float,
) -> None:
    """Draw the blurred, the restored and the true image, and both kernels."""
    from matplotlib.figure import Figure

    from jbid.io.files import atomic_write
    from jbid.ops.kernels import place_kernel

    figure = Figure(figsize=(13.5, 4.1), layout="constrained")
    axes = figure.subplots(1, 5, gridspec_kw={"width_ratios": [4, 4, 4, 1.6, 1.6]})
    panels = (
        (f"blurred, {psnr_before:.1f} dB", blurred),
        (f"restored blindly, {psnr_after:.1f} dB", restoration.image),
        ("true", sharp),
        ("true kernel", kernel),
        ("estimated", place_kernel(restoration.kernel, max(KERNEL, len(restoration.kernel)))),
    )
    for axis, (title, image) in zip(axes, panels):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1 if image.ndim == 3 else None, interpolation="nearest")
        axis.set_title(title, fontsize=11)
        axis.set_axis_off()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)
