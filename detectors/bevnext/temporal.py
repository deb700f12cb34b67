"""Fusing the BEV maps of several frames, and the Res2Net that encodes what they become (stage 2).

Shape legend: B batch, T frames (0 is the key frame), C BEV channels, Y X BEV cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

SCALES = 4
"""Parts that a Res2Net block splits its channels into."""
NARROWING = 8
"""Channels that leave a Res2Net block, over those of one part."""


class TemporalFusion(nn.Module):
    """BEV maps of all frames `[B, T*C, Y, X]`, the key frame first, to one `[B, C', Y, X]`.

    Every group of consecutive frames is narrowed on its own. The oldest group is encoded, added to the next younger
    one, encoded again and so on; what the steps gave and the youngest group are mixed by a 1x1 convolution.
    """

    def __init__(self, channels_in: int, channels_out: int, groups: int, width: int) -> None:
        super().__init__()
        self.groups = groups
        # The order of these lines is the order of parameters in published files.
        self.conv1 = nn.Conv2d(channels_in, groups * width, 1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm2d(groups * width)
        self.conv3 = nn.Conv2d(groups * width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.convs, self.bns = _branches(groups - 1, width, stride=1)

    def forward(self, frames: Tensor) -> Tensor:
        *later, oldest = self.bn1(self.conv1(frames)).relu_().chunk(self.groups, 1)
        joined, carried = [], oldest
        for i, (conv, bn) in enumerate(zip(self.convs, self.bns, strict=True)):
            carried = bn(conv(carried if i == 0 else carried + later.pop())).relu_()
            joined.append(carried)
        out: Tensor = self.bn3(self.conv3(torch.cat([*joined, *later], 1))).relu_()
        return out


class Res2Block(nn.Module):
    """Bottleneck whose 3x3 convolution is a row of small ones over parts of the channels (Res2Net, arXiv 1904.01169).

    With a stride, the parts are encoded independently and the last one is pooled; without, each part is added to what
    the one before gave, and the last one passes.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        width = channels_out // NARROWING
        self.conv1 = nn.Conv2d(channels_in, SCALES * width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(SCALES * width)
        self.conv3 = nn.Conv2d(SCALES * width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.downsample = _shortcut(channels_in, channels_out, stride) if stride > 1 else None
        self.convs, self.bns = _branches(SCALES - 1, width, stride)
        self.pool = nn.AvgPool2d(3, stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        *parts, last = self.bn1(self.conv1(x)).relu_().chunk(SCALES, 1)
        encoded: list[Tensor] = []
        for part, conv, bn in zip(parts, self.convs, self.bns, strict=True):
            carried = part + encoded[-1] if encoded and self.downsample is None else part
            encoded.append(bn(conv(carried)).relu_())
        encoded.append(last if self.downsample is None else self.pool(last))
        out = self.bn3(self.conv3(torch.cat(encoded, 1)))
        return torch.relu_(out.add_(identity))


class FusingBevBackbone(nn.Module):
    """BEV maps of all frames `[B, T*C, Y, X]` to one map per stage, each half as fine as the one before."""

    def __init__(self, fusion: TemporalFusion, channels: int, stage_channels: Sequence[int], blocks: Sequence[int]):
        super().__init__()
        self.layers = nn.ModuleList()
        for stage, count in zip(stage_channels, blocks, strict=True):
            plain = (Res2Block(stage, stage, stride=1) for _ in range(count - 1))
            # A sequence in a sequence: published names have one more number than the stages need.
            self.layers.append(nn.Sequential(nn.Sequential(Res2Block(channels, stage, stride=2), *plain)))
            channels = stage
        self.fusion_layer = fusion

    def forward(self, frames: Tensor) -> list[Tensor]:
        bev = self.fusion_layer(frames)
        maps = []
        for stage in self.layers:
            bev = stage(bev)
            maps.append(bev)
        return maps


def _branches(count: int, width: int, stride: int) -> tuple[nn.ModuleList, nn.ModuleList]:
    convs = nn.ModuleList(nn.Conv2d(width, width, 3, stride, padding=1, bias=False) for _ in range(count))
    return convs, nn.ModuleList(nn.BatchNorm2d(width) for _ in range(count))


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
        nn.Conv2d(channels_in, channels_out, 1, bias=False),
        nn.BatchNorm2d(channels_out),
    )
