"""Perspective supervision: which class each image cell shows, taught before anything is lifted.

A LiDAR point that fell into an image cell and lies in a box names that cell's class; one outside all boxes names it
background, if the BEV raster holds it: of what stands beyond, the boxes are not known. Needs nothing but what depth
supervision has.

Shape legend: B batch, N cameras, h w image cells, K boxes of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from configs.nuscenes import CLASSES
from detectors.bevnext.grid import BevGrid, DepthBins
from detectors.bevnext.losses import depth_foreground
from detectors.geometry import inverse
from detectors.interface import CameraBatch
from detectors.layers.constants import constants
from detectors.layers.resnet import FINEST_STRIDE

BACKGROUND: Final = len(CLASSES)
UNKNOWN: Final = -100
"""`cross_entropy` leaves such cells out."""
MARGIN: Final = 0.25
"""Metres around a box that still count as on it: a cell's ray runs through its middle, not through the LiDAR point."""
ABOVE_GROUND: Final = 0.1
"""Metres at a box's bottom that do not: there the ground is as likely."""


@torch.no_grad()
def classes_in_perspective(batch: CameraBatch, bins: DepthBins, grid: BevGrid) -> Tensor:
    """int64 `[B*N, h, w]`: class of the box that the cell's LiDAR point lies in, `BACKGROUND`, or `UNKNOWN`."""
    points_of_all = _points_in_bev(batch)
    classes = torch.full_like(batch.depth, BACKGROUND, dtype=torch.int64)
    classes.masked_fill_(~grid.holds(points_of_all), UNKNOWN)
    for sample, (points, boxes, labels) in enumerate(zip(points_of_all, batch.boxes, batch.labels, strict=True)):
        if len(boxes):
            on_box, box = _inside(points.flatten(0, 2), boxes).max(1)
            found = labels[box].where(on_box, classes[sample].flatten())
            classes[sample] = found.view_as(classes[sample])
    return classes.masked_fill_(~depth_foreground(batch.depth, bins), UNKNOWN).flatten(0, 1)


def perspective_loss(context: Tensor, classes: Tensor, class_weights: Sequence[float], count: Tensor) -> Tensor:
    """Weighted cross-entropy of the first context channels, over `max(1, count)`.

    Args: `context` `[M, C, h, w]` with C > `BACKGROUND`; `classes` `[M, h, w]`; `class_weights` one for each class and
    the background; `count` cells of known depth.
    """
    logits, weights = context[:, : BACKGROUND + 1], constants(class_weights, context)
    entropy = cross_entropy(logits, classes, weights, ignore_index=UNKNOWN, reduction="sum")
    return entropy / count.clamp(min=1.0)


def _points_in_bev(batch: CameraBatch) -> Tensor:
    """`[B, N, h, w, 3]`, augmented ego frame: the ray through each cell's middle, at the cell's depth."""
    depth = batch.depth
    height, width = depth.shape[-2:]
    middle = (FINEST_STRIDE - 1) / 2
    v = FINEST_STRIDE * torch.arange(height, device=depth.device, dtype=depth.dtype)[:, None] + middle
    u = FINEST_STRIDE * torch.arange(width, device=depth.device, dtype=depth.dtype) + middle
    ones = torch.ones_like(depth)
    on_canvas = torch.stack([u.expand_as(depth), v.expand_as(depth), ones, ones], -1)
    img_from_canvas = inverse(batch.canvas_from_img[:, 0])
    on_image = on_canvas @ img_from_canvas[:, :, None].mT
    # The image augmentation is planar: depth is what scales the pixel, whatever the augmentation.
    in_image = torch.cat([on_image[..., :2] * depth[..., None], depth[..., None], ones[..., None]], -1)
    bev_from_img = batch.bev_from_ego[:, None] @ batch.ego_from_cam[:, 0] @ inverse(batch.img_from_cam[:, 0])
    return (in_image @ bev_from_img[:, :, None].mT)[..., :3]


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    """bool `[P, K]`: which points `[P, 3]` lie on which boxes `[K, 9]`."""
    x, y, z = (points[:, None] - boxes[:, :3]).unbind(-1)
    cos, sin = boxes[:, 6].cos(), boxes[:, 6].sin()
    along, across = x * cos + y * sin, y * cos - x * sin
    half_length, half_width, half_height = (boxes[:, 3:6] / 2).unbind(-1)
    flat = (along.abs() < half_length + MARGIN) & (across.abs() < half_width + MARGIN)
    return flat & (z > ABOVE_GROUND - half_height) & (z < half_height + MARGIN)
