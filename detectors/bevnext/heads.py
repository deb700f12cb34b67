"""Centre heads: class heat maps from the BEV features, boxes from the refined ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from configs.schema import HeadConfig
from detectors.bevnext.tasks import REGRESSIONS, TASKS
from detectors.layers.conv import ConvNormReLU


class CenterHead(nn.Module):
    """A shared convolution, then per task one small branch per output.

    `outputs` gives, per task, branch names and channels; the result is, per task, the branches' maps side by side,
    `[B, sum of channels, Y, X]`.
    """

    def __init__(self, channels_in: int, channels: int, outputs: list[dict[str, int]]) -> None:
        super().__init__()
        self.shared_conv = ConvNormReLU(channels_in, channels)
        self.task_heads = nn.ModuleList(
            nn.ModuleDict({name: _branch(channels, count) for name, count in branches.items()}) for branches in outputs
        )

    def forward(self, bev: Tensor) -> list[Tensor]:
        shared = self.shared_conv(bev)
        return [torch.cat([branch(shared) for branch in task.children()], 1) for task in self.task_heads]


def proposal_head(channels_in: int, config: HeadConfig) -> CenterHead:
    """Head for class heat maps (logits), one map per class of a task."""
    head = CenterHead(channels_in, config.channels, [{"heatmap": len(task.classes)} for task in TASKS])
    if config.heatmap_bias is not None:
        for t in range(len(TASKS)):
            nn.init.constant_(head.get_parameter(f"task_heads.{t}.heatmap.1.bias"), config.heatmap_bias)
    return head


def box_head(channels_in: int, config: HeadConfig) -> CenterHead:
    """Head for boxes: ten maps per task in the order of `tasks.REGRESSIONS`."""
    return CenterHead(channels_in, config.channels, [REGRESSIONS for _ in TASKS])


def _branch(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(ConvNormReLU(channels, channels), nn.Conv2d(channels, count, 3, padding=1))
