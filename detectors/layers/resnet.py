"""Residual image backbones with torchvision's parameter names."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from detectors.layers.conv import BasicBlock, run

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
FINEST_STRIDE = 8


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride), 1x1 convolution with a residual path."""

    def __init__(self, channels_in: int, width: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return torch.relu_(out.add_(identity))


class ResNet(nn.Module):
    """Images `[B, 3, H, W]` to features of stride 8, 16 and 32, `width * expansion * (2, 4, 8)` channels."""

    def __init__(
        self, kind: Literal["resnet18", "resnet50"], width: int, recompute: bool, double_statistics: bool
    ) -> None:
        super().__init__()
        self.recompute, self.double_statistics = recompute, double_statistics
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        expansion = 4 if kind == "resnet50" else 1
        block = Bottleneck if kind == "resnet50" else BasicBlock
        channels_in = width
        for stage, count in enumerate(BLOCKS[kind]):
            stage_width = width * 2**stage
            channels = stage_width * expansion
            blocks: list[nn.Module] = []
            for i in range(count):
                stride = 2 if i == 0 and stage > 0 else 1
                shortcut = _shortcut(channels_in, channels, stride) if stride > 1 or channels_in != channels else None
                blocks.append(block(channels_in, stage_width, stride, shortcut))
                channels_in = channels
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.out_channels = tuple(width * expansion * factor for factor in (2, 4, 8))
        self._initialise()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        features = []
        for stage in range(1, 5):
            for block in self.get_submodule(f"layer{stage}").children():
                x = run(block, x, self.recompute, self.double_statistics)
            features.append(x)
        return features[1], features[2], features[3]

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))
