"""What the index hands out: one key frame with its six cameras, its LiDAR sweep and its annotations.

Frames of reference: `global` is the map frame of the log, `ego` the vehicle (x forward, y left, z up). Every camera and
LiDAR record has the ego pose of its own time. Metres, microseconds, quaternions `(w, x, y, z)`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs.nuscenes import CAMERAS, REFERENCE_CAMERA

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
TextArray = NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class SceneInfo:
    """One scene; its key frames are the rows `first_row` to `last_row` of the index, both included."""

    name: str
    token: str
    description: str
    first_row: int
    last_row: int

    @property
    def rows(self) -> IntArray:
        """int64 rows of its key frames, in time order."""
        return np.arange(self.first_row, self.last_row + 1)


@dataclass(frozen=True, slots=True)
class LidarFrame:
    """One LiDAR sweep: a file of float32 points `(x, y, z, intensity, ring)` in the LiDAR frame."""

    path: Path
    timestamp_us: int
    ego_from_lidar: FloatArray
    """[4, 4]"""
    global_from_ego: FloatArray
    """[4, 4], at the time of the sweep"""


@dataclass(frozen=True, slots=True)
class CameraSweep:
    """One image between key frames."""

    path: Path
    timestamp_us: int
    intrinsics: FloatArray
    """[3, 3], pixels"""
    ego_from_cam: FloatArray
    """[4, 4]"""
    global_from_ego: FloatArray
    """[4, 4], at the time of the image"""


@dataclass(frozen=True, slots=True)
class Annotations:
    """The n boxes of one key frame, in the global frame, as annotated."""

    tokens: TextArray
    instance_tokens: TextArray
    categories: TextArray
    labels: IntArray
    """[n], index into `configs.nuscenes.CLASSES`; -1 for categories outside the detection task"""
    translation: FloatArray
    """[n, 3], centre of gravity"""
    size: FloatArray
    """[n, 3]: width, length, height"""
    rotation: FloatArray
    """[n, 4], wxyz"""
    velocity: FloatArray
    """[n, 2], m/s, by the rule of the devkit's `box_velocity`; NaN where unknown"""
    vertical_velocity: FloatArray
    """[n], m/s; NaN where unknown"""
    attributes: TextArray
    """'' where none"""
    visibility: IntArray
    """1 (0 to 40 % visible), 2, 3, 4 (80 to 100 %); 0 where not annotated"""
    num_lidar_pts: IntArray
    num_radar_pts: IntArray

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, keep: NDArray[np.bool_] | IntArray) -> Annotations:
        """The boxes that a mask or an array of positions names."""
        return Annotations(**{field.name: getattr(self, field.name)[keep] for field in fields(self)})


@dataclass(frozen=True, slots=True)
class Frame:
    """One key frame; camera arrays follow `configs.nuscenes.CAMERAS`."""

    row: int
    token: str
    scene_token: str
    timestamp_us: int
    image_paths: tuple[Path, ...]
    image_size: tuple[int, int]
    """height, width; the same for all six"""
    intrinsics: FloatArray
    """[6, 3, 3], pixels"""
    ego_from_cam: FloatArray
    """[6, 4, 4]"""
    global_from_ego_cam: FloatArray
    """[6, 4, 4], at the time of each camera"""
    camera_timestamps_us: IntArray
    """[6]"""
    lidar: LidarFrame
    annotations: Annotations

    @property
    def global_from_ego(self) -> FloatArray:
        """[4, 4]: the key frame's ego pose, which is the one at the time of CAM_FRONT."""
        pose: FloatArray = self.global_from_ego_cam[CAMERAS.index(REFERENCE_CAMERA)]
        return pose
