"""AdamW over all parameters, the image backbone with a rate of its own."""

from __future__ import annotations

from typing import Final

from torch import nn
from torch.optim import AdamW

from configs.schema import OptimizerConfig

BACKBONE: Final = "img_backbone."
"""Published name of the image branch, in every family."""
_FUSED_DEVICES: Final = ("cpu", "cuda", "xpu")


def build_optimizer(detector: nn.Module, config: OptimizerConfig, learning_rate: float) -> AdamW:
    """AdamW as published: weight decay on every parameter, norms and biases too.

    Every group keeps its peak rate as `peak_lr`; `set_rate` moves `lr` below it.
    """
    backbone: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            (backbone if name.startswith(BACKBONE) else others).append(parameter)
    rates = ((backbone, learning_rate * config.backbone_multiplier), (others, learning_rate))
    groups = [{"params": members, "lr": rate, "peak_lr": rate} for members, rate in rates if members]
    fused = next(detector.parameters()).device.type in _FUSED_DEVICES
    return AdamW(groups, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=fused)


def set_rate(optimizer: AdamW, factor: float) -> float:
    """Scale every group's peak rate by `factor`; returns the rate of the last group, the one of the heads."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return float(optimizer.param_groups[-1]["lr"])
