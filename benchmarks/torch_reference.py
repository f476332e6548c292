"""SelfDeblur's networks and one joint step in plain PyTorch: what `step_time.py` times jbid against.

Written for this benchmark from the description of the architecture; it needs the `bench` extra.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def conv(c_in: int, c_out: int, size: int, stride: int = 1) -> nn.Module:
    pad = (size - 1) // 2
    layer = nn.Conv2d(c_in, c_out, size, stride)
    return nn.Sequential(nn.ReflectionPad2d(pad), layer) if pad else layer


class NonLocal(nn.Module):
    def __init__(self, c: int, linear: bool):
        super().__init__()
        self.theta, self.phi, self.g = (nn.Conv2d(c, c // 2, 1) for _ in range(3))
        self.out, self.norm = nn.Conv2d(c // 2, c, 1), nn.BatchNorm2d(c)
        nn.init.zeros_(self.norm.weight)
        self.linear = linear

    def forward(self, x):
        n, _, h, w = x.shape
        theta = self.theta(x).flatten(2).transpose(1, 2)
        phi = F.max_pool2d(self.phi(x), 2).flatten(2)
        g = F.max_pool2d(self.g(x), 2).flatten(2).transpose(1, 2)
        # `linear` forms the small matrix first, as jbid does; otherwise the whole attention map, as published
        y = theta @ (phi @ g) if self.linear else (theta @ phi) @ g
        y = (y / phi.shape[-1]).transpose(1, 2).reshape(n, -1, h, w)
        return x + self.norm(self.out(y))


class Skip(nn.Module):
    def __init__(self, channels=128, skip_channels=16, scales=5, c_in=8, c_out=1, non_local_from=2, linear=True):
        super().__init__()

        def unit(a, b, size, stride=1):
            return nn.Sequential(conv(a, b, size, stride), nn.BatchNorm2d(b), nn.LeakyReLU(0.2))

        def attention(i):
            return NonLocal(channels, linear) if i >= non_local_from else nn.Identity()

        ins = [c_in] + [channels] * (scales - 1)
        merged = channels + skip_channels
        self.skip = nn.ModuleList(unit(c, skip_channels, 1) for c in ins)
        self.down = nn.ModuleList(unit(c, channels, 3, 2) for c in ins)
        self.attend = nn.ModuleList(attention(i) for i in range(scales))
        self.deep = nn.ModuleList(unit(channels, channels, 3) for _ in ins)
        self.merge = nn.ModuleList(nn.BatchNorm2d(merged) for _ in ins)
        self.up = nn.ModuleList(unit(merged, channels, 3) for _ in ins)
        self.mix = nn.ModuleList(unit(channels, channels, 1) for _ in ins)
        self.head = nn.Conv2d(channels, c_out, 1)

    def scale(self, x, i):
        y = self.deep[i](self.attend[i](self.down[i](x)))
        if i + 1 < len(self.deep):
            y = self.scale(y, i + 1)
        y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)[..., : x.shape[2], : x.shape[3]]
        return self.mix[i](self.up[i](self.merge[i](torch.cat([self.skip[i](x), y], 1))))

    def forward(self, z):
        return torch.sigmoid(self.head(self.scale(z, 0)))


def kernel_mlp(size: int) -> nn.Module:
    return nn.Sequential(nn.Linear(200, 1000), nn.ReLU6(), nn.Linear(1000, size * size), nn.Softmax(-1))


def ssim(a, b):
    t = torch.arange(11, dtype=a.dtype, device=a.device) - 5
    g = torch.exp(-(t**2) / (2 * 1.5**2))
    window = torch.outer(g, g)[None, None] / g.sum() ** 2
    ma, mb, aa, bb, ab = (F.conv2d(v, window, padding=5) for v in (a, b, a * a, b * b, a * b))
    va, vb, cov = aa - ma * ma, bb - mb * mb, ab - ma * mb
    c1, c2 = 1e-4, 9e-4
    return (((2 * ma * mb + c1) * (2 * cov + c2)) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean()


class Step:
    """One joint step on `blurred` (1, 1, h, w): forward, backward and Adam; `autocast` is a dtype or None."""

    def __init__(
        self, blurred, size: int, *, channels: int, loss: str, autocast=None, linear=True, channels_last=False
    ):
        _, _, h, w = blurred.shape
        device = blurred.device
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.image = Skip(channels, linear=linear).to(device, memory_format=layout)
        self.kernel = kernel_mlp(size).to(device)
        self.z = (0.1 * torch.rand(1, 8, h + size - 1, w + size - 1, device=device)).contiguous(memory_format=layout)
        self.zk = 0.1 * torch.rand(200, device=device)
        self.blurred, self.size, self.loss, self.autocast = blurred, size, loss, autocast
        groups = [{"params": self.image.parameters(), "lr": 1e-2}, {"params": self.kernel.parameters(), "lr": 1e-4}]
        self.tx = torch.optim.Adam(groups)

    def __call__(self) -> float:
        self.tx.zero_grad()
        with torch.autocast(self.blurred.device.type, self.autocast, enabled=self.autocast is not None):
            x = self.image(self.z + 1e-3 * torch.randn_like(self.z))
        k = self.kernel(self.zk).view(1, 1, self.size, self.size)
        y = F.conv2d(x.float(), k)
        loss = F.mse_loss(y, self.blurred) if self.loss == "mse" else 1 - ssim(y, self.blurred)
        loss.backward()
        self.tx.step()
        return loss.item()
