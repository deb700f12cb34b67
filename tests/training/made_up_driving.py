"""Batches of made-up samples for a real detector: six cameras around the car, noise for images, boxes at random."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from configs.nuscenes import CAMERAS, CLASSES
from configs.schema import DataConfig
from scenes.sample import Batch, Sample, collate

YAW_DEGREES = (55, 0, -55, 110, 180, -110)
FOCAL, CENTRE = 1266.0, (800.0, 450.0)


def made_up_batch(data: DataConfig, numbers: list[int]) -> Batch:
    """The samples of these numbers; the content of each follows from its number. Every third has no boxes."""
    return collate([_sample(data, number) for number in numbers])


def _sample(data: DataConfig, number: int) -> Sample:
    random = torch.Generator().manual_seed(number)
    height, width = data.image_size
    cells = (len(CAMERAS), height // data.depth_stride, width // data.depth_stride)
    count = 0 if number % 3 == 0 else 3 + 4 * (number % 5)
    boxes = torch.zeros(count, 9)
    boxes[:, :2] = torch.rand(count, 2, generator=random) * 80 - 40
    boxes[:, 3:6] = torch.tensor([4.0, 2.0, 1.5])
    boxes[:, 6:] = torch.randn(count, 3, generator=random)
    depth = torch.rand(cells, generator=random) * 60
    return Sample(
        images=torch.randint(0, 256, (1, len(CAMERAS), 3, height, width), dtype=torch.uint8, generator=random),
        img_from_cam=_intrinsics().expand(1, len(CAMERAS), 4, 4),
        ego_from_cam=torch.stack([_camera(math.radians(yaw)) for yaw in YAW_DEGREES])[None],
        canvas_from_img=_resize_and_crop(data).expand(1, len(CAMERAS), 4, 4),
        bev_from_ego=torch.eye(4),
        global_from_ego=torch.eye(4, dtype=torch.float64),
        depth=depth * (torch.rand(cells, generator=random) < 0.05 * (1 + number % 7)),
        boxes=boxes,
        labels=torch.randint(0, len(CLASSES), (count,), generator=random),
        row=number,
        token=f"token{number}",
    )


def _intrinsics() -> Tensor:
    matrix = torch.diag(torch.tensor([FOCAL, FOCAL, 1.0, 1.0]))
    matrix[0, 2], matrix[1, 2] = CENTRE
    return matrix


def _camera(yaw: float) -> Tensor:
    """A camera 1.5 m above the origin that looks along `yaw`."""
    forward = torch.tensor([math.cos(yaw), math.sin(yaw), 0.0])
    right = torch.tensor([math.sin(yaw), -math.cos(yaw), 0.0])
    down = torch.tensor([0.0, 0.0, -1.0])
    ego_from_cam = torch.eye(4)
    ego_from_cam[:3, :3] = torch.stack([right, down, forward], dim=1)
    ego_from_cam[2, 3] = 1.5
    return ego_from_cam


def _resize_and_crop(data: DataConfig) -> Tensor:
    """To the width of the network image, keeping the bottom rows."""
    scale = data.image_size[1] / data.source_size[1]
    matrix = torch.diag(torch.tensor([scale, scale, 1.0, 1.0]))
    matrix[1, 3] = data.image_size[0] - data.source_size[0] * scale
    return matrix
