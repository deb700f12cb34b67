"""Labels as tables of the nuImages schema v1.0, which its devkit and our training read.

A nuImages *sample* is one image, so each key frame gives six. Tokens are made from what a record stands for: equal
labels, equal tables. Poses and calibrations are those of the data set; its images are rectified, so their distortion
is 0; what an inertial unit would tell (`rotation_rate`, `acceleration`, `speed`) is not in an index and stays `null`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from configs.errors import DataError
from configs.nuscenes import CAMERAS, CLASS_OF_CATEGORY
from integration.labelling.coco import Scenes
from integration.labelling.json_stream import write_table
from integration.labelling.records import LabelledImage, LabelledObject, SceneLabels
from scenes.frame import FloatArray, Frame
from scenes.index import SceneIndex
from scenes.poses import quaternion_of

Record = dict[str, Any]
_DISTORTION: Final = [0.0] * 5


def write_nuimages(root: Path, version: str, scenes: Scenes, index: SceneIndex) -> None:
    """Write the ten tables to `root/version`, and link the image folders of the data root beside them."""
    folder = root / version
    attributes = sorted({found.attribute for _, image in _images(scenes()) for found in image.objects} - {""})
    write_table(folder / "attribute.json", [_named("attribute", name) for name in attributes])
    write_table(folder / "category.json", [_named("category", name) for name in sorted(CLASS_OF_CATEGORY)])
    write_table(folder / "sensor.json", [_sensor(camera) for camera in CAMERAS])
    write_table(folder / "log.json", [_log(scene) for scene in scenes()])
    write_table(
        folder / "calibrated_sensor.json", _unique(_calibration(index, image) for _, image in _images(scenes()))
    )
    write_table(folder / "ego_pose.json", (_ego_pose(index, image) for _, image in _images(scenes())))
    write_table(folder / "sample.json", (_sample(scene, image) for scene, image in _images(scenes())))
    write_table(folder / "sample_data.json", (_sample_data(index, image) for _, image in _images(scenes())))
    write_table(
        folder / "object_ann.json",
        (_object(image, found) for _, image in _images(scenes()) for found in image.objects),
    )
    write_table(folder / "surface_ann.json", [])
    for name in sorted({Path(image.file_name).parts[0] for _, image in _images(scenes())}):
        _link(root / name, (index.dataroot / name).resolve())


def _link(link: Path, target: Path) -> None:
    if link.is_symlink():
        link.unlink()  # the data may have moved since
    elif link.exists():
        raise DataError(f"{link} is in the way of a link to {target}", fix="take it away, or name another --out")
    link.symlink_to(target)


def _images(scenes: Iterable[SceneLabels]) -> Iterator[tuple[SceneLabels, LabelledImage]]:
    for scene in scenes:
        for image in scene.images:
            yield scene, image


def _token(table: str, *parts: object) -> str:
    return hashlib.md5("/".join(map(str, (table, *parts))).encode(), usedforsecurity=False).hexdigest()


def _named(table: str, name: str) -> Record:
    return {"token": _token(table, name), "name": name, "description": ""}


def _sensor(camera: str) -> Record:
    return {"token": _token("sensor", camera), "channel": camera, "modality": "camera"}


def _log(scene: SceneLabels) -> Record:
    """A scene of ours stands for a log, since an index keeps no logs."""
    token = _token("log", scene.token)
    return {"token": token, "logfile": scene.name, "vehicle": "", "date_captured": "", "location": ""}


@dataclass(frozen=True, slots=True)
class _Camera:
    """One image's calibration and pose."""

    intrinsics: FloatArray
    ego_from_cam: FloatArray
    global_from_ego: FloatArray


def _camera(index: SceneIndex, image: LabelledImage) -> _Camera:
    frame, number = _frame(index, image.row), CAMERAS.index(image.camera)
    return _Camera(frame.intrinsics[number], frame.ego_from_cam[number], frame.global_from_ego_cam[number])


@lru_cache(maxsize=1)
def _frame(index: SceneIndex, row: int) -> Frame:
    """The six images of a key frame follow each other."""
    return index.frame(row)


def _calibration_token(image: LabelledImage, camera: _Camera) -> str:
    values = np.concatenate([camera.intrinsics.ravel(), camera.ego_from_cam.ravel()])
    return _token("calibrated_sensor", image.camera, *values.tolist())


def _calibration(index: SceneIndex, image: LabelledImage) -> Record:
    camera = _camera(index, image)
    return {
        "token": _calibration_token(image, camera),
        "sensor_token": _token("sensor", image.camera),
        "translation": camera.ego_from_cam[:3, 3].tolist(),
        "rotation": quaternion_of(camera.ego_from_cam[:3, :3]).tolist(),
        "camera_intrinsic": camera.intrinsics.tolist(),
        "camera_distortion": _DISTORTION,
    }


def _unique(records: Iterable[Record]) -> Iterator[Record]:
    known: set[str] = set()
    for record in records:
        if record["token"] not in known:
            known.add(record["token"])
            yield record


def _ego_pose(index: SceneIndex, image: LabelledImage) -> Record:
    pose = _camera(index, image).global_from_ego
    return {
        "token": _token("ego_pose", image.sample, image.camera),
        "translation": pose[:3, 3].tolist(),
        "rotation": quaternion_of(pose[:3, :3]).tolist(),
        "timestamp": image.timestamp_us,
        "rotation_rate": None,
        "acceleration": None,
        "speed": None,
    }


def _sample(scene: SceneLabels, image: LabelledImage) -> Record:
    return {
        "token": _token("sample", image.sample, image.camera),
        "timestamp": image.timestamp_us,
        "log_token": _token("log", scene.token),
        "key_camera_token": _token("sample_data", image.sample, image.camera),
    }


def _sample_data(index: SceneIndex, image: LabelledImage) -> Record:
    return {
        "token": _token("sample_data", image.sample, image.camera),
        "sample_token": _token("sample", image.sample, image.camera),
        "ego_pose_token": _token("ego_pose", image.sample, image.camera),
        "calibrated_sensor_token": _calibration_token(image, _camera(index, image)),
        "filename": image.file_name,
        "fileformat": Path(image.file_name).suffix.removeprefix("."),
        "width": image.width,
        "height": image.height,
        "timestamp": image.timestamp_us,
        "is_key_frame": True,
        "prev": "",
        "next": "",
    }


def _object(image: LabelledImage, found: LabelledObject) -> Record:
    """`bbox` is amodal, as nuImages annotates it: the bounds of the 3D box within the image."""
    left, top, right, bottom = found.outline_box
    counts = base64.b64encode(found.mask["counts"].encode()).decode()
    return {
        "token": _token("object_ann", image.sample, image.camera, found.instance),
        "sample_data_token": _token("sample_data", image.sample, image.camera),
        "category_token": _token("category", found.category),
        "attribute_tokens": [_token("attribute", found.attribute)] if found.attribute else [],
        "bbox": [
            max(round(left), 0),
            max(round(top), 0),
            min(round(right), image.width),
            min(round(bottom), image.height),
        ],
        "mask": {"size": list(found.mask["size"]), "counts": counts},
    }
