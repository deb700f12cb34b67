"""Results files as the authors' program writes them, for comparing files box by box.

Two things differ from the format's own convention, which `evaluation.results` follows. `translation` is the centre of
the box's *bottom*, and `rotation` keeps the vehicle's tilt: boxes stand upright on its floor, not in the world. The
heading, and all else, is the same. (mmdetection3d's `_format_bbox`; BEVDet and BEVNeXt inherit it.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from pyquaternion import Quaternion

from evaluation.global_boxes import FloatArray, GlobalBoxes
from evaluation.results import write_results
from scenes.index import SceneIndex


def write_published_results(path: Path, predictions: Mapping[str, GlobalBoxes], index: SceneIndex) -> Path:
    """Write predictions by sample token in the authors' convention."""
    poses = {token: index.frame(index.row_of(token)).global_from_ego for token in predictions}
    return write_results(path, {token: as_published(boxes, poses[token]) for token, boxes in predictions.items()})


def as_published(boxes: GlobalBoxes, global_from_ego: FloatArray) -> GlobalBoxes:
    """Boxes of ours with the bottom's centre as centre, tilted like the vehicle.

    Args:
        boxes: as `from_detections` gives them.
        global_from_ego: float64 `[4, 4]`, pose of the key frame.
    """
    rotation = global_from_ego[:3, :3]
    pose = Quaternion(matrix=rotation)
    turns = [pose * Quaternion(axis=[0, 0, 1], angle=yaw) for yaw in _yaw_in_ego(boxes.rotations, rotation)]
    return replace(
        boxes,
        centres=boxes.centres - boxes.sizes[:, 2:3] / 2 * rotation[:, 2],
        rotations=np.array([turn.elements for turn in turns]).reshape(-1, 4),
    )


def _yaw_in_ego(upright: FloatArray, rotation: FloatArray) -> FloatArray:
    """The yaw on the vehicle's floor whose heading, seen from above, is that of an upright quaternion."""
    yaw = 2 * np.arctan2(upright[:, 3], upright[:, 0])
    along, across = np.linalg.solve(rotation[:2, :2], np.stack([np.cos(yaw), np.sin(yaw)]))
    found: FloatArray = np.arctan2(across, along)
    return found
