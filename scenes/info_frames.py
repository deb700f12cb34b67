"""Key frames as the three common info pickles describe them, in one form.

- BEVDet and mmdetection3d 1.0 (`bevdetv2-nuscenes_infos_*.pkl`): pose of every camera, scene tokens.
- mmdetection3d 1.1 and later (`nuscenes_infos_*.pkl`): no ego pose per camera; it is rebuilt from `lidar2cam`, which
  is compensated for the motion between LiDAR and camera. Times are seconds, labels numbers of the file's own list.
- SparseBEV (`nuscenes_infos_*_sweep.pkl`): only `global_from_cam` of each camera (stored transposed). The ego pose of
  the camera's time is not in the file: the one of the LiDAR is taken, and the rest counts as calibration, so that the
  product is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import DataError
from configs.nuscenes import CAMERAS
from scenes.frame import FloatArray, IntArray
from scenes.poses import transforms

Info = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class InfoSensor:
    """One image or LiDAR sweep."""

    channel: str
    file: str
    timestamp_us: int
    ego_from_sensor: FloatArray
    """[4, 4]"""
    global_from_ego: FloatArray
    """[4, 4]"""
    intrinsics: FloatArray
    """[3, 3], zero for LiDAR"""


@dataclass(frozen=True, slots=True)
class InfoBoxes:
    """n boxes in the LiDAR frame, as the file has them."""

    boxes: FloatArray
    """[n, 7]: x, y, z (gravity centre), l, w, h, yaw"""
    names: Sequence[str]
    """class or category names, '' for classes outside the file's list"""
    velocity: FloatArray
    """[n, 2], NaN where unknown"""
    num_lidar_pts: IntArray
    num_radar_pts: IntArray


@dataclass(frozen=True, slots=True)
class InfoFrame:
    """One key frame."""

    token: str
    timestamp_us: int
    scene: str | None
    """scene token, None where the file has none"""
    sensors: list[InfoSensor]
    """the six cameras and the LiDAR of the key frame, LiDAR last"""
    boxes: InfoBoxes
    sweeps: list[InfoSensor] = field(default_factory=list)
    """images or LiDAR sweeps before the key frame"""


def frames_of(content: Any, path: Path) -> Iterator[InfoFrame]:
    """The key frames of an info pickle, in its order. Errors: `DataError` for another form or a missing field."""
    fix = "the forms are BEVDet's, mmdetection3d 1.1's and SparseBEV's nuScenes info files"
    try:
        if "data_list" in content:
            categories = {label: name for name, label in content["metainfo"]["categories"].items()}
            yield from (_frame_of_mmdet3d(info, categories) for info in content["data_list"])
        elif "infos" in content:
            yield from (_frame_of_infos(info) for info in content["infos"])
        else:
            raise DataError(f"{path}: neither 'infos' nor 'data_list' in this pickle", fix=fix)
    except KeyError as error:
        raise DataError(f"{path}: a key frame lacks the field {error}", fix=fix) from None
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not the form of an info file ({error})", fix=fix) from None


def version_of(content: Any) -> str | None:
    """The nuScenes version that the file names."""
    if not isinstance(content, Mapping):
        return None
    details = content.get("metadata", content.get("metainfo"))
    version = details.get("version") if isinstance(details, Mapping) else None
    return version if isinstance(version, str) else None


# --- BEVDet, mmdetection3d 1.0, SparseBEV --------------------------------------------------------------------------


def _frame_of_infos(info: Info) -> InfoFrame:
    lidar = InfoSensor(
        channel="LIDAR_TOP",
        file=info["lidar_path"],
        timestamp_us=int(info["timestamp"]),
        ego_from_sensor=_pose(info, "lidar2ego"),
        global_from_ego=_pose(info, "ego2global"),
        intrinsics=np.zeros((3, 3)),
    )
    sweeps: list[InfoSensor] = []
    for sweep in info["sweeps"]:
        if "data_path" in sweep:
            sweeps.append(_lidar_sweep(sweep))
        else:
            sweeps += [_camera(name, camera, lidar) for name, camera in sweep.items()]
    return InfoFrame(
        token=info["token"],
        timestamp_us=int(info["timestamp"]),
        scene=info.get("scene_token"),
        sensors=[*(_camera(name, info["cams"][name], lidar) for name in CAMERAS), lidar],
        boxes=_boxes_of_infos(info),
        sweeps=sweeps,
    )


def _camera(name: str, camera: Info, lidar: InfoSensor) -> InfoSensor:
    if "sensor2global_rotation" in camera:
        global_from_cam = np.eye(4)
        global_from_cam[:3, :3] = np.asarray(camera["sensor2global_rotation"], float).T
        global_from_cam[:3, 3] = camera["sensor2global_translation"]
        global_from_ego = lidar.global_from_ego
        ego_from_cam = np.linalg.inv(global_from_ego) @ global_from_cam
    else:
        global_from_ego = _pose(camera, "ego2global")
        ego_from_cam = _pose(camera, "sensor2ego")
    return InfoSensor(
        channel=name,
        file=camera["data_path"],
        timestamp_us=int(camera["timestamp"]),
        ego_from_sensor=ego_from_cam,
        global_from_ego=global_from_ego,
        intrinsics=np.asarray(camera["cam_intrinsic"], float),
    )


def _lidar_sweep(sweep: Info) -> InfoSensor:
    return InfoSensor(
        channel="LIDAR_TOP",
        file=sweep["data_path"],
        timestamp_us=int(sweep["timestamp"]),
        ego_from_sensor=_pose(sweep, "sensor2ego"),
        global_from_ego=_pose(sweep, "ego2global"),
        intrinsics=np.zeros((3, 3)),
    )


def _boxes_of_infos(info: Info) -> InfoBoxes:
    if "gt_boxes" not in info:  # a test set
        return _no_boxes()
    return InfoBoxes(
        boxes=np.asarray(info["gt_boxes"], float).reshape(-1, 7),
        names=[str(name) for name in info["gt_names"]],
        velocity=np.asarray(info["gt_velocity"], float).reshape(-1, 2),
        num_lidar_pts=np.asarray(info["num_lidar_pts"], np.int64),
        num_radar_pts=np.asarray(info["num_radar_pts"], np.int64),
    )


def _pose(record: Info, name: str) -> FloatArray:
    return transforms(np.asarray(record[f"{name}_translation"], float), np.asarray(record[f"{name}_rotation"], float))


# --- mmdetection3d 1.1 ---------------------------------------------------------------------------------------------


def _frame_of_mmdet3d(info: Info, categories: Mapping[int, str]) -> InfoFrame:
    lidar = InfoSensor(
        channel="LIDAR_TOP",
        file=info["lidar_points"]["lidar_path"],
        timestamp_us=_microseconds(info["timestamp"]),
        ego_from_sensor=np.asarray(info["lidar_points"]["lidar2ego"], float),
        global_from_ego=np.asarray(info["ego2global"], float),
        intrinsics=np.zeros((3, 3)),
    )
    sweeps = [
        InfoSensor(
            channel="LIDAR_TOP",
            file=sweep["lidar_points"]["lidar_path"],
            timestamp_us=_microseconds(sweep["timestamp"]),
            ego_from_sensor=np.asarray(sweep["lidar_points"]["lidar2ego"], float),
            global_from_ego=np.asarray(sweep["ego2global"], float),
            intrinsics=np.zeros((3, 3)),
        )
        for sweep in info.get("lidar_sweeps") or []
    ]
    return InfoFrame(
        token=info["token"],
        timestamp_us=lidar.timestamp_us,
        scene=info.get("scene_token"),
        sensors=[*(_mmdet3d_camera(name, info["images"][name], lidar) for name in CAMERAS), lidar],
        boxes=_mmdet3d_boxes(info.get("instances") or [], categories),
        sweeps=sweeps,
    )


def _mmdet3d_camera(name: str, image: Info, lidar: InfoSensor) -> InfoSensor:
    ego_from_cam = np.asarray(image["cam2ego"], float)
    global_from_lidar = lidar.global_from_ego @ lidar.ego_from_sensor
    global_from_cam = global_from_lidar @ np.linalg.inv(np.asarray(image["lidar2cam"], float))
    return InfoSensor(
        channel=name,
        file=image["img_path"],
        timestamp_us=_microseconds(image["timestamp"]),
        ego_from_sensor=ego_from_cam,
        global_from_ego=global_from_cam @ np.linalg.inv(ego_from_cam),
        intrinsics=np.asarray(image["cam2img"], float)[:3, :3],
    )


def _mmdet3d_boxes(instances: Sequence[Info], categories: Mapping[int, str]) -> InfoBoxes:
    if not instances:
        return _no_boxes()
    return InfoBoxes(
        boxes=np.array([instance["bbox_3d"] for instance in instances], float),
        names=[categories.get(instance["bbox_label_3d"], "") for instance in instances],
        velocity=np.array([instance["velocity"] for instance in instances], float),
        num_lidar_pts=np.array([instance["num_lidar_pts"] for instance in instances], np.int64),
        num_radar_pts=np.array([instance["num_radar_pts"] for instance in instances], np.int64),
    )


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


def _no_boxes() -> InfoBoxes:
    none = np.zeros(0, np.int64)
    return InfoBoxes(np.zeros((0, 7)), [], np.zeros((0, 2)), none, none)
