"""Inputs of the commands: image files, folders and patterns."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path


def list_inputs(arguments: Sequence[str], out: Path, *suffixes: str) -> tuple[list[Path], list[str]]:
    """Image files of the arguments, in order and without repetition, and error messages.

    Args:
        arguments: files, folders and patterns.
        out: folder of the results; in it, files whose stems end in one of `suffixes` are results and no inputs.
        suffixes: ends of the stems of the results.
    """
    from jbid.io.images import list_images

    files: dict[Path, None] = {}
    errors = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            paths = list_images(path)
            if path.resolve() == out.resolve():
                paths = [p for p in paths if not p.stem.endswith(suffixes)]
        elif path.exists() or not glob.has_magic(argument):
            paths = [path]
        else:
            paths = [Path(p) for p in sorted(glob.glob(argument, recursive=True)) if Path(p).is_file()]
        if not paths:
            errors.append(f"{argument}: no images found")
        files |= dict.fromkeys(paths)
    by_stem: dict[str, Path] = {}
    for path in list(files):
        if path.stem in by_stem:
            del files[path]
            first = by_stem[path.stem]
            errors.append(f"{path} and {first} would both be written as {path.stem}{suffixes[0]}. Rename one.")
        by_stem.setdefault(path.stem, path)
    return list(files), errors


def output_suffix(path: Path) -> str:
    """Suffix of a result: TIFF stays TIFF, any other format becomes PNG."""
    return ".tif" if path.suffix.lower() in (".tif", ".tiff") else ".png"


def about(path: Path, error: BaseException | str) -> str:
    """Error message that begins with the path, unless it contains it already."""
    text = str(error)
    return text if str(path) in text else f"{path}: {text}"
