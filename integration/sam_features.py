"""Features of SAM 2's image encoder for the image branch of any detector.

They enter in the image plane, camera by camera, before anything is lifted, through adapters whose last layer is zero:
at step 0 the detector is exactly the plain one.

Shape legend: M images, H W their size, C channels, h w the size of a feature map.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from configs.errors import UsageError
from detectors.image_hook import CameraViews, ImageHook
from integration.frozen import Frozen
from integration.segmenter import standardise

TRUNK_STRIDES: Final = (4, 8, 16, 32)
TRAINED_LATER: Final = "sam.trunk.later."
"""What the names of SAM 2's parameters begin with that train from an epoch on, in a detector that has `sam`."""
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


@dataclass(frozen=True, slots=True)
class TrunkMaps:
    """What a trunk made of M images: enough for masks, too (`BEVSAMFusion.features_of`)."""

    maps: tuple[Tensor, ...]
    """`[M, C, h, w]` of stride 4, 8, 16, 32."""
    sha256: bytes
    """Of the trunk's weights; empty for a trunk that trains."""

    def of_images(self, chosen: slice) -> TrunkMaps:
        """Those of some of the images."""
        return TrunkMaps(tuple(one[chosen] for one in self.maps), self.sha256)


class SamFeatures(ImageHook):
    """SAM 2's image trunk, and adapters to a detector's image features.

    Args:
        trunk: the Hiera of `Segmenter.image_encoder`; it is frozen.
        channels: of the detector's maps, by stride.
        width: of the adapters.
        native: SAM 2 sees the whole images (`CameraViews.whole`), and its maps are sampled where the detector's cells
            lie in them; else it sees the detector's images.
        source_size: height and width of images as stored, what `CameraViews.canvas_from_img` counts pixels of.
        trained_later: `last_stage_and_norms` of the trunk may begin to train.
    """

    def __init__(
        self,
        trunk: nn.Module,
        channels: Mapping[int, int],
        width: int,
        *,
        native: bool,
        source_size: tuple[int, int],
        trained_later: bool = False,
    ) -> None:
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
        self.native = native
        self.source_size = source_size
        self.trunk = Frozen(trunk, last_stage_and_norms(trunk, max(channels)) if trained_later else ())
        self.adapters = nn.ModuleDict(
            {str(stride): Adapter(sam_channels[stride], width, count) for stride, count in channels.items()}
        )
        self._kept: list[TrunkMaps] | None = None

    def forward(self, levels: Mapping[int, Tensor], views: CameraViews) -> dict[int, Tensor]:
        """The detector's maps by stride, with SAM 2's added where there is an adapter."""
        maps = self.trunk_maps(views)
        if self._kept is not None:
            self._kept.append(maps)
        return self.fuse(levels, self.pyramid(maps, levels, views))

    @contextmanager
    def keeping(self) -> Iterator[list[TrunkMaps]]:
        """Within it the maps of every pass are kept, in the order of the passes."""
        kept: list[TrunkMaps] = []
        self._kept = kept
        try:
            yield kept
        finally:
            self._kept = None

    def trunk_maps(self, views: CameraViews) -> TrunkMaps:
        """What the trunk makes of the images."""
        images = views.canvas
        if self.native:
            if views.whole is None:
                raise UsageError(
                    "SAM 2 in mode native: the batch has no whole images",
                    fix="set data.whole_size in the recipe; images without a data set need a detector in mode shared",
                )
            images = views.whole
        maps = tuple(self.trunk(standardise(images.to(self.trunk.dtype) / 255)))
        return TrunkMaps(maps, b"" if self.trunk.later else bytes(self.trunk.sha256.tolist()))

    def pyramid(self, maps: TrunkMaps, levels: Mapping[int, Tensor], views: CameraViews) -> dict[int, Tensor]:
        """Maps on the detector's cells, by stride, where there is an adapter."""
        found = {}
        for stride, seen in zip(TRUNK_STRIDES, maps.maps, strict=True):
            if str(stride) in self.adapters:
                size = (levels[stride].shape[-2], levels[stride].shape[-1])
                found[stride] = (
                    sample_at_cells(seen, views.canvas_from_img, stride, size, self.source_size)
                    if self.native
                    else seen
                )
        return found

    def fuse(self, levels: Mapping[int, Tensor], pyramid: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """The detector's maps by stride, with those of `pyramid` through their adapters added."""
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


def sample_at_cells(
    maps: Tensor, canvas_from_img: Tensor, stride: int, size: tuple[int, int], source_size: tuple[int, int]
) -> Tensor:
    """Maps of whole images where the cells of an augmented canvas lie in them, bilinearly.

    Pixel coordinates are continuous, as `canvas_from_img` has them: the first pixel reaches from 0 to 1.

    Args:
        maps: `[M, C, ., .]` over the whole image each.
        canvas_from_img: float32 `[M, 4, 4]`, acts on (u, v, depth, 1).
        stride: of the canvas's cells.
        size: rows and columns of cells.
        source_size: height and width of the images that `canvas_from_img` starts from.

    Returns:
        `[M, C, *size]`; outside the image zeros, into which its last half cell fades.
    """
    plane = canvas_from_img[:, [0, 1, 3]][:, :, [0, 1, 3]].float()
    rows, columns = ((torch.arange(n, device=maps.device) + 0.5) * stride for n in size)
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    centres = torch.stack([u, v, torch.ones_like(u)], -1)
    places = torch.einsum("mij,hwj->mhwi", torch.linalg.inv(plane), centres)[..., :2]
    height, width = source_size
    grid = places / places.new_tensor([width, height]) * 2 - 1
    return grid_sample(maps, grid.to(maps.dtype), align_corners=False)


def last_stage_and_norms(trunk: nn.Module, stride: int) -> set[str]:
    """Names of a Hiera's parameters: all of the stage that makes the map of `stride`, and the norms before it."""
    held: Any = trunk
    stage = TRUNK_STRIDES.index(stride)
    last = held.stage_ends[stage]
    first = held.stage_ends[stage - 1] + 1 if stage else 0
    found = set()
    for number, block in enumerate(held.blocks[: last + 1]):
        norms = {name for name, part in block.named_modules() if isinstance(part, nn.LayerNorm)}
        for name, _ in block.named_parameters():
            if number >= first or name.rpartition(".")[0] in norms:
                found.add(f"blocks.{number}.{name}")
    return found


class HieraBackbone(nn.Module):
    """SAM 2's trunk as a detector's only image backbone: maps of stride 8, 16 and 32, trained with the rest."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        held: Any = trunk
        self.out_channels: tuple[int, ...] = tuple(reversed(held.channel_list))[1:]

    @property
    def conv1(self) -> nn.Conv2d:
        """The first convolution; detectors give images in the precision of its weights."""
        first = self.trunk.get_submodule("patch_embed.proj")
        assert isinstance(first, nn.Conv2d)
        return first

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, eight, sixteen, thirty_two = self.trunk(images)
        return eight, sixteen, thirty_two
