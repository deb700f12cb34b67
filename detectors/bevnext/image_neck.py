"""Feature pyramid over the image backbone, of which only the finest level is made."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import interpolate


class PlainConv(nn.Module):
    """A convolution with bias under the published name `conv`, Xavier-initialised."""

    def __init__(self, channels_in: int, channels_out: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel_size, padding=kernel_size // 2)
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class ImageNeck(nn.Module):
    """Maps of stride 8, 16, 32 to one map `[M, C, h, w]` of stride 8, coarse levels added by nearest upsampling."""

    def __init__(self, channels_in: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(PlainConv(c, channels, 1) for c in channels_in)
        self.fpn_convs = nn.ModuleList([PlainConv(channels, channels, 3)])

    def forward(self, levels: tuple[Tensor, ...]) -> Tensor:
        laterals = [conv(level) for conv, level in zip(self.lateral_convs, levels, strict=True)]
        merged = laterals.pop()
        while laterals:
            finer = laterals.pop()
            merged = finer + interpolate(merged, size=finer.shape[2:])
        out: Tensor = self.fpn_convs[0](merged)
        return out
