"""LiDAR points as prompts: a few points on each object that its camera sees, spread over the image of it.

Shape legend: P pairs of an object and a camera, n LiDAR points, N boxes.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from integration.lidar_points import points_in_solids, project_points, visible_points
from integration.projection import CameraRig, Pairs, box_corners

POSITIVES: Final = 3
"""Points of a prompt at most."""
FLOOR: Final = 0.2
"""Metres above a box's bottom: lower points may be the ground's."""
MARGIN: Final = 0.0016
"""Radians that a point keeps from the outline of its box: 2 pixels of a nuScenes image."""


def points_on_objects(points: Tensor, boxes: Tensor, pairs: Pairs, rig: CameraRig) -> tuple[Tensor, Tensor]:
    """Up to `POSITIVES` points for each pair.

    A moving object's points are moved with it to the camera's time.

    Args:
        points: `[n, 3]`, in the frame of the boxes and at their time, metres.
        boxes: `[N, 7]` or `[N, 9]`, which `pairs.object` counts.

    Returns:
        float64 pixels `[P, POSITIVES, 2]`, and bool `[P, POSITIVES]`: which of them are points at all.
    """
    inside = points_in_solids(points, box_corners(boxes), floor=FLOOR)
    seen = visible_points(points, rig)
    focal = torch.linalg.inv(rig.cam_from_pixel)[:, 0, 0].abs()
    chosen = torch.zeros(len(pairs), POSITIVES, 2, dtype=torch.float64)
    valid = torch.zeros(len(pairs), POSITIVES, dtype=torch.bool)
    for number in range(len(pairs)):
        camera, own = pairs.camera[number], pairs.object[number]
        point = seen.point[seen.camera == camera]
        point = point[inside[own, point]]
        pixel, _ = project_points(points[point] + _moved(boxes[own], rig, int(camera)), rig, camera)
        outline = pairs.select(torch.tensor([number])).polygons
        pixel = pixel[outline.inner_distance(pixel)[0] >= MARGIN * focal[camera]]
        spread = pixel[farthest_points(pixel, POSITIVES)]
        chosen[number, : len(spread)], valid[number, : len(spread)] = spread, True
    return chosen, valid


def farthest_points(places: Tensor, count: int) -> Tensor:
    """Positions of up to `count` of places `[n, 2]`: the most central one, then each the farthest from those before."""
    if len(places) <= count:
        return torch.arange(len(places))
    taken = [int((places - places.mean(0)).norm(dim=1).argmin())]
    distance = torch.full((len(places),), torch.inf, dtype=places.dtype)
    while len(taken) < count:
        distance = distance.minimum((places - places[taken[-1]]).norm(dim=1))
        taken.append(int(distance.argmax()))
    return torch.tensor(taken)


def _moved(box: Tensor, rig: CameraRig, camera: int) -> Tensor:
    """float64 `[3]`: how far a box moves until the camera's time."""
    motion = torch.zeros(3, dtype=torch.float64)
    if rig.delay is not None and len(box) >= 9:
        motion[:2] = rig.delay[camera].double() * box[7:9].double()
    return motion
