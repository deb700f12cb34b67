"""AdamW over all parameters, the image backbone and SAM 2 with rates of their own."""

from __future__ import annotations

from typing import Final

from torch import nn
from torch.optim import AdamW

from configs.schema import OptimizerConfig, Sam2Config
from integration.sam_features import TRAINED_LATER

BACKBONE: Final = "img_backbone."
"""Published name of the image branch, in every family."""
_FUSED_DEVICES: Final = ("cpu", "cuda", "xpu")


def build_optimizer(
    detector: nn.Module, config: OptimizerConfig, learning_rate: float, sam2: Sam2Config | None = None
) -> AdamW:
    """AdamW as published: weight decay on every parameter, norms and biases too.

    Every group keeps its peak rate as `peak_lr`; `set_rate` moves `lr` below it. Parameters of SAM 2 that train from an
    epoch on are in a group from the beginning: without gradient the optimiser passes them over.
    """
    backbone: list[nn.Parameter] = []
    later: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in detector.named_parameters():
        if name.startswith(TRAINED_LATER):
            later.append(parameter)
        elif parameter.requires_grad:
            (backbone if name.startswith(BACKBONE) else others).append(parameter)
    rates = (
        (backbone, learning_rate * config.backbone_multiplier),
        (later, learning_rate * (sam2.unfreeze_multiplier if sam2 else 1.0)),
        (others, learning_rate),
    )
    groups = [{"params": members, "lr": rate, "peak_lr": rate} for members, rate in rates if members]
    fused = next(detector.parameters()).device.type in _FUSED_DEVICES
    return AdamW(groups, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=fused)


def set_rate(optimizer: AdamW, factor: float) -> float:
    """Scale every group's peak rate by `factor`; returns the rate of the last group, the one of the heads."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return float(optimizer.param_groups[-1]["lr"])
