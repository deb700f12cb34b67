"""Losses of BEVNeXt, each divided by counts of positives that the caller may sum over the whole optimiser step.

Published: every rank divides by the mean count over ranks, and gradients are averaged over ranks. That equals the sum
over ranks divided by the total count, which is what a whole-step count with summed gradients gives.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from detectors.bevnext.grid import DepthBins
from detectors.bevnext.targets import ObjectTargets

EPS: Final = torch.finfo(torch.float32).eps
REGRESSION_TERMS: Final = {
    "xy": slice(0, 2),
    "z": slice(2, 3),
    "whl": slice(3, 6),
    "yaw": slice(6, 8),
    "vel": slice(8, 10),
}


def depth_bins(depth: Tensor, bins: DepthBins) -> Tensor:
    """Position of a depth (metres, 0 where unknown) in bins, counted from 1; 0 where unknown or out of range."""
    position = (depth - (bins.lower - bins.step)) / bins.step
    known = (depth > 0) & (position >= 0) & (position < bins.count + 1)
    return position.where(known, 0.0)


def depth_foreground(depth: Tensor, bins: DepthBins) -> Tensor:
    """bool: whether a depth falls into a bin."""
    return depth_bins(depth, bins) >= 1


def depth_loss(probability: Tensor, depth: Tensor, bins: DepthBins, count: Tensor) -> Tensor:
    """Binary cross-entropy of every bin at cells of known depth, over `max(1, count)`.

    Args: `probability` `[M, D, h, w]`, `depth` `[M, h, w]` metres (0 where unknown), `count` cells of known depth.
    """
    position = depth_bins(depth, bins)
    index = position.long() - 1
    known = (index >= 0).unsqueeze(1)
    truth = index.unsqueeze(1) == torch.arange(bins.count, device=index.device)[:, None, None]
    entropy = binary_cross_entropy(probability, truth.to(probability), weight=known.to(probability), reduction="sum")
    return entropy / count.clamp(min=1.0)


def heatmap_loss(logits: Tensor, target: Tensor, count: Tensor) -> Tensor:
    """Gaussian focal loss (CornerNet, alpha 2, gamma 4) over `max(1, count)`; maps `[B, classes, Y, X]`."""
    p = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    positive = -(p + 1e-12).log() * (1 - p) ** 2 * (target == 1)
    negative = -(1 - p + 1e-12).log() * p**2 * (1 - target) ** 4
    return (positive + negative).sum() / (count.clamp(min=1.0) + EPS)


def box_losses(
    maps: Tensor, targets: ObjectTargets, in_task: Tensor, count: Tensor, velocity_weight: float
) -> dict[str, Tensor]:
    """L1 distance at the objects' cells, one term per kind of number, over the number of objects.

    Args: `maps` `[B, 10, Y, X]`; `in_task` bool `[M]`, objects that this task's head answers for.
    """
    predicted = maps[targets.sample, :, targets.row, targets.column]
    distance = (predicted - targets.regression).abs() * (targets.counted & in_task)[:, None]
    average = count.clamp(min=1e-4) + 1e-4 + EPS
    weights = {"vel": velocity_weight}
    return {
        name: distance[:, numbers].sum() * weights.get(name, 1.0) / average
        for name, numbers in REGRESSION_TERMS.items()
    }
