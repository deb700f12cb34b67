"""Deformable convolution (version 1: learned offsets, no modulation)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag
from torchvision.ops import deform_conv2d

from detectors.layers.precision import at_least_float32

TAPS = 9


class DeformConv(nn.Module):
    """3x3 deformable convolution without bias; `conv_offset` predicts (dy, dx) in pixels for each of the nine taps.

    Offsets start at zero. Names and grouping are those of mmcv's `DeformConv2dPack` with one offset group.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels // groups, 3, 3))
        self.conv_offset = nn.Conv2d(channels, 2 * TAPS, 3, padding=1)
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        offset = self.conv_offset(x)
        with torch.autocast(x.device.type, enabled=False):
            return deform_conv(at_least_float32(x), at_least_float32(offset), self.weight)


def deform_conv(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """`x` `[M, C, h, w]` with `offset` `[M, 18, h, w]` and `weight` `[C', C/groups, 3, 3]` to `[M, C', h, w]`.

    torchvision's kernel on accelerators; on a CPU, where its backward pass takes about nine times as long,
    bilinear samples gathered by `embedding_bag`.
    """
    if x.device.type != "cpu":
        out: Tensor = deform_conv2d(x, offset, weight, padding=1)
        return out
    return deform_conv_by_gathering(x, offset, weight)


def deform_conv_by_gathering(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """As `deform_conv`: sample all taps of all pixels first, then one matrix product per group."""
    images, channels, h, w = x.shape
    groups = channels // weight.shape[1]
    dy, dx = offset.reshape(images, TAPS, 2, h, w).permute(2, 0, 3, 4, 1)
    tap = torch.arange(TAPS, device=x.device)
    y = dy + (torch.arange(h, device=x.device)[:, None, None] + tap // 3 - 1)
    x_position = dx + (torch.arange(w, device=x.device)[:, None] + tap % 3 - 1)

    rows, weights = _bilinear_corners(y, x_position, h, w)
    image = torch.arange(images, dtype=torch.int32, device=x.device) * (h * w)
    rows = rows + image[:, None, None, None, None]
    table = x.permute(0, 2, 3, 1).reshape(-1, channels)
    samples = embedding_bag(rows.flatten(0, 3), table, per_sample_weights=weights.flatten(0, 3), mode="sum")

    samples = samples.view(images * h * w, TAPS, groups, -1).permute(2, 0, 3, 1).flatten(2)
    kernel = weight.reshape(groups, weight.shape[0] // groups, -1).transpose(1, 2)
    return torch.bmm(samples, kernel).transpose(0, 1).reshape(images, h, w, -1).permute(0, 3, 1, 2)


def _bilinear_corners(y: Tensor, x: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
    """int32 pixel index and weight of the four pixels around each position, `[..., 4]`; weight 0 outside the map."""
    top, left = y.detach().floor(), x.detach().floor()
    down, right = y - top, x - left
    rows, weights = [], []
    for row, share_y in ((top, 1 - down), (top + 1, down)):
        for column, share_x in ((left, 1 - right), (left + 1, right)):
            inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
            rows.append((row.clamp(0, h - 1) * w + column.clamp(0, w - 1)).int())
            weights.append(share_y * share_x * inside)
    return torch.stack(rows, -1), torch.stack(weights, -1)
