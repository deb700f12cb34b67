"""The annotated boxes of a key frame in its six cameras."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from integration.projection import SIGNS, CameraRig, Pairs, Visibility, project_solids
from scenes.frame import Annotations, Frame
from scenes.poses import rotation_matrices


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
    half = annotations.size[:, None, [1, 0, 2]] / 2 * np.array(SIGNS)
    turned = half @ rotation_matrices(annotations.rotation).transpose(0, 2, 1)
    return torch.from_numpy(annotations.translation[:, None] + turned)


def known_velocity(annotations: Annotations) -> Tensor:
    """float64 `[n, 2]`, global frame; 0 where it is not known."""
    return torch.from_numpy(np.nan_to_num(annotations.velocity))


def annotated_pairs(frame: Frame, rig: CameraRig, visibility: Visibility | None = None) -> Pairs:
    """The annotated boxes that each camera sees, with ego motion and velocity."""
    annotations = frame.annotations
    return project_solids(annotated_corners(annotations), rig, known_velocity(annotations), visibility)
