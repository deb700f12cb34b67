"""The index of a data set: every key frame, its sensors and its boxes, looked up in memory-mapped columns.

    index = open_index("data/nuscenes", "v1.0-trainval")
    for row in index.rows_in("val"):
        frame = index.frame(row)

No Python object is kept per record, so a loader worker costs next to nothing, and an index that is pickled (as spawned
workers do) is opened again from its files.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError, UsageError
from configs.index_location import index_directory
from configs.nuscenes import CAMERAS, LIDAR
from scenes.frame import Annotations, CameraSweep, Frame, IntArray, LidarFrame, SceneInfo
from scenes.index_builder import STAMPED_FILES, build_index
from scenes.index_files import IndexHeader, map_columns, read_header, stamps_of
from scenes.index_layout import CHANNELS
from scenes.poses import transforms
from scenes.remote_root import local_root
from scenes.tokens import TokenMap, as_texts, token_of

__all__ = ["SceneIndex", "build_index", "open_index"]

_LIDAR = CHANNELS.index(LIDAR)


def open_index(dataroot: Path | str, version: str, index_dir: Path | str | None = None) -> SceneIndex:
    """Open the index of a data set.

    Errors: `DataError` naming the command that makes it, when it is absent, damaged, of another schema, or older than
    the tables it was made from.
    """
    root = local_root(dataroot)
    directory = index_directory(root, version, index_dir)
    option = f" --index-dir {index_dir}" if index_dir else ""
    rebuild = f"bevnext-sam2 data index --data-root {root} --version {version}{option}"
    header = read_header(directory, rebuild)
    if header.version != version:
        raise DataError(f"{directory} holds an index of {header.version}, not of {version}", fix=rebuild)
    if header.source == "tables":
        _refuse_stale(header, root / version, directory, rebuild)
    try:
        return SceneIndex(root, directory, header)
    except FileNotFoundError:  # its files were there, so another build has replaced them since
        return open_index(dataroot, version, index_dir)


def _refuse_stale(header: IndexHeader, source: Path, directory: Path, rebuild: str) -> None:
    now = stamps_of(source, STAMPED_FILES)
    changed = sorted(name for name in {*now, *header.fingerprint} if now.get(name) != header.fingerprint.get(name))
    if changed:
        gone = [name for name in changed if name not in now]
        what = f"{', '.join(gone)} gone" if gone else f"{', '.join(changed)} changed"
        raise DataError(f"the index in {directory} is stale: {what} in {source}", fix=rebuild)


class SceneIndex:
    """Key frames as rows, sorted by (scene, time), scenes in the order of their table."""

    def __init__(self, dataroot: Path, directory: Path, header: IndexHeader) -> None:
        self.dataroot = dataroot
        self.version = header.version
        self.header = header
        self._directory = directory
        tables = {name: map_columns(directory / file.name) for name, file in header.files.items()}
        self._scenes = tables["scenes"]
        self._samples = tables["samples"]
        self._sensors = tables["sensors"]
        self._calibrations = tables["calibrations"]
        self._annotations = tables["annotations"]
        self._split_members = tables["splits"]

    def __reduce__(self) -> tuple[Any, ...]:
        return SceneIndex, (self.dataroot, self._directory, self.header)

    def __len__(self) -> int:
        """Number of key frames."""
        return self._samples.rows

    def splits(self) -> tuple[str, ...]:
        """Names of the splits that this data set has."""
        return tuple(self.header.splits)

    def rows_in(self, split: str) -> IntArray:
        """int64 rows of a split, ascending. Errors: `UsageError` naming the known splits."""
        if split not in self.header.splits:
            known = ", ".join(self.header.splits) or "none"
            raise UsageError(f"{self.version} has no split {split!r}", fix=f"choose one of: {known}")
        named = np.array(self._split_members.texts["split"].to_pylist()) == split
        scenes = np.sort(self._split_members.arrays["scene"][named])
        ranges = [self._scene(int(scene)).rows for scene in scenes]
        return np.concatenate(ranges) if ranges else np.zeros(0, np.int64)

    def row_of(self, sample_token: str) -> int:
        """Row of a sample. Errors: `UsageError` for an unknown token."""
        token = token_of(sample_token)
        row = -1 if token is None else int(self._sample_map.rows(token[None])[0])
        if row < 0:
            raise UsageError(
                f"{self.version} has no sample {sample_token!r}", fix="give the token of a record of sample.json"
            )
        return row

    def token(self, row: int) -> str:
        """Sample token of a row."""
        return str(as_texts(self._samples.arrays["token"][row : row + 1])[0])

    def scene_of(self, row: int) -> SceneInfo:
        """The scene of a row."""
        return self._scene(int(self._samples.arrays["scene"][row]))

    def scene_named(self, name_or_token: str) -> SceneInfo:
        """A scene by its name or token. Errors: `UsageError` for an unknown one."""
        names = self._scenes.texts["name"].to_pylist()
        tokens = as_texts(self._scenes.arrays["token"]).tolist()
        for known in (names, tokens):
            if name_or_token in known:
                return self._scene(known.index(name_or_token))
        raise UsageError(
            f"{self.version} has no scene {name_or_token!r}", fix=f"scenes are named like {names[0]} to {names[-1]}"
        )

    def class_counts(self, rows: Iterable[int]) -> IntArray:
        """int64 `[n, 10]`: boxes per class with at least one LiDAR or radar point (BEVDet's valid boxes)."""
        counts: IntArray = self._samples.arrays["class_counts"][np.asarray(rows, np.int64)].astype(np.int64)
        return counts

    def frame(self, row: int) -> Frame:
        """The key frame of a row, put together from the mapped columns."""
        samples, sensors, calibrations = self._samples.arrays, self._sensors.arrays, self._calibrations.arrays
        cameras = samples["sensor_rows"][row, :_LIDAR]
        calibration = sensors["calibration"][cameras]
        height, width = sensors["size"][cameras[0]].tolist()
        return Frame(
            row=int(row),
            token=self.token(row),
            scene_token=self.scene_of(row).token,
            timestamp_us=int(samples["timestamp"][row]),
            image_paths=tuple(self._path(camera) for camera in cameras),
            image_size=(height, width),
            intrinsics=calibrations["intrinsics"][calibration].reshape(-1, 3, 3),
            ego_from_cam=_pose(calibrations, calibration),
            global_from_ego_cam=_pose(sensors, cameras),
            camera_timestamps_us=sensors["timestamp"][cameras],
            lidar=self._lidar(int(samples["sensor_rows"][row, _LIDAR])),
            annotations=self._annotations_of(row),
        )

    def lidar_sweeps(self, row: int, count: int) -> list[LidarFrame]:
        """Up to `count` LiDAR sweeps before the key frame's own, newest first, none from another scene."""
        return [self._lidar(sensor) for sensor in self._sensors_before(row, _LIDAR, count)]

    def camera_sweeps(self, row: int, camera: str, count: int) -> list[CameraSweep]:
        """Up to `count` images of one camera before the key frame's own, newest first, none from another scene."""
        return [self._camera_sweep(sensor) for sensor in self._sensors_before(row, CAMERAS.index(camera), count)]

    @cached_property
    def _sample_map(self) -> TokenMap:
        return TokenMap(self._samples.arrays["token"])

    def _scene(self, number: int) -> SceneInfo:
        columns = self._scenes
        return SceneInfo(
            name=columns.texts["name"][number].as_py(),
            token=str(as_texts(columns.arrays["token"][number : number + 1])[0]),
            description=columns.texts["description"][number].as_py(),
            first_row=int(columns.arrays["first_row"][number]),
            last_row=int(columns.arrays["last_row"][number]),
        )

    def _sensors_before(self, row: int, channel: int, count: int) -> range:
        own = int(self._samples.arrays["sensor_rows"][row, channel])
        scene = int(self._samples.arrays["scene"][row])
        first = int(self._scenes.arrays["first_sensor_rows"][scene, channel])
        return range(own - 1, max(own - count, first) - 1, -1)

    def _path(self, sensor: int) -> Path:
        return self.dataroot / str(self._sensors.texts["file"][int(sensor)])

    def _lidar(self, sensor: int) -> LidarFrame:
        columns = self._sensors.arrays
        return LidarFrame(
            path=self._path(sensor),
            timestamp_us=int(columns["timestamp"][sensor]),
            ego_from_lidar=_pose(self._calibrations.arrays, columns["calibration"][sensor]),
            global_from_ego=_pose(columns, sensor),
        )

    def _camera_sweep(self, sensor: int) -> CameraSweep:
        columns, calibrations = self._sensors.arrays, self._calibrations.arrays
        calibration = columns["calibration"][sensor]
        return CameraSweep(
            path=self._path(sensor),
            timestamp_us=int(columns["timestamp"][sensor]),
            intrinsics=calibrations["intrinsics"][calibration].reshape(3, 3),
            ego_from_cam=_pose(calibrations, calibration),
            global_from_ego=_pose(columns, sensor),
        )

    def _annotations_of(self, row: int) -> Annotations:
        first, last = (int(self._samples.arrays[name][row]) for name in ("first_annotation", "last_annotation"))
        own = {name: array[first:last] for name, array in self._annotations.arrays.items()}
        return Annotations(
            tokens=as_texts(own["token"]),
            instance_tokens=as_texts(own["instance"]),
            categories=np.array(self.header.categories, dtype=np.str_)[own["category"]],
            labels=own["label"].astype(np.int64),
            translation=own["translation"].copy(),
            size=own["size"].copy(),
            rotation=own["rotation"].copy(),
            velocity=own["velocity"][:, :2].copy(),
            vertical_velocity=own["velocity"][:, 2].copy(),
            attributes=np.array([*self.header.attributes, ""])[own["attribute"]],
            visibility=own["visibility"].astype(np.int64),
            num_lidar_pts=own["lidar_points"].astype(np.int64),
            num_radar_pts=own["radar_points"].astype(np.int64),
        )


def _pose(columns: Any, rows: Any) -> NDArray[np.float64]:
    """`[..., 4, 4]` from the translation and rotation of some rows."""
    return transforms(columns["translation"][rows], columns["rotation"][rows])
