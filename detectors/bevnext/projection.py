"""Where the anchors above each BEV cell appear in the cameras.

Shape legend: B batch, N cameras, Q = Y*X BEV cells (row-major), Z anchors per cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detectors.bevnext.grid import Axis, BevGrid
from detectors.geometry import CameraGeometry, inverse, rotate

NEAR = 1e-5


@dataclass(frozen=True, slots=True)
class ProjectedAnchors:
    """Anchors in image coordinates."""

    locations: Tensor
    """`[B, N, Q, Z, 2]`: u and v, 0..1 over the network image."""
    visible: Tensor
    """bool `[B, N, Q, Z]`: in front of the camera and inside the image."""


def project_anchors(
    geometry: CameraGeometry, grid: BevGrid, anchors: int, image_size: tuple[int, int]
) -> ProjectedAnchors:
    """Project `anchors` points, spread evenly over the raster's height, above the centre of every BEV cell."""
    like = geometry.translation
    upright = Axis(grid.z.lower, grid.z.step * grid.z.cells / anchors, anchors)
    x, y, z = (_centres(axis, like) for axis in (grid.x, grid.y, upright))
    ego_from_bev = inverse(geometry.bev_rotation)[:, None, None, None, None]
    x, y, z = rotate(ego_from_bev, (x[:, None], y[:, None, None], z))
    move = geometry.translation[:, :, None, None, None]
    img_from_ego = inverse(geometry.rotation.matmul(inverse(geometry.intrinsics)))
    u, v, depth = rotate(img_from_ego[:, :, None, None, None], (x - move[..., 0], y - move[..., 1], z - move[..., 2]))
    in_front = depth.clamp(min=NEAR)
    shift = geometry.canvas_translation[:, :, None, None, None]
    u, v, depth = rotate(geometry.canvas_rotation[:, :, None, None, None], (u / in_front, v / in_front, depth))
    height, width = image_size
    u, v = (u + shift[..., 0]) / width, (v + shift[..., 1]) / height
    visible = (depth > NEAR) & (u > NEAR) & (u < 1 - NEAR) & (v > NEAR) & (v < 1 - NEAR)
    return ProjectedAnchors(torch.stack([u, v], -1).flatten(2, 3), visible.flatten(2, 3))


def _centres(axis: Axis, like: Tensor) -> Tensor:
    cells = torch.arange(axis.cells, dtype=like.dtype, device=like.device)
    return axis.lower + (cells + 0.5) * axis.step
