"""Convolution blocks with the parameter names of the published models."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from detectors.layers.batch_statistics import counted_twice, not_counted


class ConvNormReLU(nn.Module):
    """Convolution without bias, batch normalisation, ReLU: `[B, C, H, W]` to `[B, C', H, W]`.

    The convolution starts from a He normal (fan-out) distribution, as `ConvModule` of the published code does.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel_size, padding=kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a residual path, which `downsample` adapts where shapes differ."""

    def __init__(
        self, channels_in: int, channels_out: int, stride: int = 1, downsample: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return torch.relu_(out.add_(identity))


def run(block: nn.Module, x: Tensor, recompute: bool, twice: bool) -> Tensor:
    """`block(x)`; with `recompute`, its activations are computed again in the backward pass instead of kept.

    With `twice`, batch statistics of the block count twice, as if it had been recomputed in train mode like the
    published one (momentum 0.19 instead of 0.1). Passes without gradient count once in any case.
    """
    out: Tensor
    learns = block.training and x.requires_grad
    if learns and recompute:
        again = nullcontext if twice else partial(not_counted, block)
        out = checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), again()))
    else:
        with counted_twice(block) if learns and twice else nullcontext():
            out = block(x)
    return out
