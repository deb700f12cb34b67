"""LiDAR points painted with what camera masks say of them: input for LiDAR detectors (Vora et al. 2020).

A point is painted by an object's mask where the camera sees the point, well within the mask, and at a depth that fits
the object's box: the last keeps the road behind a fence from becoming a fence. Masks must come from a camera detector
if a LiDAR detector is to learn from painted points, in training from one that has not been trained on the scene.

Shape legend: n points, K objects, C cameras, m pairs of a point and a camera that sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from configs.errors import UsageError
from configs.nuscenes import CLASSES
from integration.lidar_points import SeenPoints, visible_points
from integration.projection import ALL_VISIBLE, CameraRig, project_boxes
from integration.rays import pixel_rays, ray_depths

CHANNELS: Final = len(CLASSES) + 2
"""A score per class, the mask's quality, and 1 for points on objects."""
EDGE: Final = 0.0016
"""Radians that a point keeps from the edge of a mask: 2 pixels of a nuScenes image."""
DEPTH_MARGIN: Final = 0.5
"""Metres before a box's front and behind its back, along the ray."""


@dataclass(frozen=True, slots=True)
class PaintedPoints:
    """What n points were painted with."""

    features: Tensor
    """float32 `[n, CHANNELS]`: the object's score at its class and 0 at others, the mask's quality, 1; zeros for points
    on no object."""
    pair: Tensor
    """int16 `[n]`: row of the pair of an object and a camera in the masks, -1 for none: small enough to be stored."""


def paint_points(points: Tensor, found: Mapping[str, Any], rig: CameraRig) -> PaintedPoints:
    """Paint points with the masks of one sample; a point that two cameras see takes the better mask.

    Append the features to what is known of the points: `torch.cat([cloud, painted.features], 1)`.

    Args:
        points: `[n, 3]`, in the frame of the boxes and at their time, metres.
        found: what `BEVSAMFusion.segment` returned, boxes as length, width, height.
        rig: the cameras it was called with.

    Raises:
        UsageError: `found` is of other cameras.
    """
    maps = found["instance_maps"]
    if maps.shape != (len(rig), *rig.size):
        raise UsageError(
            f"masks are {list(maps.shape)}, the cameras {[len(rig), *rig.size]}",
            fix="give the cameras that the masks were made with",
        )
    seen = visible_points(points, rig)
    owner = seen.values(_without_edges(maps, rig))
    seen, owner = seen.select(owner >= 0), owner[owner >= 0]
    fits = _fits_box(seen, owner, found["boxes_3d"], rig)
    seen, owner = seen.select(fits), owner[fits]
    row = _pair_rows(found, len(rig))[seen.camera, owner]
    pair = _best_of_each(seen.point[row >= 0], row[row >= 0], found["mask_scores"], len(points))
    return PaintedPoints(_features(pair, found), pair.to(torch.int16))


def _without_edges(maps: Tensor, rig: CameraRig) -> Tensor:
    """Maps `[C, H, W]` with -1 where another owner is near."""
    focal = torch.linalg.inv(rig.cam_from_pixel)[:, 0, 0].abs()
    kept = torch.empty_like(maps)
    for camera, own in enumerate(maps):
        reach = max(1, round(EDGE * float(focal[camera])))
        grey = own[None].float()
        most, least = (sign * functional.max_pool2d(sign * grey, 2 * reach + 1, 1, reach)[0] for sign in (1, -1))
        kept[camera] = torch.where(most == least, own, -1)
    return kept


def _fits_box(seen: SeenPoints, owner: Tensor, boxes: Tensor, rig: CameraRig) -> Tensor:
    """bool `[m]`: the depth lies between the ray's entry into and exit from the owner's box, or near them."""
    pairs = project_boxes(boxes.cpu(), rig, ALL_VISIBLE)
    place = torch.full((len(rig), len(boxes)), -1)
    place[pairs.camera, pairs.object] = torch.arange(len(pairs))
    row = place[seen.camera, owner]
    rays = pixel_rays(seen.pixel.double()[:, None], rig.cam_from_pixel[seen.camera])
    enter, leave = (ends[:, 0] for ends in ray_depths(pairs.corners[row], rays))
    within = (seen.depth > enter - DEPTH_MARGIN) & (seen.depth < leave + DEPTH_MARGIN)
    return within & enter.isfinite() & (row >= 0)


def _pair_rows(found: Mapping[str, Any], cameras: int) -> Tensor:
    """int64 `[C, K]`: the row of each pair, -1 where there is none."""
    rows = torch.full((cameras, len(found["scores"])), -1)
    rows[found["pair_camera"], found["pair_object"]] = torch.arange(len(found["pair_object"]))
    return rows


def _best_of_each(point: Tensor, row: Tensor, quality: Tensor, count: int) -> Tensor:
    """int64 `[n]`: of the rows that fall to each point the one of the best quality, -1 for none."""
    order = quality.argsort(stable=True)
    rank = torch.empty_like(order).scatter(0, order, torch.arange(len(order)))
    best = torch.full((count,), -1).scatter_reduce(0, point, rank[row], "amax")
    return torch.where(best >= 0, order[best.clamp(min=0)], -1) if len(order) else best


def _features(pair: Tensor, found: Mapping[str, Any]) -> Tensor:
    features = torch.zeros(len(pair), CHANNELS)
    painted = (pair >= 0).nonzero()[:, 0]
    owner = found["pair_object"][pair[painted]]
    features[painted, found["labels"][owner].long()] = found["scores"][owner].float()
    features[painted, -2] = found["mask_scores"][pair[painted]].float()
    features[painted, -1] = 1.0
    return features
