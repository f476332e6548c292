"""`jbid transfer`: transfer the blur of an image pair to other images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from jbid.cli.inputs import list_inputs, output_suffix
from jbid.runtime.commandline import MAIN, Words, execute
from jbid.runtime.console import print_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jbid.methods.explore.blur_operator import Operator


def load_operator(weights: Path | None, sample: bool) -> Operator:
    """The blur operator of a folder of weights; with `sample`, one with a VAE, from which blurs can be drawn."""
    from jbid.io.weights import SHIPPED
    from jbid.methods.explore.blur_operator import operator

    return operator("operator_vae" if sample else "operator", weights or SHIPPED)


def transfer(
    *,
    target: Annotated[Words, Parameter(group=MAIN)],
    sharp: Annotated[Path | None, Parameter(group=MAIN)] = None,
    blurry: Annotated[Path | None, Parameter(group=MAIN)] = None,
    sample: Annotated[bool, Parameter(group=MAIN)] = False,
    out: Annotated[Path, Parameter(group=MAIN)] = Path("transferred"),
    weights: Path | None = None,
    seed: int = 0,
) -> int:
    """Transfer the blur of an image pair to other images, also a blur that varies over the image.

    Writes NAME_blurred for each target. Unreadable targets are reported and skipped.

    Example: jbid transfer --sharp a.png --blurry b.png --target photos/

    Parameters
    ----------
    target
        Files, folders or patterns of the images to blur.
    sharp
        A sharp image.
    blurry
        The same image with the blur to transfer.
    sample
        Draw a random blur for each target instead of transferring one.
    out
        Folder of the results.
    weights
        Folder of trained operators (default: the shipped ones).
    seed
        Random seed of --sample.
    """
    if sample == bool(sharp or blurry) or bool(sharp) != bool(blurry):
        raise ValueError("give both --sharp and --blurry, or --sample without them")
    return execute(lambda: _transfer(target, sharp, blurry, out, weights, seed), hint="")


def _pair_code(operator: Operator, sharp_path: Path, blurred_path: Path) -> NDArray:
    """Code of the blur of an image pair; prints how well the operator reproduces it."""
    from jbid.io.images import read_image
    from jbid.methods.explore.transfer import apply_code, extract_code
    from jbid.metrics import psnr

    sharp, blurred = read_image(sharp_path), read_image(blurred_path)
    code = extract_code(operator, sharp, blurred)
    reconstruction = psnr(apply_code(operator, sharp, code), blurred)
    reference = psnr(sharp, blurred)
    print(f"reconstruction of the source pair: {reconstruction:.2f} dB (sharp against blurred: {reference:.2f} dB)")
    return code


def _transfer(
    targets: tuple[str, ...], sharp: Path | None, blurry: Path | None, out: Path, weights: Path | None, seed: int
) -> int:
    import jax
    import numpy as np
    from tqdm import tqdm

    from jbid.io.files import make_folder
    from jbid.io.images import read_photo, write_photo
    from jbid.methods.explore.blur_operator import sample_code
    from jbid.methods.explore.transfer import apply_code

    operator = load_operator(weights, sharp is None)
    pair_code = _pair_code(operator, sharp, blurry) if sharp and blurry else None
    paths, errors = list_inputs(targets, out, "_blurred")
    folder, count = make_folder(out), 0
    for i, path in enumerate(tqdm(paths, unit="image", dynamic_ncols=True)):
        try:
            photo = read_photo(path)
        except (ValueError, OSError) as error:
            errors.append(str(error))
            continue
        code = pair_code
        if code is None:
            key = jax.random.fold_in(jax.random.key(seed), i)
            code = np.asarray(sample_code(operator, key, photo.image.shape))
        blurred = apply_code(operator, photo.image, code)
        write_photo(folder / f"{path.stem}_blurred{output_suffix(path)}", photo._replace(image=blurred))
        count += 1
    for line in errors:
        print_error(line)
    print(f"{count} images -> {folder}")
    return 2 if errors else 0
