"""Annotations to training boxes: global frame to the key frame's ego frame, in the project's box layout.

Boxes are `[x, y, z, l, w, h, yaw, vx, vy]`: gravity centre, metres, radians, metres per second.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scenes.frame import Annotations, FloatArray, IntArray
from scenes.poses import rotation_matrices


def training_boxes(annotations: Annotations, global_from_ego: FloatArray) -> tuple[FloatArray, IntArray]:
    """Boxes float64 `[n, 9]` in the ego frame, and their labels `[n]`.

    Kept are boxes of the ten classes with at least one LiDAR or radar point. An unknown velocity counts as zero, as in
    the published annotations.
    """
    seen = annotations.num_lidar_pts + annotations.num_radar_pts > 0
    kept = annotations.select(seen & (annotations.labels >= 0))
    return ego_boxes(kept, global_from_ego), kept.labels


def ego_boxes(annotations: Annotations, global_from_ego: FloatArray) -> FloatArray:
    """All boxes of `annotations`, float64 `[n, 9]`, by the rules of the nuScenes devkit.

    Box and velocity turn with the full rotation. Yaw is then read off as the devkit (pyquaternion) reads it,
    `atan2(-R01, R00)`, which differs from `atan2(R10, R00)` where the ego frame is tilted against the box.
    """
    ego_from_global = global_from_ego[:3, :3].T
    centres = (annotations.translation - global_from_ego[:3, 3]) @ ego_from_global.T
    rotations = ego_from_global @ rotation_matrices(annotations.rotation)
    yaw = np.arctan2(-rotations[:, 0, 1], rotations[:, 0, 0])
    velocity = np.concatenate([annotations.velocity, annotations.vertical_velocity[:, None]], axis=1)
    velocity[np.isnan(velocity).any(axis=1)] = 0.0
    velocity = velocity @ ego_from_global.T
    return np.concatenate([centres, annotations.size[:, [1, 0, 2]], yaw[:, None], velocity[:, :2]], axis=1)


def inside(boxes: FloatArray, limit: float) -> NDArray[np.bool_]:
    """Which boxes have |x| < limit and |y| < limit (metres)."""
    kept: NDArray[np.bool_] = (np.abs(boxes[:, :2]) < limit).all(axis=1)
    return kept


def wrap_yaw(boxes: FloatArray) -> FloatArray:
    """The same boxes with yaw in [-pi, pi)."""
    wrapped = boxes.copy()
    wrapped[:, 6] -= np.floor(boxes[:, 6] / (2 * np.pi) + 0.5) * 2 * np.pi
    return wrapped
