"""`jbid augment`: training pairs for other networks, made by blur transfer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from jbid.cli.transfer import load_operator
from jbid.runtime.commandline import INTERRUPTED, MAIN, execute


def augment(
    *,
    target: Annotated[str, Parameter(group=MAIN)],
    pairs: Annotated[str | None, Parameter(group=MAIN)] = None,
    frames: Annotated[str | None, Parameter(group=MAIN)] = None,
    sample: Annotated[bool, Parameter(group=MAIN)] = False,
    out: Annotated[Path, Parameter(group=MAIN)] = Path("augmented"),
    count: int = 1000,
    crop: int = 256,
    weights: Path | None = None,
    seed: int = 0,
) -> int:
    """Make training pairs: crops of sharp images with the blur of other pairs, or with random blurs.

    Writes sharp/000000.png ..., blur/000000.png ... and pairs.csv, which holds how well the operator reproduces the
    blur of each source pair. Run again, the command continues an interrupted run.

    Example: jbid augment --pairs gopro/ --target photos/ --count 1000

    Parameters
    ----------
    target
        Folder (or TFDS data set) of sharp images to blur.
    pairs
        Folder of pairs to take blurs from: sharp/NAME and blur/NAME, or X_sharp and X_blur.
    frames
        Folder of clips of sharp frames, 5 to 15 of which are averaged to a blur.
    sample
        Draw random blurs.
    out
        Folder of the results.
    count
        Number of pairs.
    crop
        Side of the crops in pixels, at least 32.
    weights
        Folder of trained operators (default: the shipped ones).
    seed
        Random seed.
    """
    if count < 1 or crop < 32:
        raise ValueError(f"`count` must be at least 1 and `crop` at least 32, got {count} and {crop}")
    if [bool(pairs), bool(frames), sample].count(True) != 1:
        raise ValueError("give one of --pairs, --frames and --sample")
    arguments = {"target": target, "pairs": pairs, "frames": frames, "sample": sample, "crop": crop, "seed": seed}
    return execute(lambda: _augment(arguments, count, out, weights), hint="")


def _augment(arguments: dict[str, Any], count: int, out: Path, weights: Path | None) -> int:
    from tqdm import tqdm

    from jbid.data.crops import crops
    from jbid.data.pairs import pairs
    from jbid.io.files import make_folder, read_json, write_json
    from jbid.io.weights import SHIPPED, checksums
    from jbid.methods.explore.transfer import write_pairs
    from jbid.pipeline.resume import fingerprint
    from jbid.runtime.console import interruptible

    operator = load_operator(weights, arguments["sample"])
    crop, seed = arguments["crop"], arguments["seed"]
    sources = None
    if not arguments["sample"]:
        pair_folder, frames = arguments["pairs"] or "", arguments["frames"] or ""
        sources = pairs(crop, seed, folder=pair_folder, frames=frames, held_out=None)
    targets = crops(arguments["target"], crop, seed + 1, held_out=None, color=True)
    folder = make_folder(out)
    mark = {"identity": fingerprint(arguments, checksums(weights or SHIPPED))}
    earlier = read_json(folder / "augment.json")
    if earlier and earlier != mark:
        raise ValueError(f"{folder}: holds pairs of other arguments. Choose another --out.")
    write_json(folder / "augment.json", mark)
    with interruptible() as interrupt, tqdm(total=count, unit="pair", dynamic_ncols=True) as bar:
        for done in write_pairs(operator, targets, count, folder, sources=sources, seed=seed):
            bar.update(done - bar.n)
            if interrupt.is_set():
                print("Interrupted. Run the same command to continue.")
                return INTERRUPTED
    print(f"{count} pairs -> {folder}")
    return 0
