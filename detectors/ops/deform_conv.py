"""Deformable convolution (version 1: learned offsets, no modulation)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from detectors.layers.precision import at_least_float32


class DeformConv(nn.Module):
    """3x3 deformable convolution without bias; `conv_offset` predicts (dy, dx) in pixels for each of the nine taps.

    Offsets start at zero. Names and grouping are those of mmcv's `DeformConv2dPack` with one offset group.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels // groups, 3, 3))
        self.conv_offset = nn.Conv2d(channels, 2 * 9, 3, padding=1)
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        offset = self.conv_offset(x)
        # The kernel has no reduced-precision variant on every device.
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = deform_conv2d(at_least_float32(x), at_least_float32(offset), self.weight, padding=1)
        return out
