"""jbid.io.torch_weights."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import numpy as np


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
