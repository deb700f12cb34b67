"""Boxes of one moment in the ego frame as a JSON list: what `demo` writes, and reads, for images in a folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from configs.errors import DataError
from configs.nuscenes import CLASSES
from detectors.interface import Detections
from evaluation.global_boxes import GlobalBoxes, from_detections

FIELDS: Final = ("x", "y", "z", "length", "width", "height", "yaw", "vx", "vy")
"""Of a box beside `class` and `score`: gravity centre and velocity in the ego frame, metres, radians, m/s."""
_SIZES: Final = FIELDS[3:6]
_DEFAULTS: Final[dict[str, Any]] = {"vx": 0.0, "vy": 0.0, "score": 1.0}


def box_records(boxes: GlobalBoxes) -> list[dict[str, object]]:
    """Boxes of such a sample, as `boxes.json` holds them (global frame = ego frame)."""
    heading = 2 * np.arctan2(boxes.rotations[:, 3], boxes.rotations[:, 0])
    columns = (boxes.centres, boxes.sizes[:, [1, 0, 2]], heading[:, None], boxes.velocities)
    rows = np.concatenate(columns, axis=1).round(3).tolist()
    return [
        {"class": CLASSES[label], "score": round(float(score), 4), **dict(zip(FIELDS, row, strict=True))}
        for label, score, row in zip(boxes.labels, boxes.scores, rows, strict=True)
    ]


def read_boxes(path: Path) -> GlobalBoxes:
    """The boxes of a file that `box_records` describes; `score`, `vx` and `vy` may be left out.

    Raises:
        DataError: no such file, or a box that lacks a field, has an unknown class, or holds what is no number.
    """
    fix = f"give a list of boxes, each with class, {', '.join(FIELDS[:7])} (and score, vx, vy)"
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", fix=fix) from error
    if not isinstance(content, list):
        raise DataError(f"{path} holds no list", fix=fix)
    rows, labels = np.zeros((len(content), len(FIELDS) + 1)), np.zeros(len(content), np.int64)
    for place, record in enumerate(content):
        if fault := _fault(record):
            raise DataError(f"{path}: box {place}: {fault}", fix=fix)
        given = _DEFAULTS | record
        rows[place], labels[place] = [given[name] for name in (*FIELDS, "score")], CLASSES.index(given["class"])
    found = Detections(torch.from_numpy(rows[:, :9]), torch.from_numpy(rows[:, 9]), torch.from_numpy(labels))
    return from_detections(found, np.eye(4))


def _fault(record: Any) -> str:
    """What is wrong with a box; empty when nothing is."""
    if not isinstance(record, dict):
        return "is not an object"
    given: dict[str, Any] = _DEFAULTS | record
    if missing := [name for name in ("class", *FIELDS) if name not in given]:
        return f"lacks {', '.join(missing)}"
    if given["class"] not in CLASSES:
        return f"class {given['class']!r} is none of {', '.join(CLASSES)}"
    for name in (*FIELDS, "score"):
        value = given[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"{name} is {value!r}, not a finite number"
        if name in _SIZES and value <= 0:
            return f"{name} is {value}, not above 0"
    return ""
