"""What the loader hands over: one `Sample`, and many of them collated into a `Batch`.

Shape legend: B batch, T frames (0 is the key frame), N cameras, H W network image, h w stride of the depth target,
n boxes of one sample. Transforms are 4x4, named `dst_from_src`; `ego` is the key frame's ego pose at the time of
CAM_FRONT, `canvas` the augmented network image, `bev` the augmented ego frame that boxes live in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample, as it leaves a loader worker (fields without the B of `Batch`)."""

    images: Tensor
    img_from_cam: Tensor
    ego_from_cam: Tensor
    canvas_from_img: Tensor
    bev_from_ego: Tensor
    global_from_ego: Tensor
    depth: Tensor
    boxes: Tensor
    labels: Tensor
    row: int
    token: str
    walk: tuple[int, int] | None = None
    whole: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of samples on one device."""

    images: Tensor
    """uint8 RGB `[B, T, N, 3, H, W]`, augmented, not normalised."""
    img_from_cam: Tensor
    """float32 `[B, T, N, 4, 4]`: intrinsics of the image as stored, pixels."""
    ego_from_cam: Tensor
    """float32 `[B, T, N, 4, 4]`: camera at its own time -> ego frame of the key frame, metres."""
    canvas_from_img: Tensor
    """float32 `[B, T, N, 4, 4]`: image augmentation, acts on (u, v, depth, 1)."""
    bev_from_ego: Tensor
    """float32 `[B, 4, 4]`: BEV augmentation."""
    global_from_ego: Tensor
    """float64 `[B, 4, 4]`: pose of the key frame."""
    depth: Tensor
    """float32 `[B, N, h, w]`: depth of the nearest LiDAR return per patch of the key frame, metres; 0 where none."""
    boxes: list[Tensor]
    """B times float32 `[n, 9]`: x, y, z (gravity centre), l, w, h, yaw, vx, vy in the `bev` frame."""
    labels: list[Tensor]
    """B times int64 `[n]`: index into `configs.nuscenes.CLASSES`."""
    rows: Tensor
    """int64 `[B]`: row of the sample in the index."""
    tokens: list[str]
    walk: list[tuple[int, int]] = field(default_factory=list)
    """Of training along scenes: B times the sample's slot in the optimiser step, and how many samples it has walked."""
    damaged: list[str] = field(default_factory=list)
    """Tokens of samples that could not be read, and for which others in this batch stand in."""
    whole: Tensor | None = None
    """uint8 RGB `[B, T, N, 3, ., .]`: whole images without augmentation, of `data.whole_size`, where that is set."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on `device`."""
        return Batch(**{f.name: _move(getattr(self, f.name), device, non_blocking) for f in fields(self)})

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (called by the DataLoader)."""
        return Batch(**{f.name: _pin(getattr(self, f.name)) for f in fields(self)})

    def __len__(self) -> int:
        return len(self.tokens)


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples; boxes and labels stay lists, their number differs.

    Images keep the memory layout of decoded ones, colours innermost: `images.flatten(0, 2)` is channels_last as it is.
    """

    def stack(name: str) -> Tensor:
        return torch.stack([getattr(sample, name) for sample in samples])

    whole = [sample.whole for sample in samples if sample.whole is not None]
    return Batch(
        images=_stack_images([sample.images for sample in samples]),
        img_from_cam=stack("img_from_cam"),
        ego_from_cam=stack("ego_from_cam"),
        canvas_from_img=stack("canvas_from_img"),
        bev_from_ego=stack("bev_from_ego"),
        global_from_ego=stack("global_from_ego"),
        depth=stack("depth"),
        boxes=[sample.boxes for sample in samples],
        labels=[sample.labels for sample in samples],
        rows=torch.tensor([sample.row for sample in samples]),
        tokens=[sample.token for sample in samples],
        walk=[sample.walk for sample in samples if sample.walk is not None],
        whole=_stack_images(whole) if whole else None,
    )


def _stack_images(images: Sequence[Tensor]) -> Tensor:
    """`[T, N, 3, ., .]` each."""
    return torch.stack([one.movedim(2, -1) for one in images]).movedim(-1, 3)


def _move(value: Any, device: torch.device | str, non_blocking: bool) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=non_blocking)
    if isinstance(value, list):
        return [_move(item, device, non_blocking) for item in value]
    return value


def _pin(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.pin_memory()
    if isinstance(value, list):
        return [_pin(item) for item in value]
    return value
