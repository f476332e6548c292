"""Fingerprints of runs, so that only the same run is ever resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jbid.io.files import read_json
from jbid.io.weights import SHIPPED, checksums, weights_folder
from jbid.pipeline.config import Config, init_names


def fingerprint(*parts: Any) -> str:
    """Short hash of JSON-like values, bytes and arrays; None counts too."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(repr((part.shape, str(part.dtype))).encode() + np.ascontiguousarray(part).tobytes())
        elif isinstance(part, bytes):
            digest.update(part)
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def run_identity(config: Config, *arrays: NDArray | None) -> str:
    """Fingerprint of everything that decides the result of a run: configuration, weights, files and arrays."""
    # the shipped corrector serves folders that have none
    prefixes = config.spec.weight_files + (("corrector",) if "learned" in init_names(config.init) else ())
    folders = (weights_folder(config.options.get("weights", "")), SHIPPED) if prefixes else ()
    weights = [
        {name: checksum for name, checksum in checksums(folder).items() if name.startswith(prefixes)}
        for folder in folders
    ]
    files = [Path(config.options[name]) for name in config.spec.file_options if config.options.get(name)]
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return fingerprint(config._asdict(), weights, contents, *arrays)


def read_resumable(path: Path, settings: Mapping[str, Any], *, resume: bool, overwrite: bool = False) -> dict[str, Any]:
    """Report of an earlier run with the same settings, to be continued; empty if there is none, or without `resume`.

    Raises:
        ValueError: for a report with other settings, unless it may be overwritten.
    """
    report = read_json(path) if resume else {}
    # compared as read from JSON, where tuples are lists
    if report and report.get("settings") != json.loads(json.dumps(settings, default=str)):
        if overwrite:
            return {}
        raise ValueError(
            f"{path}: belongs to a run with other settings or weights. Set `overwrite` to replace it, or another `out`."
        )
    return report
