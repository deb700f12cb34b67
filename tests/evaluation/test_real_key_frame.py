"""Boxes of a real nuScenes key frame are drawn where the official tools see them.

`BEVNEXT_SAM2_KEYFRAME` names a folder with one key frame of v1.0-mini as mmdetection3d publishes it for its demo.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.figures.projection import project, transform
from evaluation.global_boxes import GlobalBoxes
from scenes.restricted_pickle import read_pickle

FOLDER = os.environ.get("BEVNEXT_SAM2_KEYFRAME", "")
IMAGE = np.array([1600, 900])

pytestmark = pytest.mark.skipif(not FOLDER, reason="BEVNEXT_SAM2_KEYFRAME is not set")


@pytest.fixture(scope="module")
def info() -> dict[str, Any]:
    record: dict[str, Any] = read_pickle(next(Path(FOLDER).glob("*.pkl")))["data_list"][0]
    return record


def global_boxes(info: dict[str, Any], global_from_lidar: np.ndarray) -> GlobalBoxes:
    """The annotations, from their LiDAR-frame copies back to upright boxes of the global frame."""
    boxes = np.array([instance["bbox_3d"] for instance in info["instances"]])
    heading = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6]), np.zeros(len(boxes))], axis=1)
    ahead = heading @ global_from_lidar[:3, :3].T
    yaw = np.arctan2(ahead[:, 1], ahead[:, 0])
    return GlobalBoxes(
        centres=transform(global_from_lidar, boxes[:, :3]),
        sizes=boxes[:, [4, 3, 5]],
        rotations=np.stack([np.cos(yaw / 2), 0 * yaw, 0 * yaw, np.sin(yaw / 2)], axis=1),
        velocities=np.zeros((len(boxes), 2)),
        labels=np.zeros(len(boxes), np.int64),
        scores=np.ones(len(boxes)),
        attributes=("",) * len(boxes),
    )


def test_projected_corners_bound_the_official_2d_boxes(info: dict[str, Any]) -> None:
    global_from_lidar = np.array(info["ego2global"]) @ np.array(info["lidar_points"]["lidar2ego"])
    boxes = global_boxes(info, global_from_lidar)
    differences = []
    for camera, seen in info["cam_instances"].items():
        calibration = info["images"][camera]
        cam_from_global = np.array(calibration["lidar2cam"]) @ np.linalg.inv(global_from_lidar)
        centres, corners = transform(cam_from_global, boxes.centres), transform(cam_from_global, boxes.corners())
        for instance in seen:
            distances = np.linalg.norm(centres - np.array(instance["bbox_3d"][:3]), axis=1)
            if distances.min() > 0.1:
                continue  # not among the annotations of the frame
            pixels = project(corners[distances.argmin()], np.array(calibration["cam2img"]))
            if corners[distances.argmin(), :, 2].min() > 0 and ((pixels > 0) & (pixels < IMAGE)).all():
                found = np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])
                differences.append(np.abs(found - np.array(instance["bbox"])).max())
    assert len(differences) > 60
    # boxes that stand upright in the LiDAR's frame would be off by up to 25 pixels
    assert np.median(differences) < 0.01
    assert max(differences) < 0.5
