"""The tables of an index, and how records are sorted and linked into them.

- `scenes`: in table order; each with the first and last row of its samples.
- `samples`: key frames sorted by (scene, time); `sensor_rows` are their six cameras and the LiDAR in `sensors`,
  `first_annotation` to `last_annotation` (excluded) their boxes in `annotations`.
- `sensors`: cameras and LiDAR, key frames and sweeps, sorted by (scene, channel, time), so that the sweeps before a
  record are the rows before it, down to `first_sensor_rows` of the scene.
- `calibrations`, `annotations`, and `splits` (which scenes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from configs.errors import DataError
from configs.nuscenes import CAMERAS, CLASSES, LIDAR
from scenes.index_files import Counts, FileStamp, IndexFacts
from scenes.tokens import TokenArray, as_texts

CHANNELS: Final = (*CAMERAS, LIDAR)

Integers = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SceneRecords:
    """m scenes."""

    tokens: TokenArray
    names: Sequence[str]
    descriptions: Sequence[str]


@dataclass(frozen=True, slots=True)
class SampleRecords:
    """n key frames, sorted by (scene, time)."""

    tokens: TokenArray
    scenes: Integers
    timestamps: Integers


@dataclass(frozen=True, slots=True)
class CalibrationRecords:
    """Where sensors sit on the vehicle; intrinsics of a LiDAR are zero."""

    translations: Floats
    rotations: Floats
    intrinsics: Floats
    """[k, 9]"""


@dataclass(frozen=True, slots=True)
class SensorRecords:
    """Camera images and LiDAR sweeps, in any order."""

    samples: Integers
    """row of the key frame that the record belongs to"""
    channels: Integers
    """index into `CHANNELS`"""
    key_frames: NDArray[np.bool_]
    timestamps: Integers
    sizes: Integers
    """[n, 2] height, width"""
    files: pa.StringArray
    calibrations: Integers
    translations: Floats
    """[n, 3] ego pose at the time of the record"""
    rotations: Floats


@dataclass(frozen=True, slots=True)
class AnnotationRecords:
    """Boxes, sorted by sample."""

    tokens: TokenArray
    instances: TokenArray
    samples: Integers
    categories: Integers
    labels: Integers
    translations: Floats
    sizes: Floats
    rotations: Floats
    velocities: Floats
    """[n, 3] m/s in the global frame, NaN where unknown"""
    attributes: Integers
    """index into the header's attributes, -1 for none"""
    visibilities: Integers
    lidar_points: Integers
    radar_points: Integers


@dataclass(frozen=True, slots=True)
class Records:
    """Everything that an index is made from."""

    scenes: SceneRecords
    samples: SampleRecords
    calibrations: CalibrationRecords
    sensors: SensorRecords
    annotations: AnnotationRecords
    splits: Mapping[str, Sequence[str]]
    """scene names of each split"""
    categories: Sequence[str]
    attributes: Sequence[str]
    sample_data: int
    """records of every sensor in the source"""


def assemble(records: Records) -> dict[str, pa.Table]:
    """The tables of the index.

    Errors: `DataError` for a key frame without one record of each channel, or with images of several sizes.
    """
    scenes, samples = records.scenes, records.samples
    order, key_rows, first_rows = _sort_sensors(records.sensors, samples, len(scenes.names))
    _refuse_mixed_sizes(records.sensors.sizes[order][key_rows[:, : len(CAMERAS)]], samples)
    return {
        "scenes": _scene_table(scenes, samples, first_rows),
        "samples": _sample_table(samples, key_rows, records.annotations),
        "sensors": _sensor_table(records.sensors, order),
        "calibrations": pa.table(
            {
                "translation": vectors(records.calibrations.translations),
                "rotation": vectors(records.calibrations.rotations),
                "intrinsics": vectors(records.calibrations.intrinsics),
            }
        ),
        "annotations": _annotation_table(records.annotations),
        "splits": _split_table(records.splits, scenes.names),
    }


def facts_of(records: Records, version: str, source: str, fingerprint: dict[str, FileStamp]) -> IndexFacts:
    """What the header says about `records`."""
    rows = {split: _rows_of(members, records) for split, members in records.splits.items()}
    has_class = training_counts(records.annotations, len(records.samples.tokens)) > 0
    return IndexFacts(
        version=version,
        source=source,
        counts=Counts(
            scenes=len(records.scenes.names),
            samples=len(records.samples.tokens),
            sample_data=records.sample_data,
            annotations=len(records.annotations.labels),
        ),
        splits={split: len(own) for split, own in rows.items()},
        class_frames={split: has_class[own].sum(axis=0).tolist() for split, own in rows.items()},
        categories=list(records.categories),
        attributes=list(records.attributes),
        fingerprint=fingerprint,
    )


def _rows_of(members: Sequence[str], records: Records) -> NDArray[np.int64]:
    wanted = set(members)
    inside = np.array([name in wanted for name in records.scenes.names], bool)
    return np.flatnonzero(inside[records.samples.scenes])


def vectors(array: NDArray[Any]) -> pa.FixedSizeListArray:
    """`[n, k]` as one Arrow column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(array).reshape(-1)), array.shape[1])


def training_counts(annotations: AnnotationRecords, samples: int) -> Integers:
    """`[samples, 10]` uint16: boxes per class that hold a LiDAR or radar point (what BEVDet calls valid)."""
    valid = (annotations.labels >= 0) & (annotations.lidar_points + annotations.radar_points > 0)
    cells = annotations.samples[valid].astype(np.int64) * len(CLASSES) + annotations.labels[valid]
    return np.bincount(cells, minlength=samples * len(CLASSES)).reshape(samples, -1).astype(np.uint16)


def _sort_sensors(
    sensors: SensorRecords, samples: SampleRecords, scenes: int
) -> tuple[NDArray[np.int64], Integers, Integers]:
    """Order of the records; rows of the key frames `[n, 7]`; first row of each scene and channel `[m, 7]`."""
    group = samples.scenes[sensors.samples].astype(np.int64) * len(CHANNELS) + sensors.channels
    order = np.lexsort((sensors.timestamps, group))
    starts = np.searchsorted(group[order], np.arange(scenes * len(CHANNELS)))
    is_key = sensors.key_frames[order]
    rows = np.flatnonzero(is_key)
    cell = sensors.samples[order][rows].astype(np.int64) * len(CHANNELS) + sensors.channels[order][rows]
    found = np.bincount(cell, minlength=len(samples.tokens) * len(CHANNELS))
    wrong = np.flatnonzero(found != 1)
    if len(wrong):
        sample, channel = divmod(int(wrong[0]), len(CHANNELS))
        token = as_texts(samples.tokens[sample : sample + 1])[0]
        raise DataError(
            f"sample {token} has {found[wrong[0]]} key-frame records of {CHANNELS[channel]}, 1 is needed "
            f"({len(wrong)} such cases)",
            fix="`bevnext-sam2 data check` lists every fault; get the metadata again",
        )
    key_rows = np.empty(len(found), np.int32)
    key_rows[cell] = rows
    return order, key_rows.reshape(-1, len(CHANNELS)), starts.astype(np.int32).reshape(-1, len(CHANNELS))


def _refuse_mixed_sizes(sizes: Integers, samples: SampleRecords) -> None:
    """`sizes` `[n, 6, 2]`: images are collated into one array, so the six must agree."""
    mixed = np.flatnonzero((sizes != sizes[:, :1]).any(axis=(1, 2)))
    if len(mixed):
        token = as_texts(samples.tokens[mixed[:1]])[0]
        raise DataError(
            f"sample_data: the six images of sample {token} differ in size ({len(mixed)} such samples)",
            fix="bring the images of all cameras to one size, with their intrinsics",
        )


def _scene_table(scenes: SceneRecords, samples: SampleRecords, first_sensor_rows: Integers) -> pa.Table:
    numbers = np.arange(len(scenes.names))
    first = np.searchsorted(samples.scenes, numbers, side="left")
    last = np.searchsorted(samples.scenes, numbers, side="right") - 1
    return pa.table(
        {
            "token": vectors(scenes.tokens),
            "name": pa.array(scenes.names, pa.string()),
            "description": pa.array(scenes.descriptions, pa.string()),
            "first_row": first,
            "last_row": last,
            "first_sensor_rows": vectors(first_sensor_rows),
        }
    )


def _sample_table(samples: SampleRecords, key_rows: Integers, annotations: AnnotationRecords) -> pa.Table:
    n = len(samples.tokens)
    bounds = np.searchsorted(annotations.samples, np.arange(n + 1))
    return pa.table(
        {
            "token": vectors(samples.tokens),
            "scene": samples.scenes.astype(np.int32),
            "timestamp": samples.timestamps.astype(np.int64),
            "sensor_rows": vectors(key_rows),
            "first_annotation": bounds[:-1],
            "last_annotation": bounds[1:],
            "class_counts": vectors(training_counts(annotations, n)),
        }
    )


def _sensor_table(sensors: SensorRecords, order: NDArray[np.int64]) -> pa.Table:
    return pa.table(
        {
            "timestamp": sensors.timestamps[order].astype(np.int64),
            "size": vectors(sensors.sizes[order].astype(np.int32)),
            "file": sensors.files.take(pa.array(order)),
            "calibration": sensors.calibrations[order].astype(np.int32),
            "translation": vectors(sensors.translations[order]),
            "rotation": vectors(sensors.rotations[order]),
        }
    )


def _annotation_table(annotations: AnnotationRecords) -> pa.Table:
    return pa.table(
        {
            "token": vectors(annotations.tokens),
            "instance": vectors(annotations.instances),
            "category": annotations.categories.astype(np.int16),
            "label": annotations.labels.astype(np.int8),
            "translation": vectors(annotations.translations),
            "size": vectors(annotations.sizes),
            "rotation": vectors(annotations.rotations),
            "velocity": vectors(annotations.velocities),
            "attribute": annotations.attributes.astype(np.int16),
            "visibility": annotations.visibilities.astype(np.int8),
            "lidar_points": annotations.lidar_points.astype(np.int32),
            "radar_points": annotations.radar_points.astype(np.int32),
        }
    )


def _split_table(splits: Mapping[str, Sequence[str]], names: Sequence[str]) -> pa.Table:
    """One line per (split, scene)."""
    number = {name: i for i, name in enumerate(names)}
    pairs = [(split, number[scene]) for split, members in splits.items() for scene in members]
    return pa.table(
        {
            "split": pa.array([split for split, _ in pairs], pa.string()),
            "scene": np.array([scene for _, scene in pairs], np.int32),
        }
    )
