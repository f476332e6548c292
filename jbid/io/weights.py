"""Pretrained weights: files of half-precision arrays in a folder, with a manifest that describes each."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

SHIPPED = Path(__file__).parents[1] / "trained"
MANIFEST = "manifest.json"


def weights_folder(option: str) -> Path:
    """Folder of the option `weights`; the shipped one if it is empty."""
    return Path(option) if option else SHIPPED


def manifest(folder: str | Path = SHIPPED) -> dict[str, dict[str, Any]]:
    """Manifest of a folder of weights: an entry for each file, with at least `sha256`; empty if there is no manifest.

    Raises:
        ValueError: for a manifest that cannot be read.
    """
    path = Path(folder) / MANIFEST
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not readable as a manifest of weights ({error}){_advice(folder)}") from None


def _advice(folder: str | Path) -> str:
    """End of an error message: a hint on damaged files that jbid ships."""
    return "; install jbid again" if Path(folder) == SHIPPED else ""


def checksums(folder: str | Path = SHIPPED) -> dict[str, str]:
    """SHA-256 of each file of a folder of weights, from its manifest."""
    return {name: entry["sha256"] for name, entry in manifest(folder).items()}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """Arrays of nested mappings, by their paths."""
    flat: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        else:
            flat[prefix + name] = np.asarray(value)
    return flat


def pack(variables: Mapping[str, Any]) -> bytes:
    """Pack the variables of a network, nested mappings of arrays, into the bytes of a file in half precision.

    Equal variables yield equal bytes.
    """
    out = io.BytesIO()
    # numpy.savez would write the time into the file, so that equal weights had different checksums
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in sorted(_flat(variables).items()):
            array = io.BytesIO()
            np.save(array, value.astype(np.float16))
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), array.getvalue(), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def unpack(content: bytes) -> dict[str, Any]:
    """Unpack the variables of `pack`, in single precision."""
    variables: dict[str, Any] = {}
    with np.load(io.BytesIO(content)) as arrays:
        for name in arrays.files:
            *path, last = name.split("/")
            inner = variables
            for part in path:
                inner = inner.setdefault(part, {})
            inner[last] = arrays[name].astype(np.float32)
    return variables


@functools.lru_cache(maxsize=16)
def _read(path: Path, checksum: str) -> dict[str, Any] | None:
    """Variables of a file; None if its SHA-256 differs from `checksum`."""
    content = path.read_bytes()
    return unpack(content) if hashlib.sha256(content).hexdigest() == checksum else None


def load(name: str, folder: str | Path = SHIPPED) -> dict[str, Any]:
    """Load the variables of a network from `<folder>/<name>.npz`, as nested dicts of float32 arrays; kept in memory.

    Raises:
        ValueError: if the file is missing, or its SHA-256 differs from that of the manifest.
    """
    path = Path(folder) / f"{name}.npz"
    entry = manifest(folder).get(path.name)
    if entry is None or not path.is_file():
        stems = ", ".join(sorted(Path(file).stem for file in manifest(folder))) or "none"
        raise ValueError(f"{path}: no such pretrained weights; there are: {stems} (see docs/pretraining.md)")
    variables = _read(path, entry["sha256"])
    if variables is None:
        raise ValueError(f"{path}: damaged, its checksum differs from the manifest's{_advice(folder)}")
    return variables


def sizes(kind: str, folder: str | Path = SHIPPED) -> list[int]:
    """Kernel sizes of the networks `<kind>_<size>` in a folder of weights, ascending."""
    stems = [Path(name).stem for name in manifest(folder)]
    return sorted(int(stem.removeprefix(f"{kind}_")) for stem in stems if stem.startswith(f"{kind}_"))
