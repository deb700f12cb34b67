"""What is drawn of one sample: its six images, calibration and LiDAR points."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from configs.errors import DataError
from configs.nuscenes import CAMERAS
from evaluation.figures.projection import transform
from evaluation.global_boxes import FloatArray
from scenes.remote_root import sensor_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from scenes.frame import Frame
    from scenes.index import SceneIndex

_FIX = "run `bevnext-sam2 data check`"


@dataclass(frozen=True, slots=True)
class SampleView:
    """One sample as the figures take it; boxes come separately, in the global frame."""

    title: str
    cameras: tuple[str, ...]
    images: tuple[npt.NDArray[np.uint8], ...]
    """One RGB image `[height, width, 3]` a camera."""
    intrinsics: FloatArray
    """float64 `[cameras, 3, 3]`, pixels of `images`."""
    cam_from_global: FloatArray
    """float64 `[cameras, 4, 4]`, each with the ego pose of that camera's own time."""
    ego_from_global: FloatArray
    """float64 `[4, 4]` of the key frame."""
    points: FloatArray
    """float64 `[n, 3]`: LiDAR points in the ego frame of the key frame, metres."""
    delays: FloatArray
    """float64 `[cameras]`: seconds from the key frame to each image."""


def view_of(index: SceneIndex, row: int) -> SampleView:
    """Read the sample at `row` of an index.

    Raises:
        DataError: an image or the LiDAR file is missing or cannot be decoded.
    """
    frame = index.frame(row)
    scene = index.scene_of(row)
    ego_from_global = np.linalg.inv(frame.global_from_ego)
    return SampleView(
        title=f"{scene.name} · frame {row - scene.first_row + 1} of {scene.last_row - scene.first_row + 1}",
        cameras=CAMERAS,
        images=tuple(_read_image(path) for path in frame.image_paths),
        intrinsics=frame.intrinsics,
        cam_from_global=np.linalg.inv(frame.global_from_ego_cam @ frame.ego_from_cam),
        ego_from_global=ego_from_global,
        points=_read_points(frame, ego_from_global),
        delays=(frame.camera_timestamps_us - frame.timestamp_us) * 1e-6,
    )


def _read_image(path: Path) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(sensor_bytes(path))) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise DataError(f"image {path} cannot be read: {error}", fix=_FIX) from error


def _read_points(frame: Frame, ego_from_global: FloatArray) -> FloatArray:
    """The key frame's LiDAR sweep (x, y, z, intensity, ring) in the ego frame of the cameras."""
    lidar = frame.lidar
    try:
        raw = np.frombuffer(sensor_bytes(lidar.path), np.float32).reshape(-1, 5)
    except (OSError, ValueError) as error:
        raise DataError(
            f"LiDAR file {lidar.path} cannot be read: {error}", fix="run `bevnext-sam2 data check`"
        ) from error
    ego_from_lidar = ego_from_global @ lidar.global_from_ego @ lidar.ego_from_lidar
    return transform(ego_from_lidar, raw[:, :3].astype(np.float64))
