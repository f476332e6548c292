"""jbid.pipeline.resume."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from jbid.io.files import read_json
from jbid.pipeline.config import Config, init_names


def read_resumable(path: Path, settings: dict[str, Any], resume: bool) -> dict[str, Any]:
    """What a report holds of an earlier run with `settings`, to go on with; empty without `resume` or where none is.

    Raises ValueError for a report with other settings.
    """
    told = read_json(path) if resume else {}
    # as they are read back: tuples are lists there
    if told and told.get("settings") != json.loads(json.dumps(settings)):
        raise ValueError(f"{path}: made with other settings or weights; choose another --out or drop --resume")
    return told


# how the names of the files of weights begin that a method or a start reads
READS = {"gkpile": ("generator",), "explore": ("operator", "lines"), "encoder": ("corrector",)}


def identity(settings: Config, *arrays: np.ndarray | None) -> str:
    """A name for a run by all that decides its result, so that only the same run is ever resumed."""
    from jbid.io.weights import SHIPPED, checksums, weights_folder

    digest = hashlib.sha256(json.dumps(settings._asdict(), sort_keys=True, default=list).encode())
    read = tuple(part for word in (settings.method, *init_names(settings.start)) for part in READS.get(word, ()))
    # the shipped corrector serves folders that have none
    for folder in (weights_folder(settings.options.get("weights", "")), SHIPPED) if read else ():
        known = {name: told for name, told in checksums(folder).items() if name.startswith(read)}
        digest.update(json.dumps(known).encode())
    for name in ("generator", "vgg"):
        if settings.options.get(name):
            digest.update(hashlib.sha256(Path(settings.options[name]).read_bytes()).digest())
    for array in arrays:
        digest.update(b"-" if array is None else repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
