"""Residual BEV backbone and the pyramid that joins its finest and coarsest maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detectors.layers.conv import BasicBlock


class BevBackbone(nn.Module):
    """Stages of basic blocks; the first block of each has a 3x3 convolution with bias on its residual path.

    `[B, C, Y, X]` to one map per stage, each `stride` times coarser than the one before.
    """

    def __init__(self, channels_in: int, stage_channels: Sequence[int], blocks: Sequence[int], stride: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for channels, count in zip(stage_channels, blocks, strict=True):
            shortcut = nn.Conv2d(channels_in, channels, 3, stride, padding=1)
            first = BasicBlock(channels_in, channels, stride, shortcut)
            self.layers.append(nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(count - 1))))
            channels_in = channels

    def forward(self, bev: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.layers:
            bev = stage(bev)
            maps.append(bev)
        return maps


class BevNeck(nn.Module):
    """Finest (half the raster's resolution) and coarsest map to one map `[B, C, Y, X]` of the raster's resolution."""

    def __init__(self, channels_in: int, channels: int, channels_out: int) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=True)
        self.conv = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        self.up2 = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(channels, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 1),
        )

    def forward(self, finest: Tensor, coarsest: Tensor) -> Tensor:
        out: Tensor = self.up2(self.conv(torch.cat([finest, self.up(coarsest)], 1)))
        return out
