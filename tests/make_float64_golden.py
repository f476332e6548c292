"""Makes tests/golden/float64.npz: the golden cases again, by the plain PyTorch version in float64.

    python -m tests.make_float64_golden        (needs the `bench` extra)

The authors' numbers are float32 and carry its rounding, which Adam amplifies; these do not (docs/development-notes.md).
The PyTorch version follows the authors' float32 numbers to 2e-6 when run in float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.torch_reference import Skip, kernel_mlp, ssim
from tests.torch_names import skip_params

GOLDEN = Path(__file__).parent / "golden"


def loaded(weights: dict[str, np.ndarray], scales: int, channels: int, c_out: int) -> Skip:
    net = Skip(channels, 4, scales, 8, c_out, linear=False).double()
    params = skip_params(weights, scales)["params"]

    def conv(layer, source):
        layer = next(m for m in layer.modules() if isinstance(m, torch.nn.Conv2d))
        layer.weight.data = torch.tensor(np.asarray(source["weight"]).transpose(3, 2, 0, 1)).double().contiguous()
        layer.bias.data = torch.tensor(np.asarray(source["bias"])).double()

    def norm(layer, source):
        layer.weight.data = torch.tensor(np.asarray(source["scale"])).double()
        layer.bias.data = torch.tensor(np.asarray(source["bias"])).double()

    for i in range(scales):
        for name in ("skip", "down", "deep", "up", "mix"):
            unit = getattr(net, name)[i]
            conv(unit[0], params[f"{name}{i}"])
            norm(unit[1], params[f"{name}{i}_norm"])
        norm(net.merge[i], params[f"merge{i}_norm"])
        if f"non_local{i}" in params:
            block, source = net.attend[i], params[f"non_local{i}"]
            for name in ("theta", "phi", "g", "out"):
                conv(getattr(block, name), source[name])
            norm(block.norm, source["norm"])
    conv(net.head, params["head"])
    return net


def gradient(name: str, scales: int, channels: int, c_out: int) -> np.ndarray:
    data = np.load(GOLDEN / f"{name}.npz")
    net = loaded({k[2:]: data[k] for k in data.files if k.startswith("w:")}, scales, channels, c_out)
    z = torch.tensor(data["z"]).double().requires_grad_()
    (net(z) ** 2).sum().backward()
    return z.grad.numpy()


def trajectory() -> np.ndarray:
    data = np.load(GOLDEN / "selfdeblur_trajectory.npz")
    net = loaded({k[2:]: data[k] for k in data.files if k.startswith("x:")}, 3, 8, 1)
    mlp = kernel_mlp(9).double()
    for layer, name in ((mlp[0], "1"), (mlp[2], "3")):
        layer.weight.data = torch.tensor(data[f"k:{name}.weight"]).double()
        layer.bias.data = torch.tensor(data[f"k:{name}.bias"]).double()
    tx = torch.optim.Adam([{"params": net.parameters()}, {"params": mlp.parameters()}])
    z, zk, y = (torch.tensor(data[k]).double() for k in ("z", "zk", "y"))
    told = []
    for t, rates in enumerate((1e-2 * 0.5 ** (t // 10), 1e-4 * 0.5 ** (t // 10)) for t in range(30)):
        for group, rate in zip(tx.param_groups, rates):
            group["lr"] = rate
        tx.zero_grad()
        reblurred = F.conv2d(net(z), mlp(zk).view(1, 1, 9, 9))
        loss = F.mse_loss(reblurred, y[None, None]) if t < 15 else 1 - ssim(reblurred, y[None, None])
        loss.backward()
        tx.step()
        told.append(loss.item())
    return np.array(told)


if __name__ == "__main__":
    np.savez_compressed(
        GOLDEN / "float64.npz",
        skip_net_a_grad_z=gradient("skip_net_a", 3, 8, 1),
        skip_net_b_grad_z=gradient("skip_net_b", 5, 12, 3),
        trajectory_loss=trajectory(),
    )
