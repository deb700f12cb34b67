"""The sensor rig: six cameras and a LiDAR where a nuScenes vehicle carries them.

Intrinsics and mounting poses are those of a typical nuScenes calibration, rounded, with a small variation per scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.nuscenes import CAMERAS

Floats = NDArray[np.float64]

FULL_SIZE = (900, 1600)
EGO_SIZE = (4.08, 1.73, 1.56)
EGO_CENTRE = 1.35
"""Length, width, height of the ego vehicle, and its middle ahead of the rear axle (the ego origin), metres."""

MOUNTING: dict[str, tuple[float, float, float, float, float]] = {
    "CAM_FRONT": (1.70, 0.016, 1.51, 0.0, 1266.4),
    "CAM_FRONT_LEFT": (1.52, 0.495, 1.51, 55.2, 1272.6),
    "CAM_FRONT_RIGHT": (1.55, -0.493, 1.50, -56.4, 1260.8),
    "CAM_BACK": (0.03, 0.003, 1.58, 180.0, 809.2),
    "CAM_BACK_LEFT": (1.04, 0.485, 1.59, 108.6, 1256.7),
    "CAM_BACK_RIGHT": (1.01, -0.481, 1.56, -110.8, 1259.5),
}
"""x, y, z (metres, ego frame), viewing direction (degrees, counter-clockwise from ahead), focal length (pixels)."""

TRIGGER_US: dict[str, int] = {
    "CAM_FRONT_LEFT": -43107,
    "CAM_FRONT": -35491,
    "CAM_FRONT_RIGHT": -27612,
    "CAM_BACK_RIGHT": -20058,
    "CAM_BACK": -10426,
    "CAM_BACK_LEFT": -528,
}
"""Microseconds between the end of a LiDAR sweep and a camera's exposure: the sweep passes the cameras in turn."""

BEAMS = 32
LIDAR_COLUMNS = 1084
BEAM_LOWEST = -30.67
BEAM_STEP = 4.0 / 3.0
LIDAR_POSITION = (0.944, 0.0, 1.84)


@dataclass(frozen=True, slots=True)
class CameraMount:
    """One camera: `intrinsic` 3x3 in pixels of the image as stored, `ego_from_cam` 4x4."""

    channel: str
    intrinsic: Floats
    ego_from_cam: Floats
    image_size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Rig:
    """All sensors of one scene."""

    cameras: tuple[CameraMount, ...]
    ego_from_lidar: Floats


def mount(rng: np.random.Generator, image_size: tuple[int, int]) -> Rig:
    """The rig of one scene for images of `image_size` (height, width)."""
    return Rig(
        cameras=tuple(_camera(rng, channel, image_size) for channel in CAMERAS),
        ego_from_lidar=_pose(_rotation_z(np.radians(-90 + rng.normal(0, 0.1))), np.array(LIDAR_POSITION)),
    )


def ego_pose_matrix(pose: Floats) -> Floats:
    """`global_from_ego` 4x4 of x, y, yaw: the ego vehicle stands level on the ground."""
    return _pose(_rotation_z(float(pose[2])), np.array([pose[0], pose[1], 0.0]))


def beam_directions() -> Floats:
    """Unit vectors `[1084 * 32, 3]` in the LiDAR frame, all rings of a column together, as stored by nuScenes."""
    azimuth = np.pi - (np.arange(LIDAR_COLUMNS) + 0.5) * (2 * np.pi / LIDAR_COLUMNS)
    elevation = np.radians(BEAM_LOWEST + BEAM_STEP * np.arange(BEAMS))
    az, el = np.meshgrid(azimuth, elevation, indexing="ij")
    beams = np.stack([np.cos(el) * np.cos(az), np.cos(el) * np.sin(az), np.sin(el)], axis=-1)
    return np.asarray(beams.reshape(-1, 3), np.float64)


def _camera(rng: np.random.Generator, channel: str, image_size: tuple[int, int]) -> CameraMount:
    x, y, z, degrees, focal = MOUNTING[channel]
    height, width = image_size
    focal *= 1 + rng.normal(0, 0.002)
    centre = np.array([816.0, 491.0]) + rng.normal(0, 8, 2)
    intrinsic = np.array([[focal, 0.0, centre[0]], [0.0, focal, centre[1]], [0.0, 0.0, 1.0]])
    scale = np.array([width / FULL_SIZE[1], height / FULL_SIZE[0]])
    intrinsic[:2] *= scale[:, None]
    intrinsic[:2, 2] += (scale - 1) / 2  # pixel centres are at integers, so image corners scale about (-0.5, -0.5)
    yaw = np.radians(degrees + rng.normal(0, 0.4))
    pitch, roll = np.radians(rng.normal(0, 0.35, 2))
    optical = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    rotation = _rotation_z(yaw) @ _rotation_y(pitch) @ _rotation_x(roll) @ optical
    position = np.array([x, y, z]) + rng.normal(0, 0.01, 3)
    return CameraMount(channel, intrinsic, _pose(rotation, position), image_size)


def _pose(rotation: Floats, translation: Floats) -> Floats:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, translation
    return pose


def _rotation_z(angle: float) -> Floats:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _rotation_y(angle: float) -> Floats:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def _rotation_x(angle: float) -> Floats:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
