"""Key frames of info pickles as records of the index."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa

from configs.errors import DataError
from configs.nuscenes import CLASS_OF_CATEGORY, CLASSES
from scenes.frame import FloatArray
from scenes.index_layout import (
    CHANNELS,
    AnnotationRecords,
    CalibrationRecords,
    Records,
    SampleRecords,
    SceneRecords,
    SensorRecords,
)
from scenes.info_frames import InfoBoxes, InfoFrame, InfoSensor
from scenes.poses import quaternion_of
from scenes.tokens import TokenArray, decode_tokens


@dataclass(frozen=True, slots=True)
class InfoScene:
    """The key frames of a scene, in time order."""

    split: str
    token: str
    frames: list[InfoFrame]


@dataclass(slots=True)
class _Columns:
    """Sensor records under construction, and the calibrations that they share."""

    root: Path
    samples: list[int] = field(default_factory=list)
    channels: list[int] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    calibrations: list[int] = field(default_factory=list)
    poses: list[FloatArray] = field(default_factory=list)
    known: dict[bytes, int] = field(default_factory=dict)
    rigs: list[FloatArray] = field(default_factory=list)

    def add(self, sensor: InfoSensor, sample: int, key: bool) -> None:
        """One record."""
        rig = np.concatenate([_position(sensor.ego_from_sensor), sensor.intrinsics.ravel()])
        number = self.known.setdefault(rig.tobytes(), len(self.rigs))
        if number == len(self.rigs):
            self.rigs.append(rig)
        self.samples.append(sample)
        self.channels.append(CHANNELS.index(sensor.channel))
        self.keys.append(key)
        self.times.append(sensor.timestamp_us)
        self.files.append(_file_below(self.root, sensor))
        self.calibrations.append(number)
        self.poses.append(_position(sensor.global_from_ego))

    def records(self, image_size: tuple[int, int]) -> tuple[SensorRecords, CalibrationRecords]:
        """What has been added."""
        poses, rigs = np.array(self.poses), np.array(self.rigs)
        sensors = SensorRecords(
            samples=np.array(self.samples),
            channels=np.array(self.channels),
            key_frames=np.array(self.keys),
            timestamps=np.array(self.times),
            sizes=np.tile(image_size, (len(self.files), 1)),
            files=pa.array(self.files, pa.string()),
            calibrations=np.array(self.calibrations),
            translations=poses[:, :3],
            rotations=poses[:, 3:],
        )
        return sensors, CalibrationRecords(rigs[:, :3], rigs[:, 3:7], rigs[:, 7:])


def records_of(scenes: list[InfoScene], root: Path, image_size: tuple[int, int]) -> Records:
    """The records of an index. Errors: `DataError` when a sample stands in the files twice."""
    frames = [frame for scene in scenes for frame in scene.frames]
    names = [f"import-{number:04d}" for number in range(1, len(scenes) + 1)]
    columns = _Columns(root)
    for row, frame in enumerate(frames):
        for sensor in frame.sensors:
            columns.add(sensor, row, key=True)
    _add_sweeps(scenes, columns)
    sensors, calibrations = columns.records(image_size)
    splits: dict[str, list[str]] = defaultdict(list)
    for name, scene in zip(names, scenes, strict=True):
        splits[scene.split].append(name)
    tokens = _tokens([frame.token for frame in frames], "token")
    _refuse_repeats(frames)
    return Records(
        scenes=SceneRecords(_tokens([scene.token for scene in scenes], "scene_token"), names, [""] * len(names)),
        samples=SampleRecords(
            tokens=tokens,
            scenes=np.repeat(np.arange(len(scenes)), [len(scene.frames) for scene in scenes]),
            timestamps=np.array([frame.timestamp_us for frame in frames]),
        ),
        calibrations=calibrations,
        sensors=sensors,
        annotations=_annotations(frames),
        splits=splits,
        categories=_categories(frames),
        attributes=[],
        sample_data=len(sensors.samples),
    )


def _add_sweeps(scenes: list[InfoScene], columns: _Columns) -> None:
    """Each image or sweep once, although the lists of neighbouring key frames overlap."""
    row = 0
    for scene in scenes:
        seen = {_file_below(columns.root, sensor) for frame in scene.frames for sensor in frame.sensors}
        for frame in scene.frames:
            for sweep in frame.sweeps:
                file = _file_below(columns.root, sweep)
                if file not in seen:
                    seen.add(file)
                    columns.add(sweep, row, key=False)
            row += 1


def _file_below(root: Path, sensor: InfoSensor) -> str:
    """Path below the data root: from `samples` or `sweeps` on; a bare name lies in the root, or with the key frames."""
    parts = PurePosixPath(sensor.file).parts
    for folder in ("samples", "sweeps"):
        if folder in parts:
            return str(PurePosixPath(*parts[parts.index(folder) :]))
    name = parts[-1]
    return name if (root / name).is_file() else f"samples/{sensor.channel}/{name}"


def _position(pose: FloatArray) -> FloatArray:
    """`[4, 4]` -> `[7]`: translation and quaternion."""
    return np.concatenate([pose[:3, 3], quaternion_of(pose[:3, :3])])


def _tokens(texts: list[str], where: str) -> TokenArray:
    return decode_tokens(pa.array(texts, pa.string()), f"info file: {where}")


def _refuse_repeats(frames: list[InfoFrame]) -> None:
    seen: set[str] = set()
    for frame in frames:
        if frame.token in seen:
            raise DataError(f"sample {frame.token} stands in the info files twice", fix="import disjoint splits")
        seen.add(frame.token)


# --- boxes ---------------------------------------------------------------------------------------------------------


def _categories(frames: list[InfoFrame]) -> list[str]:
    others = {name for frame in frames for name in frame.boxes.names} - set(CLASSES)
    return [*CLASSES, *sorted(others)]


def _label(name: str) -> int:
    known = CLASS_OF_CATEGORY.get(name, name)
    return CLASSES.index(known) if known in CLASSES else -1


def _annotations(frames: list[InfoFrame]) -> AnnotationRecords:
    categories = {name: i for i, name in enumerate(_categories(frames))}
    names = [name for frame in frames for name in frame.boxes.names]
    n = len(names)
    centres, rotations, velocities = (
        np.concatenate(parts) for parts in zip(*(_global_boxes(frame) for frame in frames), strict=True)
    )
    none = np.zeros((n, 2), np.uint64)
    return AnnotationRecords(
        tokens=none,
        instances=none,
        samples=np.repeat(np.arange(len(frames)), [len(frame.boxes.names) for frame in frames]),
        categories=np.array([categories[name] for name in names], np.int64),
        labels=np.array([_label(name) for name in names], np.int64),
        translations=centres,
        sizes=np.concatenate([frame.boxes.boxes[:, [4, 3, 5]] for frame in frames]),
        rotations=rotations,
        velocities=velocities,
        attributes=np.full(n, -1),
        visibilities=np.zeros(n, np.int64),
        lidar_points=np.concatenate([frame.boxes.num_lidar_pts for frame in frames]),
        radar_points=np.concatenate([frame.boxes.num_radar_pts for frame in frames]),
    )


def _global_boxes(frame: InfoFrame) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Centres `[n, 3]`, quaternions `[n, 4]` and velocities `[n, 3]` in the global frame, where boxes stand upright.

    The files' yaw is the devkit's, `atan2(-R01, R00)` of the box in the LiDAR frame; since the box is upright in the
    global frame, its yaw there differs by a constant of the frame. The vertical velocity was dropped after the turn
    into the LiDAR frame; the one that makes the global velocity level again is put back.
    """
    lidar = frame.sensors[-1]
    global_from_lidar = lidar.global_from_ego @ lidar.ego_from_sensor
    turn = global_from_lidar[:3, :3]
    boxes: InfoBoxes = frame.boxes
    centres = boxes.boxes[:, :3] @ turn.T + global_from_lidar[:3, 3]
    lidar_from_global = turn.T
    yaw = boxes.boxes[:, 6] + np.arctan2(lidar_from_global[0, 1], lidar_from_global[0, 0])
    zeros = np.zeros_like(yaw)
    rotations = np.stack([np.cos(yaw / 2), zeros, zeros, np.sin(yaw / 2)], axis=1)
    x, y = boxes.velocity.T
    z = -(turn[2, 0] * x + turn[2, 1] * y) / turn[2, 2]
    velocities = np.stack([x, y, z], axis=1) @ turn.T
    return centres, rotations, velocities
