"""Boxes of a real nuScenes key frame, projected: their 2D boxes are the official ones.

`BEVNEXT_SAM2_KEYFRAME` names a folder with one key frame of v1.0-mini as mmdetection3d publishes it for its demo.
With `BEVNEXT_SAM2_PICTURES` too, the six images with outlines drawn go into that folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from integration.mask_pictures import draw_outlines, sheet
from integration.projection import SIGNS, CameraRig, Pairs, Visibility, project_solids
from scenes.restricted_pickle import read_pickle

FOLDER = os.environ.get("BEVNEXT_SAM2_KEYFRAME", "")
PICTURES = os.environ.get("BEVNEXT_SAM2_PICTURES", "")

pytestmark = pytest.mark.skipif(not FOLDER, reason="BEVNEXT_SAM2_KEYFRAME is not set")


@pytest.fixture(scope="module")
def info() -> dict[str, Any]:
    record: dict[str, Any] = read_pickle(next(Path(FOLDER).glob("*.pkl")))["data_list"][0]
    return record


def upright_corners(info: dict[str, Any]) -> np.ndarray:
    """Corners `[n, 8, 3]` in the LiDAR's frame of boxes that stand upright in the global frame, as annotated."""
    global_from_lidar = np.array(info["ego2global"]) @ np.array(info["lidar_points"]["lidar2ego"])
    boxes = np.array([instance["bbox_3d"] for instance in info["instances"]])
    heading = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6]), np.zeros(len(boxes))], 1)
    ahead = heading @ global_from_lidar[:3, :3].T
    yaw = np.arctan2(ahead[:, 1], ahead[:, 0])
    half = boxes[:, None, 3:6] / 2 * np.array(SIGNS)
    cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    turned = np.stack(
        [cos * half[..., 0] - sin * half[..., 1], sin * half[..., 0] + cos * half[..., 1], half[..., 2]], -1
    )
    return boxes[:, None, :3] + turned @ global_from_lidar[:3, :3]


def seen_pairs(info: dict[str, Any]) -> tuple[Pairs, list[str]]:
    cameras = list(info["images"])
    rig = CameraRig(
        torch.tensor(np.array([np.array(info["images"][c]["cam2img"])[:3, :3] for c in cameras])),
        torch.tensor(np.array([info["images"][c]["lidar2cam"] for c in cameras])),
        (900, 1600),
    )
    everything = Visibility(min_area=0.0, min_side=0.0, max_truncation=1.1)
    return project_solids(torch.from_numpy(upright_corners(info)), rig, visibility=everything), cameras


def test_2d_boxes_are_the_official_ones(info: dict[str, Any]) -> None:
    pairs, cameras = seen_pairs(info)
    differences, cut = [], 0
    for number, camera in enumerate(cameras):
        own = pairs.select(pairs.camera == number)
        centres = own.corners.mean(1)
        for instance in info["cam_instances"][camera]:
            distances = (centres - torch.tensor(instance["bbox_3d"][:3])).norm(dim=1)
            if len(own) == 0 or distances.min() > 0.1:
                continue  # not among the annotations of the frame
            place = int(distances.argmin())
            differences.append((own.box[place] - torch.tensor(instance["bbox"])).abs().max().item())
            cut += bool(own.truncation[place] > 0.01)
    assert len(differences) > 60
    assert cut >= 3
    assert float(np.median(differences)) < 0.05
    assert max(differences) < 1.0


@pytest.mark.skipif(not PICTURES, reason="BEVNEXT_SAM2_PICTURES is not set")
def test_outlines_are_drawn(info: dict[str, Any]) -> None:
    pairs, cameras = seen_pairs(info)
    drawn = []
    for number, camera in enumerate(cameras):
        path = next(Path(FOLDER).glob(f"*__{camera}__*.jpg"))
        own = pairs.select((pairs.camera == number) & (pairs.area > 64))
        drawn.append(draw_outlines(np.array(Image.open(path)), own.polygons, own.box, own.object.tolist()))
    Image.fromarray(sheet(drawn)).save(Path(PICTURES) / "key_frame_outlines.jpg")
