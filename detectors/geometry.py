"""Camera geometry as detectors use it: rotations and translations cut out of the batch's 4x4 transforms.

Shape legend: B batch, N cameras. Everything stays in the precision that the batch came with: which BEV cell a frustum
point falls into is decided by float32 rounding, so operations are in the published order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from detectors.interface import CameraBatch


@dataclass(frozen=True, slots=True)
class CameraGeometry:
    """The cameras of one or several frames of each sample: image to camera to key ego, image and BEV augmentation.

    `B` counts samples of every frame: of several frames those of the first come first.
    """

    intrinsics: Tensor
    """`[B, N, 3, 3]`, pixels of the stored image."""
    rotation: Tensor
    """`[B, N, 3, 3]`, ego from camera."""
    translation: Tensor
    """`[B, N, 3]`, metres."""
    canvas_rotation: Tensor
    """`[B, N, 3, 3]`, network image from stored image; acts on (u, v, depth)."""
    canvas_translation: Tensor
    """`[B, N, 3]`, pixels."""
    bev_rotation: Tensor
    """`[B, 3, 3]`, augmented from plain ego frame (with scale and flips)."""
    mounting: Tensor
    """`[B, N, 3, 4]`, ego from camera of the *key* frame: what the depth network is told of every frame (published)."""

    @classmethod
    def of_key_frame(cls, batch: CameraBatch) -> CameraGeometry:
        """Cut the key frame (time 0) out of a batch."""
        return cls._of_frames(batch, slice(0, 1))

    @classmethod
    def of_earlier_frames(cls, batch: CameraBatch) -> CameraGeometry:
        """Cut all other frames out of a batch, the latest first."""
        return cls._of_frames(batch, slice(1, None))

    @classmethod
    def _of_frames(cls, batch: CameraBatch, frames: slice) -> CameraGeometry:
        img_from_cam, ego_from_cam, canvas_from_img = (
            frame_by_frame(transforms[:, frames])
            for transforms in (batch.img_from_cam, batch.ego_from_cam, batch.canvas_from_img)
        )
        count = len(ego_from_cam) // len(batch.bev_from_ego)
        return cls(
            intrinsics=img_from_cam[..., :3, :3],
            rotation=ego_from_cam[..., :3, :3],
            translation=ego_from_cam[..., :3, 3],
            canvas_rotation=canvas_from_img[..., :3, :3],
            canvas_translation=canvas_from_img[..., :3, 3],
            bev_rotation=batch.bev_from_ego[:, :3, :3].repeat(count, 1, 1),
            mounting=batch.ego_from_cam[:, 0, :, :3].repeat(count, 1, 1, 1),
        )

    def split(self, samples: int) -> Iterator[CameraGeometry]:
        """Cut into geometries of `samples` samples each: those of one frame after the other."""
        columns = (getattr(self, field.name).split(samples) for field in fields(self))
        return (CameraGeometry(*values) for values in zip(*columns, strict=True))

    def vector(self) -> Tensor:
        """The camera vector `[B, N, 27]` that gates the depth network.

        fx, fy, cx, cy; rows of the image augmentation; upper part of the BEV augmentation; rows of `mounting`.
        """
        cameras = self.intrinsics.shape[1]
        k, p, t = self.intrinsics, self.canvas_rotation, self.canvas_translation
        a = self.bev_rotation[:, None].expand(-1, cameras, -1, -1)
        numbers = [k[..., 0, 0], k[..., 1, 1], k[..., 0, 2], k[..., 1, 2]]
        numbers += [p[..., 0, 0], p[..., 0, 1], t[..., 0], p[..., 1, 0], p[..., 1, 1], t[..., 1]]
        numbers += [a[..., 0, 0], a[..., 0, 1], a[..., 1, 0], a[..., 1, 1], a[..., 2, 2]]
        return torch.cat([torch.stack(numbers, -1), self.mounting.flatten(-2)], -1)


def frame_by_frame(values: Tensor) -> Tensor:
    """`[B, T, ...]` to `[T*B, ...]`: all samples of the first frame, then those of the second, and so on."""
    return values.transpose(0, 1).flatten(0, 1)


def inverse(transforms: Tensor) -> Tensor:
    """As `torch.inverse`, which waits for the device to say whether there is one; here it is not finite then."""
    found: Tensor = torch.linalg.inv_ex(transforms).inverse
    return found


Planes = tuple[Tensor, Tensor, Tensor]
"""Coordinates x, y, z (or u, v, depth) as three tensors of one shape, or shapes that broadcast."""


def rotate(matrix: Tensor, points: Planes) -> Planes:
    """`matrix @ point`, with `matrix` `[..., 3, 3]` already broadcastable against the planes.

    Written out because matrix kernels fuse multiply and add, which rounds differently from the published order.
    """
    x, y, z = points
    rows = (matrix[..., i, :] for i in range(3))
    a, b, c = (row[..., 0] * x + row[..., 1] * y + row[..., 2] * z for row in rows)
    return a, b, c
