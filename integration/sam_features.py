"""Features of SAM 2's image encoder for the image branch of any detector.

They enter in the image plane, camera by camera, before anything is lifted, through adapters whose last layer is zero:
at step 0 the detector is exactly the plain one.

Shape legend: M images, H W their size, C channels, h w the size of a feature map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from configs.errors import UsageError
from integration.frozen import Frozen

TRUNK_STRIDES: Final = (4, 8, 16, 32)
_GROUPS: Final = 8


class Adapter(nn.Module):
    """A map of SAM 2 `[M, C_sam, h, w]` to what is added to the detector's map `[M, C, h, w]`; zero at first."""

    def __init__(self, channels_in: int, width: int, channels_out: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels_in)
        self.narrow = nn.Sequential(nn.Conv2d(channels_in, width, 1), nn.GroupNorm(_GROUPS, width), nn.GELU())
        self.mix = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.widen = nn.Conv2d(width, channels_out, 1)
        self.gate = nn.Parameter(torch.ones(channels_out, 1, 1))
        nn.init.zeros_(self.widen.weight)
        assert self.widen.bias is not None
        nn.init.zeros_(self.widen.bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.gate * self.widen(self.mix(self.narrow(self.norm(x))))
        return out


class SamFeatures(nn.Module):
    """SAM 2's image trunk, and adapters to a detector's image features.

    Args:
        trunk: the Hiera of `Segmenter.image_encoder`; it is frozen.
        channels: of the detector's maps, by stride.
        width: of the adapters.
    """

    def __init__(self, trunk: nn.Module, channels: Mapping[int, int], width: int) -> None:
        super().__init__()
        unknown = sorted(set(channels) - set(TRUNK_STRIDES))
        if unknown or not channels:
            raise UsageError(
                f"SAM 2 has no features of stride {', '.join(map(str, unknown)) or '(none given)'}",
                fix=f"choose among {', '.join(map(str, TRUNK_STRIDES))}",
            )
        if width % _GROUPS:
            raise UsageError(
                f"adapters of SAM 2's features: width {width} is not a multiple of {_GROUPS}",
                fix=f"use {max(1, round(width / _GROUPS)) * _GROUPS}",
            )
        held: Any = trunk
        sam_channels = dict(zip(TRUNK_STRIDES, reversed(held.channel_list), strict=True))
        self.trunk = Frozen(trunk)
        self.adapters = nn.ModuleDict(
            {str(stride): Adapter(sam_channels[stride], width, count) for stride, count in channels.items()}
        )

    def pyramid(self, images: Tensor) -> dict[int, Tensor]:
        """Maps of the trunk by stride, of images normalised as SAM 2 has them, sides multiples of 32."""
        return dict(zip(TRUNK_STRIDES, self.trunk(images), strict=True))

    def forward(self, levels: Mapping[int, Tensor], pyramid: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """The detector's maps by stride, with SAM 2's added where there is an adapter."""
        fused = dict(levels)
        for stride, adapter in self.adapters.items():
            own, seen = levels[int(stride)], pyramid[int(stride)]
            if own.shape[-2:] != seen.shape[-2:]:
                raise UsageError(
                    f"SAM 2's features of stride {stride} are {list(seen.shape[-2:])}, "
                    f"the detector's {list(own.shape[-2:])}",
                    fix="use an image size whose sides are multiples of 32",
                )
            fused[int(stride)] = own + adapter(seen.to(own.dtype))
        return fused


class HieraBackbone(nn.Module):
    """SAM 2's trunk as a detector's only image backbone: maps of stride 8, 16 and 32, trained with the rest."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        held: Any = trunk
        self.out_channels: Sequence[int] = tuple(reversed(held.channel_list))[1:]

    @property
    def conv1(self) -> nn.Conv2d:
        """The first convolution; detectors give images in the precision of its weights."""
        first = self.trunk.get_submodule("patch_embed.proj")
        assert isinstance(first, nn.Conv2d)
        return first

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, eight, sixteen, thirty_two = self.trunk(images)
        return eight, sixteen, thirty_two
