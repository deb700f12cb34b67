"""Depth and context from image features, both gated by the camera's parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from configs.schema import BEVNeXtConfig
from detectors.bevnext.grid import DepthBins
from detectors.layers.conv import BasicBlock, run
from detectors.ops.deform_conv import DeformConv

CAMERA_NUMBERS = 27
ATROUS_RATES = (6, 12, 18)
CONTEXT_GROUPS = 4


class CameraMlp(nn.Module):
    """Camera vector `[M, 27]` to one gate input per channel `[M, C, 1, 1]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(CAMERA_NUMBERS, channels)
        self.fc2 = nn.Linear(channels, channels)

    def forward(self, vector: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.fc1(vector).relu())
        return out[:, :, None, None]


class CameraGate(nn.Module):
    """Scale the channels of a map by what the camera vector says (squeeze and excitation)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, channels, 1)
        self.conv_expand = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, camera: Tensor) -> Tensor:
        gate: Tensor = self.conv_expand(self.conv_reduce(camera).relu()).sigmoid()
        return x * gate


class AtrousBranch(nn.Module):
    """1x1 (rate 1) or dilated 3x3 convolution, batch normalisation, ReLU."""

    def __init__(self, channels: int, rate: int) -> None:
        super().__init__()
        kernel, padding = (1, 0) if rate == 1 else (3, rate)
        self.atrous_conv = nn.Conv2d(channels, channels, kernel, padding=padding, dilation=rate, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.atrous_conv(x)).relu_()
        return out


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling (DeepLab): five views of different reach, joined by a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.aspp1 = AtrousBranch(channels, 1)
        self.aspp2, self.aspp3, self.aspp4 = (AtrousBranch(channels, rate) for rate in ATROUS_RATES)
        self.global_avg_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.conv1 = nn.Conv2d(5 * channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(0.5)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        whole_image = self.global_avg_pool(x).expand_as(x)
        views = torch.cat([self.aspp1(x), self.aspp2(x), self.aspp3(x), self.aspp4(x), whole_image], 1)
        out: Tensor = self.dropout(self.bn1(self.conv1(views)).relu())
        return out


class DepthNet(nn.Module):
    """Image features `[M, C', h, w]` and camera vectors `[M, 27]` to depth logits and context features.

    Returns logits `[M, D, h, w]` and context `[M, C, h, w]`.
    """

    def __init__(self, model: BEVNeXtConfig) -> None:
        super().__init__()
        mid, bins = model.depth.channels, DepthBins.of(model.depth).count
        self.recompute, self.double_statistics = model.depth.checkpointing, model.double_statistics
        self.reduce_conv = nn.Sequential(
            nn.Conv2d(model.neck_channels, mid, 3, padding=1), nn.BatchNorm2d(mid), nn.ReLU(inplace=True)
        )
        self.bn = nn.BatchNorm1d(CAMERA_NUMBERS)
        self.depth_mlp = CameraMlp(mid)
        self.depth_se = CameraGate(mid)
        self.context_mlp = CameraMlp(mid)
        self.context_se = CameraGate(mid)
        self.depth_conv = nn.Sequential(
            BasicBlock(mid, mid),
            BasicBlock(mid, mid),
            BasicBlock(mid, mid),
            AtrousPyramid(mid),
            nn.Conv2d(mid, bins, 1),
        )
        self.context_conv = nn.Sequential(
            DeformConv(mid, CONTEXT_GROUPS),
            nn.BatchNorm2d(mid),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid, model.bev.channels, 1),
        )

    def forward(self, features: Tensor, cameras: Tensor) -> tuple[Tensor, Tensor]:
        cameras = self.bn(cameras.to(self.bn.weight.dtype))
        features = self.reduce_conv(features)
        context = self.context_conv(self.context_se(features, self.context_mlp(cameras)))
        depth = self.depth_se(features, self.depth_mlp(cameras))
        for block in self.depth_conv:
            depth = run(block, depth, self.recompute, self.double_statistics)
        return depth, context
