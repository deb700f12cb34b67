"""Boxes of a nuScenes results file, of detections or of tracks, sample by sample.

Tracks are what the tracking benchmark's format holds: `tracking_id`, `tracking_name` and `tracking_score` take the
place of `detection_name` and `detection_score`. A detection without `tracking_id` is an object of its own in each
frame.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from configs.errors import DataError
from configs.nuscenes import CLASS_OF_CATEGORY, CLASSES
from integration.labelling.boxes import FrameBoxes
from integration.scene_boxes import solid_corners

CATEGORY_OF_CLASS: Final = {name: category for category, name in reversed(CLASS_OF_CATEGORY.items())} | {
    "bus": "vehicle.bus.rigid"
}
"""A class says less than a category; the commonest category stands for it."""

_FIX: Final = "give a results file of `bevnext-sam2 eval` or `infer`, or of a tracker, for this split"
_LENGTHS: Final = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2}


@dataclass(frozen=True, slots=True)
class ResultBoxes:
    """The boxes of a split."""

    frames: Mapping[str, FrameBoxes]
    """By sample token, for every sample of the split."""
    tracked: bool
    """All boxes have a `tracking_id`."""
    sha256: str
    """Of the file."""


def read_results(path: Path, samples: Collection[str], min_score: float) -> ResultBoxes:
    """The boxes of a results file with at least `min_score`, for the samples of a split.

    Raises:
        DataError: no such file, not of the format, samples of the split missing, or no box left.
    """
    if not path.is_file():
        raise DataError(f"results file {path} does not exist", fix=_FIX)
    content = path.read_bytes()
    results = _results_in(path, content)
    if missing := [token for token in samples if token not in results]:
        raise DataError(
            f"{path} lacks {len(missing)} of the {len(samples)} samples of the split (first: {missing[0]})", fix=_FIX
        )
    records = {token: _chosen(path, token, results[token], min_score) for token in samples}
    if not any(records.values()):
        raise DataError(
            f"{path} holds no boxes with a score of {min_score:g} or more",
            fix="give one with higher scores, or lower `sam2 label --min-score`",
        )
    tracked = all("tracking_id" in record for own in records.values() for record in own)
    frames = {token: _frame_boxes(path, token, own, tracked) for token, own in records.items()}
    return ResultBoxes(frames, tracked, hashlib.sha256(content).hexdigest())


def _results_in(path: Path, content: bytes) -> dict[str, Any]:
    try:
        results = json.loads(content)["results"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a nuScenes results file: {error}", fix=_FIX) from error
    if not isinstance(results, dict) or not all(isinstance(records, list) for records in results.values()):
        raise DataError(f"{path}: `results` must map each sample token to a list of boxes", fix=_FIX)
    return results


def _chosen(path: Path, token: str, records: list[Any], min_score: float) -> list[dict[str, Any]]:
    for position, record in enumerate(records):
        if fault := _fault(record):
            raise DataError(f"{path}: sample {token}, box {position}: {fault}", fix=_FIX)
    return [record for record in records if _score(record) >= min_score]


def _fault(record: Any) -> str:
    """What is wrong with a box; empty when nothing is."""
    if not isinstance(record, dict):
        return "is not an object"
    for name, length in _LENGTHS.items():
        values = record.get(name)
        if not (isinstance(values, list) and len(values) == length and all(map(_is_finite, values))):
            return f"{name} must be {length} finite numbers, not {values!r}"
    if min(record["size"]) <= 0 or not any(record["rotation"]):
        return "size must be positive, and rotation a quaternion that is not 0"
    if _name(record) not in CLASSES:
        return f"{_name(record)!r} is not a class of the benchmark"
    if not _is_finite(_score(record)):
        return f"score must be a finite number, not {_score(record)!r}"
    return ""


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _name(record: Mapping[str, Any]) -> Any:
    return record.get("tracking_name", record.get("detection_name"))


def _score(record: Mapping[str, Any]) -> Any:
    return record.get("tracking_score", record.get("detection_score"))


def _frame_boxes(path: Path, token: str, records: list[dict[str, Any]], tracked: bool) -> FrameBoxes:
    def column(name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([record[name] for record in records], np.float64).reshape(len(records), _LENGTHS[name])

    instances = tuple(
        str(record["tracking_id"]) if tracked else f"{token}#{number}" for number, record in enumerate(records)
    )
    if len(set(instances)) < len(instances):
        twice = next(instance for instance in instances if instances.count(instance) > 1)
        raise DataError(f"{path}: sample {token} has two boxes with the tracking_id {twice!r}", fix=_FIX)
    names = [_name(record) for record in records]
    return FrameBoxes(
        corners=solid_corners(column("translation"), column("size"), column("rotation")),
        velocity=torch.from_numpy(column("velocity")),
        labels=np.array([CLASSES.index(name) for name in names], np.int64),
        categories=tuple(CATEGORY_OF_CLASS[name] for name in names),
        attributes=tuple(str(record.get("attribute_name", "")) for record in records),
        instances=instances,
        scores=np.array([_score(record) for record in records], np.float64),
    )
