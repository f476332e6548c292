"""Check of the data sets: their files against the checksums of those behind the published scores."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

from jbid.data.tfds import SOURCES, checksums, wrong_files
from jbid.runtime.console import print_error


def run(sets: Sequence[str], data: Path | None) -> int:
    """Compare each file of the sets with its checksum and print the differences.

    Args:
        sets: names of image sets.
        data: folder that holds the sets' folders; None: $JBID_DATA.

    Returns:
        Exit code: 0, or 2 if a file is missing or differs.

    Raises:
        ValueError: for an unknown set.
    """
    unknown = sorted(set(sets) - set(SOURCES))
    if unknown:
        raise ValueError(f"`sets` must be among {', '.join(SOURCES)}, got {unknown[0]}")
    n_errors = 0
    for name in sets:
        try:
            root = import_module(f"jbid.data.{name}").root(data)
        except ValueError as error:
            print_error(f"{name}: {error}. It is published with {SOURCES[name]}")
            n_errors += 1
            continue
        files = list(tqdm(wrong_files(name, root), name, len(checksums(name)), unit="file", leave=False))
        errors = [f"{path}: {error}" for path, error in files if error]
        print(f"{name}: {len(files) - len(errors)} of {len(files)} files are correct")
        for line in errors:
            print_error(f"{name}/{line}")
        n_errors += len(errors)
    return 2 if n_errors else 0
