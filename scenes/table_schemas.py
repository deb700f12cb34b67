"""Fields, types and foreign keys of the 13 nuScenes v1.0 tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pyarrow as pa

_TEXT: Final = pa.string()
_TEXTS: Final = pa.list_(pa.string())
_WHOLE: Final = pa.int64()
_VECTOR: Final = pa.list_(pa.float64())

SCHEMAS: Final[dict[str, pa.Schema]] = {
    name: pa.schema(fields)
    for name, fields in {
        "attribute": {"token": _TEXT, "name": _TEXT, "description": _TEXT},
        "calibrated_sensor": {
            "token": _TEXT,
            "sensor_token": _TEXT,
            "translation": _VECTOR,
            "rotation": _VECTOR,
            "camera_intrinsic": pa.list_(_VECTOR),
        },
        "category": {"token": _TEXT, "name": _TEXT, "description": _TEXT},
        "ego_pose": {"token": _TEXT, "timestamp": _WHOLE, "rotation": _VECTOR, "translation": _VECTOR},
        "instance": {
            "token": _TEXT,
            "category_token": _TEXT,
            "nbr_annotations": _WHOLE,
            "first_annotation_token": _TEXT,
            "last_annotation_token": _TEXT,
        },
        "log": {"token": _TEXT, "logfile": _TEXT, "vehicle": _TEXT, "date_captured": _TEXT, "location": _TEXT},
        "map": {"token": _TEXT, "category": _TEXT, "filename": _TEXT, "log_tokens": _TEXTS},
        "sample": {"token": _TEXT, "timestamp": _WHOLE, "prev": _TEXT, "next": _TEXT, "scene_token": _TEXT},
        "sample_annotation": {
            "token": _TEXT,
            "sample_token": _TEXT,
            "instance_token": _TEXT,
            "visibility_token": _TEXT,
            "attribute_tokens": _TEXTS,
            "translation": _VECTOR,
            "size": _VECTOR,
            "rotation": _VECTOR,
            "prev": _TEXT,
            "next": _TEXT,
            "num_lidar_pts": _WHOLE,
            "num_radar_pts": _WHOLE,
        },
        "sample_data": {
            "token": _TEXT,
            "sample_token": _TEXT,
            "ego_pose_token": _TEXT,
            "calibrated_sensor_token": _TEXT,
            "timestamp": _WHOLE,
            "fileformat": _TEXT,
            "is_key_frame": pa.bool_(),
            "height": _WHOLE,
            "width": _WHOLE,
            "filename": _TEXT,
            "prev": _TEXT,
            "next": _TEXT,
        },
        "scene": {
            "token": _TEXT,
            "log_token": _TEXT,
            "nbr_samples": _WHOLE,
            "first_sample_token": _TEXT,
            "last_sample_token": _TEXT,
            "name": _TEXT,
            "description": _TEXT,
        },
        "sensor": {"token": _TEXT, "channel": _TEXT, "modality": _TEXT},
        "visibility": {"token": _TEXT, "level": _TEXT, "description": _TEXT},
    }.items()
}

LARGE_TABLES: Final = ("sample", "sample_data", "ego_pose", "instance", "sample_annotation")
"""Tables that are streamed; their records are flat and hold no free text."""


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """`table.field` holds tokens of `target`; empty only where `optional`."""

    table: str
    field: str
    target: str
    optional: bool = False


FOREIGN_KEYS: Final = (
    ForeignKey("calibrated_sensor", "sensor_token", "sensor"),
    ForeignKey("instance", "category_token", "category"),
    ForeignKey("instance", "first_annotation_token", "sample_annotation"),
    ForeignKey("instance", "last_annotation_token", "sample_annotation"),
    ForeignKey("map", "log_tokens", "log"),
    ForeignKey("sample", "scene_token", "scene"),
    ForeignKey("sample", "prev", "sample", optional=True),
    ForeignKey("sample", "next", "sample", optional=True),
    ForeignKey("sample_annotation", "sample_token", "sample"),
    ForeignKey("sample_annotation", "instance_token", "instance"),
    ForeignKey("sample_annotation", "attribute_tokens", "attribute"),
    ForeignKey("sample_annotation", "prev", "sample_annotation", optional=True),
    ForeignKey("sample_annotation", "next", "sample_annotation", optional=True),
    ForeignKey("sample_data", "sample_token", "sample"),
    ForeignKey("sample_data", "ego_pose_token", "ego_pose"),
    ForeignKey("sample_data", "calibrated_sensor_token", "calibrated_sensor"),
    ForeignKey("sample_data", "prev", "sample_data", optional=True),
    ForeignKey("sample_data", "next", "sample_data", optional=True),
    ForeignKey("scene", "log_token", "log"),
    ForeignKey("scene", "first_sample_token", "sample"),
    ForeignKey("scene", "last_sample_token", "sample"),
)
"""Visibility is not here: its tokens are the words `1` to `4`, not 32 digits, and it may be empty."""


def schema_of(table: str, *fields: str) -> pa.Schema:
    """The types of some fields of a table."""
    return pa.schema([SCHEMAS[table].field(name) for name in fields])
