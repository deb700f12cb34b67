"""The annotated boxes and LiDAR points of a key frame, in the frame of its six cameras' rig."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from integration.projection import SIGNS, CameraRig, Pairs, Visibility, project_solids
from scenes.boxes import ego_boxes
from scenes.depth_map import read_points
from scenes.frame import Annotations, Frame
from scenes.poses import FloatArray, rotation_matrices


def rig_of(frame: Frame) -> CameraRig:
    """The six cameras of a key frame; boxes are in the *global* frame at the key frame's time."""
    cam_from_global = np.linalg.inv(frame.global_from_ego_cam @ frame.ego_from_cam)
    return CameraRig(
        img_from_cam=torch.from_numpy(frame.intrinsics.copy()),
        cam_from_ego=torch.from_numpy(cam_from_global),
        image_size=frame.image_size,
        delay=torch.from_numpy((frame.camera_timestamps_us - frame.timestamp_us) * 1e-6),
    )


def annotated_corners(annotations: Annotations) -> Tensor:
    """float64 `[n, 8, 3]`, global frame, in the order of `projection.SIGNS`."""
    return solid_corners(annotations.translation, annotations.size, annotations.rotation)


def solid_corners(translation: FloatArray, size: FloatArray, rotation: FloatArray) -> Tensor:
    """As `annotated_corners`, of centres `[n, 3]`, sizes `[n, 3]` (width, length, height), quaternions `[n, 4]`."""
    half = size[:, None, [1, 0, 2]] / 2 * np.array(SIGNS)
    turned = half @ rotation_matrices(rotation).transpose(0, 2, 1)
    return torch.from_numpy(translation[:, None] + turned)


def known_velocity(annotations: Annotations) -> Tensor:
    """float64 `[n, 2]`, global frame; 0 where it is not known."""
    return torch.from_numpy(np.nan_to_num(annotations.velocity))


def annotated_pairs(frame: Frame, rig: CameraRig, visibility: Visibility | None = None) -> Pairs:
    """The annotated boxes that each camera sees, with ego motion and velocity."""
    annotations = frame.annotations
    return project_solids(annotated_corners(annotations), rig, known_velocity(annotations), visibility)


def annotated_boxes(annotations: Annotations) -> Tensor:
    """float64 `[n, 9]`, global frame: the project's upright boxes; an unknown velocity counts as zero."""
    return torch.from_numpy(ego_boxes(annotations, np.eye(4)))


def lidar_points(frame: Frame) -> Tensor:
    """float64 `[n, 3]`: the key frame's sweep in the global frame, with the pose of its own time.

    Raises:
        DamagedFileError: the sweep is missing or damaged.
    """
    global_from_lidar = frame.lidar.global_from_ego @ frame.lidar.ego_from_lidar
    points = read_points(frame.lidar.path).astype(np.float64)
    return torch.from_numpy(points @ global_from_lidar[:3, :3].T + global_from_lidar[:3, 3])
