"""Key frames, cameras and LiDAR of the nuScenes tables, as records of the index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from configs.errors import DataError
from scenes.index_layout import CHANNELS, CalibrationRecords, Floats, SampleRecords, SceneRecords, SensorRecords
from scenes.table_schemas import schema_of
from scenes.tables import Progress, read_large_table, read_small_table
from scenes.tokens import TokenArray, TokenMap, as_texts, decode_tokens

_SAMPLE = schema_of("sample", "token", "timestamp", "scene_token")
_EGO_POSE = schema_of("ego_pose", "token", "rotation", "translation")
_SAMPLE_DATA = schema_of(
    "sample_data",
    "sample_token",
    "ego_pose_token",
    "calibrated_sensor_token",
    "timestamp",
    "is_key_frame",
    "height",
    "width",
    "filename",
)
_NOT_USED = -1  # channel of a radar


def read_scenes(directory: Path) -> SceneRecords:
    """The scenes in table order."""
    records = read_small_table(directory / "scene.json", ("token", "name", "description"))
    return SceneRecords(
        tokens=small_tokens(records, "token", "scene"),
        names=[record["name"] for record in records],
        descriptions=[record["description"] for record in records],
    )


def read_samples(directory: Path, scenes: SceneRecords, progress: Progress) -> SampleRecords:
    """The key frames, sorted by (scene in table order, time)."""
    blocks = read_large_table(directory / "sample.json", _SAMPLE, _sample_columns, progress)
    tokens, scene_tokens, timestamps = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    scene = resolve(TokenMap(scenes.tokens), scene_tokens, "sample.scene_token", "scene")
    order = np.lexsort((timestamps, scene))
    return SampleRecords(tokens=tokens[order], scenes=scene[order], timestamps=timestamps[order])


def _sample_columns(block: pa.Table) -> tuple[TokenArray, TokenArray, NDArray[Any]]:
    return (
        decode_tokens(column(block, "token"), "sample.token"),
        decode_tokens(column(block, "scene_token"), "sample.scene_token"),
        column(block, "timestamp").to_numpy(),
    )


def read_sensors(
    directory: Path, samples: SampleRecords, progress: Progress
) -> tuple[SensorRecords, CalibrationRecords, int]:
    """Cameras and LiDAR with their poses, the calibrations, and the number of records of every sensor."""
    calibrations, calibration_tokens, channels = _read_calibrations(directory)
    calibration_map = TokenMap(calibration_tokens)
    counts: list[int] = []

    def convert(block: pa.Table) -> dict[str, Any]:
        counts.append(block.num_rows)
        tokens = decode_tokens(column(block, "calibrated_sensor_token"), "sample_data.calibrated_sensor_token")
        calibration = resolve(
            calibration_map, tokens, "sample_data.calibrated_sensor_token", "calibrated_sensor"
        ).astype(np.int32)
        used = np.flatnonzero(channels[calibration] != _NOT_USED)
        kept = block.take(pa.array(used))
        return {
            "samples": decode_tokens(column(kept, "sample_token"), "sample_data.sample_token"),
            "poses": decode_tokens(column(kept, "ego_pose_token"), "sample_data.ego_pose_token"),
            "calibrations": calibration[used],
            "timestamps": column(kept, "timestamp").to_numpy(),
            "key_frames": column(kept, "is_key_frame").to_numpy(zero_copy_only=False),
            "sizes": np.stack([column(kept, name).to_numpy() for name in ("height", "width")], axis=1),
            "files": column(kept, "filename"),
        }

    blocks = read_large_table(directory / "sample_data.json", _SAMPLE_DATA, convert, progress)
    files = pa.concat_arrays([block.pop("files") for block in blocks])
    joined = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    translations, rotations = _read_poses(directory, joined.pop("poses"), progress)
    sensors = SensorRecords(
        samples=resolve(TokenMap(samples.tokens), joined["samples"], "sample_data.sample_token", "sample"),
        channels=channels[joined["calibrations"]],
        key_frames=joined["key_frames"],
        timestamps=joined["timestamps"],
        sizes=joined["sizes"],
        files=files,
        calibrations=joined["calibrations"],
        translations=translations,
        rotations=rotations,
    )
    return sensors, calibrations, sum(counts)


def _read_poses(directory: Path, wanted: TokenArray, progress: Progress) -> tuple[Floats, Floats]:
    def convert(block: pa.Table) -> tuple[TokenArray, Floats, Floats]:
        return (
            decode_tokens(column(block, "token"), "ego_pose.token"),
            matrix(block, "translation", 3, "ego_pose"),
            matrix(block, "rotation", 4, "ego_pose"),
        )

    blocks = read_large_table(directory / "ego_pose.json", _EGO_POSE, convert, progress)
    tokens, translations, rotations = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    rows = resolve(TokenMap(tokens), wanted, "sample_data.ego_pose_token", "ego_pose")
    return translations[rows], rotations[rows]


def _read_calibrations(directory: Path) -> tuple[CalibrationRecords, TokenArray, NDArray[np.int8]]:
    """The calibrations, their tokens, and the channel of each (`_NOT_USED` for radar)."""
    sensors = read_small_table(directory / "sensor.json", ("token", "channel"))
    records = read_small_table(
        directory / "calibrated_sensor.json", ("token", "sensor_token", "translation", "rotation", "camera_intrinsic")
    )
    numbers = np.array([_channel_number(record["channel"]) for record in sensors], np.int8)
    rows = resolve(
        TokenMap(small_tokens(sensors, "token", "sensor")),
        small_tokens(records, "sensor_token", "calibrated_sensor"),
        "calibrated_sensor.sensor_token",
        "sensor",
    )
    calibrations = CalibrationRecords(
        translations=np.array([record["translation"] for record in records], float).reshape(-1, 3),
        rotations=np.array([record["rotation"] for record in records], float).reshape(-1, 4),
        intrinsics=np.array(
            [np.ravel(record["camera_intrinsic"]) if record["camera_intrinsic"] else np.zeros(9) for record in records]
        ).reshape(-1, 9),
    )
    return calibrations, small_tokens(records, "token", "calibrated_sensor"), numbers[rows]


def _channel_number(name: str) -> int:
    return CHANNELS.index(name) if name in CHANNELS else _NOT_USED


def column(block: pa.Table, name: str) -> pa.Array:
    """One column of a block as one array."""
    chunked = block.column(name)
    return chunked.chunk(0) if chunked.num_chunks == 1 else chunked.combine_chunks()


def matrix(block: pa.Table, name: str, width: int, table: str) -> Floats:
    """A column of lists of `width` numbers as `[n, width]`."""
    lists = column(block, name)
    lengths = np.diff(lists.offsets.to_numpy())
    values = lists.flatten()
    if not (lengths == width).all() or values.null_count:
        raise DataError(f"{table}.{name}: a record does not have {width} numbers", fix="get the metadata again")
    numbers: Floats = values.to_numpy().reshape(-1, width)
    return numbers


def small_tokens(records: list[dict[str, Any]], field: str, table: str) -> TokenArray:
    """Tokens of a table read whole."""
    return decode_tokens(pa.array([record[field] for record in records], pa.string()), f"{table}.{field}")


def resolve(targets: TokenMap, tokens: TokenArray, field: str, table: str) -> NDArray[np.int64]:
    """Rows of `tokens` in another table. Errors: `DataError` naming field, table and the first dangling token."""
    rows = targets.rows(tokens)
    dangling = np.flatnonzero(rows < 0)
    if len(dangling):
        raise DataError(
            f"{field}: {len(dangling)} tokens are not in {table}.json, the first is "
            f"{as_texts(tokens[dangling[:1]])[0]!r}",
            fix="the tables do not belong together: unpack one metadata archive again; "
            "`bevnext-sam2 data check` lists every fault",
        )
    return rows
