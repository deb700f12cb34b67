"""Writes nuScenes tables of any size, formatted as nuScenes ships them, without images: for benchmarks and tests.

Every record has every field and every token resolves. Numbers have realistic lengths; tracks and poses are smooth
enough for velocities to exist, nothing more. For a data set with pictures, see `scenes.synthetic`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from configs.nuscenes import CAMERAS, CLASS_OF_CATEGORY, LIDAR
from scenes.splits import PUBLISHED_SAMPLES, official_splits

RADARS: Final = ("RADAR_FRONT", "RADAR_FRONT_LEFT", "RADAR_FRONT_RIGHT", "RADAR_BACK_LEFT", "RADAR_BACK_RIGHT")
SENSORS: Final = (*CAMERAS, LIDAR, *RADARS)
SWEEPS_PER_SAMPLE: Final = {**dict.fromkeys(CAMERAS, 5), LIDAR: 9, **dict.fromkeys(RADARS, 5)}
CATEGORIES: Final = (*CLASS_OF_CATEGORY, "animal", "human.pedestrian.stroller", "static_object.bicycle_rack")
ATTRIBUTES: Final = (
    "vehicle.moving",
    "vehicle.stopped",
    "vehicle.parked",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.sitting_lying_down",
    "pedestrian.standing",
    "pedestrian.moving",
)
LEVELS: Final = ("v0-40", "v40-60", "v60-80", "v80-100")
LARGE: Final = ("sample", "sample_data", "ego_pose", "calibrated_sensor", "instance", "sample_annotation", "scene")
LOG_NAME: Final = "n015-2018-07-24-11-22-45+0800"
FIRST_TIME: Final = 1_532_402_927_647_951
SAMPLE_TIME: Final = 500_000  # microseconds between key frames
LAST_ATTRIBUTE: Final = len(ATTRIBUTES) - 1


@dataclass(frozen=True, slots=True)
class SceneSize:
    """What one scene holds."""

    name: str
    samples: int
    extra_sweeps: int
    """radar sweeps beyond `SWEEPS_PER_SAMPLE`"""
    instances: int
    annotations: int


def trainval_sizes() -> list[SceneSize]:
    """The published size of v1.0-trainval: 34,149 samples, 2,631,083 sample_data, 1,166,187 boxes of 64,386 objects."""
    splits, published = official_splits(), PUBLISHED_SAMPLES["v1.0-trainval"]
    names = [*splits["train"], *splits["val"]]
    samples = [count for split in ("train", "val") for count in share(published[split], len(splits[split]))]
    sweeps = 2_631_083 - sum(samples) * (len(SENSORS) + sum(SWEEPS_PER_SAMPLE.values()))
    parts = (share(total, len(names)) for total in (sweeps, 64_386, 1_166_187))
    return [SceneSize(*values) for values in zip(names, samples, *parts, strict=True)]


def small_sizes(names: Sequence[str], samples: int = 4, instances: int = 6) -> list[SceneSize]:
    """A few short scenes, for tests."""
    return [SceneSize(name, samples, 0, instances, instances * (samples - 1)) for name in names]


def share(total: int, parts: int) -> list[int]:
    """`total` in `parts` as equal as can be."""
    return [total // parts + (i < total % parts) for i in range(parts)]


def write_tables(root: Path, version: str, sizes: Sequence[SceneSize], workers: int = 1) -> Path:
    """Write the 13 tables to `<root>/<version>` and return that directory. The same sizes give the same bytes."""
    directory = root / version
    directory.mkdir(parents=True)
    for name, records in _vocabulary().items():
        (directory / f"{name}.json").write_text(as_array(records))
    with ExitStack() as stack:
        files = {name: stack.enter_context((directory / f"{name}.json").open("w")) for name in LARGE}
        for number, tables in enumerate(_scenes(sizes, workers, stack)):
            for name, text in tables.items():
                files[name].write(("[\n" if number == 0 else ",\n") + text)
        for file in files.values():
            file.write("\n]")
    return directory


def as_array(records: Iterable[dict[str, Any]]) -> str:
    """A table as nuScenes ships it: one value a line, no indentation."""
    return json.dumps(list(records), indent=0)


def _scenes(sizes: Sequence[SceneSize], workers: int, stack: ExitStack) -> Iterator[dict[str, str]]:
    if workers == 1:
        return map(_scene, range(len(sizes)), sizes)
    pool = stack.enter_context(ProcessPoolExecutor(workers))
    return pool.map(_scene, range(len(sizes)), sizes, chunksize=4)


def _scene(number: int, size: SceneSize) -> dict[str, str]:
    """The records of one scene in each of the `LARGE` tables, without brackets."""
    rng = np.random.default_rng(number)
    tokens = partial(_tokens, rng)
    start = FIRST_TIME + number * 25_000_000
    scene, samples = tokens(1)[0], tokens(size.samples)
    times = [start + i * SAMPLE_TIME for i in range(size.samples)]
    calibrations = tokens(len(SENSORS))
    sample_data, poses = _sensor_records(rng, size, samples, times, calibrations)
    instances, annotations = _tracks(rng, size, samples)
    records = [
        {
            "token": token,
            "timestamp": time,
            "prev": samples[i - 1] if i else "",
            "next": samples[i + 1] if i + 1 < size.samples else "",
            "scene_token": scene,
        }
        for i, (token, time) in enumerate(zip(samples, times, strict=True))
    ]
    info = {
        "token": scene,
        "log_token": f"{2:032x}",
        "nbr_samples": size.samples,
        "first_sample_token": samples[0],
        "last_sample_token": samples[-1],
        "name": size.name,
        "description": "Parked truck, construction {cones}, intersection, turn left",
    }
    return {
        "sample": _records(records),
        "sample_data": ",\n".join(sample_data),
        "ego_pose": ",\n".join(poses),
        "calibrated_sensor": _records(_calibrations(calibrations)),
        "instance": ",\n".join(instances),
        "sample_annotation": ",\n".join(annotations),
        "scene": _records([info]),
    }


def _tokens(rng: np.random.Generator, count: int) -> list[str]:
    digits = rng.bytes(16 * count).hex()
    return [digits[i : i + 32] for i in range(0, len(digits), 32)]


def _records(records: Iterable[dict[str, Any]]) -> str:
    return as_array(records)[2:-2]


def _sensor_records(
    rng: np.random.Generator, size: SceneSize, samples: list[str], times: list[int], calibrations: list[str]
) -> tuple[list[str], list[str]]:
    """sample_data and ego_pose; as in nuScenes a record and its pose share their token."""
    sample_data: list[str] = []
    poses: list[str] = []
    extra = share(size.extra_sweeps, len(samples))
    for sensor, channel in enumerate(SENSORS):
        steps: list[tuple[int, int]] = []  # sample, time
        for i, time in enumerate(times):
            sweeps = SWEEPS_PER_SAMPLE[channel] + (extra[i] if channel == RADARS[0] else 0)
            steps += [(i, time + 997 * sensor + k * SAMPLE_TIME // (sweeps + 1)) for k in range(sweeps + 1)]
        tokens = ["", *_tokens(rng, len(steps)), ""]
        kind, height, width = ("jpg", 900, 1600) if channel in CAMERAS else ("pcd", 0, 0)
        ending = {LIDAR: "pcd.bin"}.get(channel, kind)
        drift = rng.standard_normal((len(steps), 2)) * 1e-3
        for k, (i, time) in enumerate(steps):
            key = k == 0 or steps[k - 1][0] != i
            folder = "samples" if key else "sweeps"
            token = tokens[k + 1]
            sample_data.append(
                f'{{\n"token": "{token}",\n"sample_token": "{samples[i]}",\n"ego_pose_token": "{token}",\n'
                f'"calibrated_sensor_token": "{calibrations[sensor]}",\n"timestamp": {time},\n"fileformat": "{kind}",\n'
                f'"is_key_frame": {"true" if key else "false"},\n"height": {height},\n"width": {width},\n'
                f'"filename": "{folder}/{channel}/{LOG_NAME}__{channel}__{time}.{ending}",\n'
                f'"prev": "{tokens[k]}",\n"next": "{tokens[k + 2]}"\n}}'
            )
            poses.append(_pose(token, time, (time - times[0]) * 1e-6, drift[k]))
    return sample_data, poses


def _pose(token: str, time: int, seconds: float, drift: Any) -> str:
    angle = 0.3 + 0.01 * seconds
    x, y = 410.77878632230204 + 5 * seconds + drift[0], 1179.4673290964536 + drift[1]
    return (
        f'{{\n"token": "{token}",\n"timestamp": {time},\n"rotation": [\n{float(np.cos(angle))},\n{drift[0] * 0.1},\n'
        f"{drift[1] * 0.1},\n{float(np.sin(angle))}\n],\n"
        f'"translation": [\n{x},\n{y},\n0.0\n]\n}}'
    )


def _tracks(rng: np.random.Generator, size: SceneSize, samples: list[str]) -> tuple[list[str], list[str]]:
    instances: list[str] = []
    annotations: list[str] = []
    for token, length in zip(_tokens(rng, size.instances), share(size.annotations, size.instances), strict=True):
        first = int(rng.integers(len(samples) - length + 1))
        own = _tokens(rng, length)
        category = int(rng.integers(len(CATEGORIES)))
        instances.append(
            f'{{\n"token": "{token}",\n"category_token": "{category + 100:032x}",\n"nbr_annotations": {length},\n'
            f'"first_annotation_token": "{own[0]}",\n"last_annotation_token": "{own[-1]}"\n}}'
        )
        annotations += _track(rng, token, ["", *own, ""], samples[first : first + length])
    return instances, annotations


def _track(rng: np.random.Generator, instance: str, tokens: list[str], samples: list[str]) -> Iterator[str]:
    """The boxes of one object; `tokens` has an empty one at each end."""
    centre, speed = rng.uniform(300, 500, 3), rng.uniform(-8, 8, 3) * (1, 1, 0)
    width, length, height = rng.uniform((0.5, 0.6, 1.0), (2.5, 6.0, 3.0)).round(3).tolist()
    angle = rng.uniform(-np.pi, np.pi)
    points = rng.integers(0, 60, (len(samples), 2)) // (1, 12)
    levels = rng.integers(1, 5, len(samples))
    attribute = int(rng.integers(len(ATTRIBUTES) + 1))
    attributes = "[]" if attribute > LAST_ATTRIBUTE else f'[\n"{attribute + 200:032x}"\n]'
    for i, sample in enumerate(samples):
        x, y, z = (centre + 0.5 * i * speed).round(3).tolist()
        yield (
            f'{{\n"token": "{tokens[i + 1]}",\n"sample_token": "{sample}",\n"instance_token": "{instance}",\n'
            f'"visibility_token": "{levels[i]}",\n"attribute_tokens": {attributes},\n'
            f'"translation": [\n{x},\n{y},\n{z}\n],\n"size": [\n{width},\n{length},\n{height}\n],\n'
            f'"rotation": [\n{float(np.cos(angle / 2))},\n0.0,\n0.0,\n{float(np.sin(angle / 2))}\n],\n'
            f'"prev": "{tokens[i]}",\n"next": "{tokens[i + 2]}",\n'
            f'"num_lidar_pts": {points[i, 0]},\n"num_radar_pts": {points[i, 1]}\n}}'
        )


def _calibrations(tokens: list[str]) -> Iterator[dict[str, Any]]:
    intrinsic = [
        [1266.417203046554, 0.0, 816.2670197447984],
        [0.0, 1266.417203046554, 491.50706579294757],
        [0.0, 0.0, 1.0],
    ]
    for number, (token, channel) in enumerate(zip(tokens, SENSORS, strict=True)):
        angle = number * 0.5235987755982988
        yield {
            "token": token,
            "sensor_token": f"{number + 300:032x}",
            "translation": [1.70079118954 - number * 0.1, 0.0159456324149, 1.51095763913],
            "rotation": [float(np.cos(angle)), 0.0, 0.0, float(np.sin(angle))],
            "camera_intrinsic": intrinsic if channel in CAMERAS else [],
        }


def _vocabulary() -> dict[str, list[dict[str, Any]]]:
    """The tables that do not grow with the number of scenes."""
    modality = {**dict.fromkeys(CAMERAS, "camera"), LIDAR: "lidar", **dict.fromkeys(RADARS, "radar")}
    return {
        "attribute": [
            {"token": f"{i + 200:032x}", "name": name, "description": ""} for i, name in enumerate(ATTRIBUTES)
        ],
        "category": [
            {"token": f"{i + 100:032x}", "name": name, "description": ""} for i, name in enumerate(CATEGORIES)
        ],
        "visibility": [{"description": "", "token": str(i + 1), "level": level} for i, level in enumerate(LEVELS)],
        "sensor": [
            {"token": f"{i + 300:032x}", "channel": name, "modality": modality[name]} for i, name in enumerate(SENSORS)
        ],
        "log": [
            {
                "token": f"{2:032x}",
                "logfile": LOG_NAME,
                "vehicle": "n015",
                "date_captured": "2018-07-24",
                "location": "singapore-onenorth",
            }
        ],
        "map": [
            {
                "category": "semantic_prior",
                "token": f"{3:032x}",
                "filename": "maps/map.png",
                "log_tokens": [f"{2:032x}"],
            }
        ],
    }
