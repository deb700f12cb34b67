"""Measure `BEVSAMFusion`'s masks by LiDAR points, from the annotated boxes of any data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from integration.bev_sam_fusion import BEVSAMFusion, Limits
from integration.lidar_points import visible_points
from integration.masks.evaluate import SAM2
from integration.masks.examples import HULL, OPEN_HULL
from integration.masks.point_metric import PointScores, point_truth
from integration.projection import ALL_VISIBLE, CameraRig, Visibility, box_corners, project_boxes, worth
from integration.rays import occlusion
from integration.scene_boxes import annotated_boxes, lidar_points, rig_of
from scenes.frame import Frame
from scenes.index import SceneIndex
from scenes.loading import ImageLoader

ALL_OBJECTS: Final = Limits(min_score=0.0, objects=1 << 30, per_camera=1 << 30)

MasksOf = Callable[[Frame, Tensor, CameraRig], Tensor]
"""Masks bool `[P, H, W]` of a frame's boxes `[N, 9]` in its rig, in the order of `scored_pairs`."""


def fused_masks(fusion: BEVSAMFusion) -> MasksOf:
    """The masks that `fusion` finds; it must not be limited to some of the objects (`ALL_OBJECTS`)."""
    loader = ImageLoader()

    def masks_of(frame: Frame, boxes: Tensor, rig: CameraRig) -> Tensor:
        images = [loader.read(path, frame.image_size).permute(2, 0, 1).clone() for path in frame.image_paths]
        found = {"boxes_3d": boxes, "scores": torch.ones(len(boxes)), "labels": torch.zeros(len(boxes))}
        masks: Tensor = fusion.segment(torch.stack(images), found, rig)["masks"]
        return masks

    return masks_of


def evaluate_by_points(
    masks_of: MasksOf,
    index: SceneIndex,
    rows: Sequence[int],
    every: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> PointScores:
    """Scores of all annotated objects of the detection task with enough points.

    Args:
        rows: of the index.
        every: take each n-th sample only.
    """
    scores = PointScores((SAM2, HULL, OPEN_HULL))
    chosen = list(rows)[::every]
    for done, row in enumerate(chosen, start=1):
        _score(scores, index.frame(int(row)), masks_of)
        if on_progress is not None:
            on_progress(done, len(chosen))
    return scores


def _score(scores: PointScores, frame: Frame, masks_of: MasksOf) -> None:
    rig, boxes, points = rig_of(frame), annotated_boxes(frame.annotations), lidar_points(frame)
    labels = torch.from_numpy(frame.annotations.labels)
    others = project_boxes(boxes, rig, ALL_VISIBLE)
    pairs = others.select(worth(others, Visibility()))
    masks = masks_of(frame, boxes, rig)
    hidden = occlusion(pairs, rig.cam_from_pixel, others)
    away = (boxes[:, :2] - torch.from_numpy(frame.global_from_ego[:2, 3])).norm(dim=1)
    speed = boxes[:, 7:].norm(dim=1)
    for truth in point_truth(points, visible_points(points, rig), box_corners(boxes), pairs, others, rig):
        objects = pairs.object[truth.pairs]
        held = masks[truth.pairs][:, truth.pixel[:, 1], truth.pixel[:, 0]]
        scores.add(
            truth,
            {SAM2: held, HULL: truth.hull, OPEN_HULL: truth.open_hull},
            labels[objects],
            away[objects],
            hidden[truth.pairs],
            speed[objects],
        )
