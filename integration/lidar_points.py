"""LiDAR points in camera images: where they fall, and which of them the camera sees too.

The LiDAR looks over cars that the camera does not look over. A point counts as hidden where a clearly nearer one lies
no further above or below it than the next ring does: what is in between two rings, or between the topmost ring on a
roof and the roof's edge, no point tells. On the synthetic set 99 % of the points on objects that are left lie on
visible pixels of their object (97 % of all), and 94 % of those that do are left.

Shape legend: n points, N boxes, C cameras, m pairs of a point and a camera that it falls into.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from integration.projection import NEAR, CameraRig, centre_and_axes

CLEARLY_NEARER: Final = 1.0
"""Metres."""
RING_STEP: Final = 0.0233
"""Radians between two rings of nuScenes' LiDAR: how far above and below a point nearer ones are looked for."""
BESIDE: Final = 0.0047
"""Radians to the left and right; 6 pixels of a nuScenes image."""


@dataclass(frozen=True, slots=True)
class SeenPoints:
    """Points as cameras see them, sorted by camera."""

    point: Tensor
    """int64 `[m]`: position among the points given."""
    camera: Tensor
    """int64 `[m]`"""
    pixel: Tensor
    """int64 `[m, 2]`: u, v of the pixel that the point falls into."""
    depth: Tensor
    """float64 `[m]`: metres along the optical axis."""

    def __len__(self) -> int:
        return len(self.point)

    def select(self, chosen: Tensor) -> SeenPoints:
        """Those that a mask or positions name."""
        return SeenPoints(self.point[chosen], self.camera[chosen], self.pixel[chosen], self.depth[chosen])

    def values(self, maps: Tensor) -> Tensor:
        """`[m]`: what maps `[C, H, W]` hold at the points."""
        return maps[self.camera, self.pixel[:, 1], self.pixel[:, 0]]


def points_in_images(points: Tensor, rig: CameraRig) -> SeenPoints:
    """The points that fall into the images of a rig, hidden ones too.

    Args:
        points: `[n, 3]`, in the frame of the rig's boxes and at their time, metres. What moved until the camera's time
            is not followed.
    """
    place, depth = project_points(points.expand(len(rig), -1, -1), rig, torch.arange(len(rig)))
    pixel = place.round()
    height, width = rig.size
    inside = (depth > NEAR) & (pixel >= 0).all(-1) & (pixel[..., 0] < width) & (pixel[..., 1] < height)
    camera, point = inside.nonzero(as_tuple=True)
    return SeenPoints(point, camera, pixel[inside].long(), depth[inside])


def project_points(points: Tensor, rig: CameraRig, camera: Tensor) -> tuple[Tensor, Tensor]:
    """Where points `[..., n, 3]` fall in the image of the rig's `camera` `[...]`: float64 pixels `[..., n, 2]`, and
    their depths `[..., n]`; what is not in front of the camera falls anywhere."""
    cam_from_ego = rig.cam_from_ego.double()[camera]
    pixel_from_cam = torch.linalg.inv(rig.cam_from_pixel)[camera]
    in_camera = points.double() @ cam_from_ego[..., :3, :3].transpose(-1, -2) + cam_from_ego[..., None, :3, 3]
    image = in_camera @ pixel_from_cam.transpose(-1, -2)
    return image[..., :2] / image[..., 2:].clamp(min=NEAR), in_camera[..., 2]


def visible_points(points: Tensor, rig: CameraRig) -> SeenPoints:
    """As `points_in_images`, without those that something nearer hides."""
    found = points_in_images(points, rig)
    hidden = torch.zeros(len(found), dtype=torch.bool)
    focal = torch.linalg.inv(rig.cam_from_pixel)[:, 0, 0].abs()
    for camera in range(len(rig)):
        own = found.camera == camera
        hidden[own] = _hidden(found.select(own), rig.size, float(focal[camera]))
    return found.select(~hidden)


def points_in_solids(points: Tensor, corners: Tensor, floor: float = 0.0, margin: float = 0.0) -> Tensor:
    """bool `[N, n]`: which points lie in which boxes.

    Args:
        points: `[n, 3]`
        corners: `[N, 8, 3]`, in the frame of the points (order of `projection.SIGNS`).
        floor: height above a box's bottom below which points do not count, metres.
        margin: how far boxes are enlarged to each side, metres.
    """
    centre, axes = centre_and_axes(corners.double())
    half = axes.norm(dim=-1)
    offsets = points.double() - centre[:, None]
    along = offsets @ (axes / half[..., None].clamp(min=1e-9)).transpose(-1, -2)
    inside: Tensor = (along.abs() <= half[:, None] + margin).all(-1)
    inside &= along[..., 2] >= floor - half[:, None, 2] - margin
    return inside


def _hidden(points: SeenPoints, size: tuple[int, int], focal: float) -> Tensor:
    """bool `[m]` for the points of one camera."""
    height, width = size
    cell = points.pixel[:, 1] * width + points.pixel[:, 0]
    nearest = torch.full((height * width,), torch.inf, dtype=torch.float64)
    nearest = nearest.scatter_reduce(0, cell, points.depth, "amin").view(height, width)
    beside, reach = (max(1, round(angle * focal)) for angle in (BESIDE, RING_STEP))
    surface = _nearest_within(nearest, reach, beside)
    return surface.flatten()[cell] < points.depth - CLEARLY_NEARER


def _nearest_within(depth: Tensor, along: int, across: int) -> Tensor:
    """Least depth `[H, W]` in the window that reaches `along` rows and `across` columns to each side."""
    columns = functional.max_pool2d(-depth[None, None], (2 * along + 1, 1), 1, (along, 0))
    nearest: Tensor = -functional.max_pool2d(columns, (1, 2 * across + 1), 1, (0, across))[0, 0]
    return nearest
