"""A batch that needs no data set: noise for images, six cameras around a car that drives straight on, random boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from configs.nuscenes import CLASSES
from configs.schema import DataConfig
from scenes.sample import Batch

FOCAL = 0.79
"""Focal length over the width of the image, as of the nuScenes cameras."""
METRES_PER_FRAME = 4.0
OBJECTS = 30


def made_up_batch(data: DataConfig, samples: int) -> Batch:
    """`samples` samples of the sizes that `data` names, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    cameras, (height, width) = len(data.cameras), data.image_size
    shape = (samples, data.frames, cameras)
    low, high = torch.tensor([-1.0, -1, -0.02, 0, 0, 0, -1, 0, 0]), torch.tensor([1.0, 1, 0.02, 0, 0, 0, 1, 0, 0])
    scale = torch.tensor([data.box_range, data.box_range, 50, 1, 1, 1, 3.1, 1, 1])
    unit = torch.rand(samples, OBJECTS, 9, generator=generator)
    boxes = (low + (high - low) * unit) * scale + torch.tensor([0, 0, 0, 4.0, 2, 1.6, 0, 1, 0])
    depth = torch.rand(samples, cameras, height // data.depth_stride, width // data.depth_stride, generator=generator)
    whole = None
    if data.whole_size is not None:
        whole = torch.randint(0, 256, (*shape, 3, *data.whole_size), dtype=torch.uint8, generator=generator)
    return Batch(
        whole=whole,
        images=torch.randint(0, 256, (*shape, 3, height, width), dtype=torch.uint8, generator=generator),
        img_from_cam=_intrinsics(height, width).expand(*shape, 4, 4),
        ego_from_cam=_poses(data.frames, cameras).expand(*shape, 4, 4),
        canvas_from_img=torch.eye(4).expand(*shape, 4, 4),
        bev_from_ego=torch.eye(4).expand(samples, 4, 4),
        global_from_ego=torch.eye(4, dtype=torch.float64).expand(samples, 4, 4),
        depth=(depth * 2 * data.depth_range[1] - data.depth_range[1]).clamp(min=0),
        boxes=list(boxes),
        labels=[torch.arange(OBJECTS) % len(CLASSES) for _ in range(samples)],
        rows=torch.arange(samples),
        tokens=[f"made up {i}" for i in range(samples)],
    )


def _intrinsics(height: int, width: int) -> Tensor:
    out = torch.eye(4)
    out[0, 0] = out[1, 1] = FOCAL * width
    out[0, 2], out[1, 2] = width / 2, height / 2
    return out


def _poses(frames: int, cameras: int) -> Tensor:
    """`[T, N, 4, 4]`; columns are the camera's x (right), y (down) and z (forward) axes in the ego frame."""
    yaw = torch.arange(cameras) * (2 * torch.pi / cameras)
    cos, sin, zero, one = yaw.cos(), yaw.sin(), torch.zeros(cameras), torch.ones(cameras)
    rows = [sin, zero, cos, one, -cos, zero, sin, zero, zero, -one, zero, 1.6 * one, zero, zero, zero, one]
    poses = torch.stack(rows, -1).view(cameras, 4, 4).repeat(frames, 1, 1, 1)
    poses[..., 0, 3] -= METRES_PER_FRAME * torch.arange(frames)[:, None]
    return poses
