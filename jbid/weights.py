"""Pretrained weights: files of half-precision arrays in a folder, with a manifest that says what each one is."""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

SHIPPED = Path(__file__).parent / "trained"
MANIFEST = "manifest.json"


def folder_of(option: str) -> Path:
    """The folder that the option `weights` names: the shipped one if it is empty."""
    return Path(option) if option else SHIPPED


def manifest(folder: str | Path = SHIPPED) -> dict[str, dict[str, Any]]:
    """What is known of each file in a folder of weights, by the file's name; empty where there is none.

    Each entry has at least `sha256`. Raises ValueError that names a manifest that cannot be read.
    """
    path = Path(folder) / MANIFEST
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not readable as a manifest of weights ({error}){_advice(folder)}") from None


def _advice(folder: str | Path) -> str:
    return "; install jbid again" if Path(folder) == SHIPPED else ""


def checksums(folder: str | Path = SHIPPED) -> dict[str, str]:
    """The SHA-256 of each file of a folder, as its manifest has it."""
    return {name: entry["sha256"] for name, entry in manifest(folder).items()}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        else:
            flat[prefix + name] = np.asarray(value)
    return flat


def pack(variables: Mapping[str, Any]) -> bytes:
    """A network's variables, nested mappings of arrays, as a file's content in half precision; the same each time."""
    out = io.BytesIO()
    # numpy.savez would write the time into the file, and its checksum would tell nothing
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in sorted(_flat(variables).items()):
            array = io.BytesIO()
            np.save(array, value.astype(np.float16))
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), array.getvalue(), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def unpack(content: bytes) -> dict[str, Any]:
    """The variables of `pack`, in single precision."""
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
    content = path.read_bytes()
    return unpack(content) if hashlib.sha256(content).hexdigest() == checksum else None


def load(name: str, folder: str | Path = SHIPPED) -> dict[str, Any]:
    """The variables of the network in `<folder>/<name>.npz`, as nested dicts of float32 arrays; kept in memory.

    Raises ValueError that names the file where it is missing or is not what the manifest says, by its SHA-256.
    """
    path = Path(folder) / f"{name}.npz"
    entry = manifest(folder).get(path.name)
    if entry is None or not path.is_file():
        there = ", ".join(sorted(Path(file).stem for file in manifest(folder))) or "none"
        raise ValueError(f"{path}: no such pretrained weights; there are: {there} (see docs/pretraining.md)")
    variables = _read(path, entry["sha256"])
    if variables is None:
        raise ValueError(f"{path}: damaged, its checksum is not the manifest's{_advice(folder)}")
    return variables


def sizes(kind: str, folder: str | Path = SHIPPED) -> list[int]:
    """The kernel sizes that a folder has networks `<kind>_<size>` for, ascending."""
    stems = [Path(name).stem for name in manifest(folder)]
    return sorted(int(stem.removeprefix(f"{kind}_")) for stem in stems if stem.startswith(f"{kind}_"))


def torch_state(path: str, what: str, key: str | None = None) -> dict[str, np.ndarray]:
    """The arrays of a PyTorch state file, by name; of the part `key` if there is one. Needs PyTorch.

    `what` is what should be in it, for the message of the ValueError where there is no such file or no PyTorch, or
    where it cannot be read.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file of {what} weights")
    try:
        import torch
    except ImportError:
        raise ValueError(f"{path}: reading it needs PyTorch; install jbid[lpips]") from None
    try:
        # trainings keep their arguments beside the weights
        with torch.serialization.safe_globals([argparse.Namespace]):
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get(key, state)
        return {name: value.numpy() for name, value in state.items()}
    except Exception as error:  # torch's errors have no common type
        raise ValueError(f"{path}: not a PyTorch state of {what} ({str(error).splitlines()[0]})") from None


# places of the convolutions in torchvision's `features`, up to relu5_1
_VGG19 = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)


@functools.lru_cache(maxsize=2)
def vgg19(path: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernels (rows, columns, in, out) and biases of VGG19's convolutions up to relu5_1, from torchvision's file.

    `path` is the state that `torchvision.models.vgg19` loads (vgg19-dcbb9e9d.pth). Raises ValueError as `torch_state`,
    and where something else is in it.
    """
    if not path:
        what = "the perceptual loss needs VGG19 weights"
        raise ValueError(f"{what}: add --set vgg=FILE, torchvision's vgg19-dcbb9e9d.pth")
    state = torch_state(path, "VGG19")
    if missing := [i for i in _VGG19 if f"features.{i}.weight" not in state]:
        raise ValueError(f"{path}: not torchvision's VGG19, it has no features.{missing[0]}.weight")
    return [(state[f"features.{i}.weight"].transpose(2, 3, 1, 0), state[f"features.{i}.bias"]) for i in _VGG19]


@functools.lru_cache(maxsize=2)
def stylegan2(path: str) -> dict[str, np.ndarray]:
    """The generator's weights of a StyleGAN2 checkpoint of the PyTorch port, its `g_ema`; `jbid.nets.stylegan2`.

    Raises ValueError as `torch_state`, and where something else is in it.
    """
    if not path:
        raise ValueError("the image manifold needs a generator: add --set generator=FILE, a StyleGAN2 .pt file")
    state = torch_state(path, "StyleGAN2", "g_ema")
    for name in ("input.input", "style.1.weight", "convs.0.conv.weight", "to_rgb1.bias"):
        if name not in state:
            raise ValueError(f"{path}: not a StyleGAN2 generator of the PyTorch port, it has no {name}")
    return state
