"""`python -m jbid demo`: a photo blurred, restored blindly, and compared with the truth that is known here."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jbid.io.files import atomic_write
from jbid.io.images import write_image, write_kernel
from jbid.metrics import align
from jbid.ops.color import luma
from jbid.ops.conv import blur, crop_center
from jbid.ops.kernels import place_kernel
from jbid.ops.motion import gaussian_process_kernel
from jbid.ops.noise import NOISE_MODELS, parse_noise
from jbid.pipeline.config import Config
from jbid.pipeline.solve import Restoration, deblur

SIZE, KERNEL = 256, 21


def sample(noise: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A blurred photo, the sharp one on the same window, and the kernel: scikit-image's astronaut at 256x256 pixels."""
    from skimage import data, transform

    side = SIZE + KERNEL - 1
    photo = transform.resize(data.astronaut(), (side, side), anti_aliasing=True).astype(np.float32)
    kernel = gaussian_process_kernel(jax.random.key(3), KERNEL)
    model, level = parse_noise(noise)
    blurred = NOISE_MODELS[model](jax.random.key(4), jnp.clip(blur(jnp.asarray(photo), kernel), 0, 1), level)
    # as a camera would store it
    blurred = np.round(np.clip(np.asarray(blurred), 0, 1) * 255) / np.float32(255)
    return blurred, np.asarray(crop_center(photo, kernel.shape)), np.asarray(kernel)


def demo(out: Path, settings: Config, noise: str) -> int:
    """Write the panel and its pictures to `out`, and print the gain.

    Raises ValueError for noise that is not known, and without matplotlib.
    """
    if not find_spec("matplotlib"):
        raise ValueError("the demo draws with matplotlib: pip install 'jbid[demo]'")
    blurred, sharp, kernel = sample(noise)
    print("the size of the kernel is not known; the first time, this compiles", flush=True)
    start = time.perf_counter()
    answer = deblur([blurred], settings)[0]
    seconds = time.perf_counter() - start
    for name, picture in (("blurred", blurred), ("restored", answer.image), ("true", sharp)):
        write_image(out / f"{name}.png", picture)
    write_kernel(out / "kernel_true.png", kernel)
    write_kernel(out / "kernel_estimated.png", answer.kernel)
    before, after = (align(luma(v)[..., 0], luma(sharp)[..., 0]) for v in (blurred, answer.image))
    panel(out / "panel.png", blurred, answer, sharp, kernel, before.psnr, after.psnr)
    print(f"blurred:  {before.psnr:.2f} dB, SSIM {before.ssim:.4f}")
    print(
        f"restored: {after.psnr:.2f} dB, SSIM {after.ssim:.4f} ({after.psnr - before.psnr:+.2f} dB) in {seconds:.0f} s"
    )
    print("luma, after the best shift, border of 15 pixels left out")
    print(f"-> {out / 'panel.png'}")
    return 0


def panel(path: Path, blurred, answer: Restoration, sharp, kernel, psnr_before: float, psnr_after: float) -> None:
    """Draw blurred, restored and true picture, and both kernels, with matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.5, 4.1), layout="constrained")
    axes = figure.subplots(1, 5, gridspec_kw={"width_ratios": [4, 4, 4, 1.6, 1.6]})
    shown = (
        (f"blurred, {psnr_before:.1f} dB", blurred),
        (f"restored blindly, {psnr_after:.1f} dB", answer.image),
        ("true", sharp),
        ("true kernel", kernel),
        ("estimated", place_kernel(answer.kernel, max(KERNEL, len(answer.kernel)))),
    )
    for axis, (title, picture) in zip(axes, shown):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1 if picture.ndim == 3 else None, interpolation="nearest")
        axis.set_title(title, fontsize=11)
        axis.set_axis_off()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)
