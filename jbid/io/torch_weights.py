"""Weights of published PyTorch networks, as NumPy arrays. Reading them needs PyTorch."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import numpy as np

# positions of the convolutions in torchvision's `features`, up to relu5_1
_VGG19 = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)


def torch_state(path: str, network: str, key: str | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of a PyTorch state file, by name.

    Args:
        path: of the file.
        network: name of the network, for error messages.
        key: part of the file to read, if the file has it.

    Raises:
        ValueError: if the file or PyTorch is missing, or the file is no PyTorch state.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file of {network} weights")
    try:
        import torch
    except ImportError:
        raise ValueError(f"{path}: reading it needs PyTorch; install jbid[lpips]") from None
    try:
        # training scripts store their arguments beside the weights
        with torch.serialization.safe_globals([argparse.Namespace]):
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get(key, state)
        return {name: value.numpy() for name, value in state.items()}
    except Exception as error:  # torch's errors have no common type
        raise ValueError(f"{path}: not a PyTorch state of {network} ({str(error).splitlines()[0]})") from None


@functools.lru_cache(maxsize=2)
def vgg19(path: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read kernels (rows, columns, in, out) and biases of VGG19's convolutions up to relu5_1.

    Args:
        path: torchvision's vgg19-dcbb9e9d.pth, the state that `torchvision.models.vgg19` loads.

    Raises:
        ValueError: as `torch_state`, and for the weights of another network.
    """
    if not path:
        raise ValueError("`vgg` must be the file of torchvision's VGG19 weights, vgg19-dcbb9e9d.pth, got none")
    state = torch_state(path, "VGG19")
    if missing := [i for i in _VGG19 if f"features.{i}.weight" not in state]:
        raise ValueError(f"{path}: not torchvision's VGG19, it has no features.{missing[0]}.weight")
    return [(state[f"features.{i}.weight"].transpose(2, 3, 1, 0), state[f"features.{i}.bias"]) for i in _VGG19]


@functools.lru_cache(maxsize=2)
def stylegan2(path: str) -> dict[str, np.ndarray]:
    """Read the generator of a StyleGAN2 checkpoint of the PyTorch port, its `g_ema`, for `jbid.nets.stylegan2`.

    Args:
        path: a .pt file.

    Raises:
        ValueError: as `torch_state`, and for the weights of another network.
    """
    if not path:
        raise ValueError("`generator` must be a StyleGAN2 checkpoint, a .pt file, got none")
    state = torch_state(path, "StyleGAN2", "g_ema")
    for name in ("input.input", "style.1.weight", "convs.0.conv.weight", "to_rgb1.bias"):
        if name not in state:
            raise ValueError(f"{path}: not a StyleGAN2 generator of the PyTorch port, it has no {name}")
    return state
