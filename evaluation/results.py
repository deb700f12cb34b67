"""The official nuScenes detection results file: written, read back and checked.

`{"meta": {...}, "results": {sample_token: [box, ...]}}` with every sample of the split present, at most 500 boxes each,
in the global frame. `translation` is the gravity centre, as the format asks. The published mmdetection3d family writes
the bottom centre there; the metrics do not see it (they match in the ground plane), but viewers and trackers do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from configs.errors import DataError
from configs.nuscenes import CLASSES
from configs.replaced_file import replace_text
from evaluation.global_boxes import GlobalBoxes

MAX_BOXES: Final = 500
"""Boxes per sample that the benchmark accepts."""

CAMERA_ONLY: Final = {
    "use_camera": True,
    "use_lidar": False,
    "use_radar": False,
    "use_map": False,
    "use_external": False,
}

ATTRIBUTES: Final = (
    "pedestrian.moving",
    "pedestrian.sitting_lying_down",
    "pedestrian.standing",
    "cycle.with_rider",
    "cycle.without_rider",
    "vehicle.moving",
    "vehicle.parked",
    "vehicle.stopped",
    "",
)
"""Attribute names of the benchmark, and the empty one of classes without attributes."""

_LENGTHS: Final = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2}
_FIX: Final = "write the file again with `bevnext-sam2 eval` or `infer`"


def write_results(path: Path, predictions: Mapping[str, GlobalBoxes], meta: Mapping[str, bool] | None = None) -> Path:
    """Write predictions by sample token; of more than 500 boxes in a sample those with the highest scores are kept.

    Args:
        predictions: boxes of *every* sample of the split, an empty `GlobalBoxes` where nothing was found.
        meta: which sensors and sources were used; cameras alone by default.
    """
    results = {token: _records(token, boxes) for token, boxes in predictions.items()}
    content = {"meta": dict(meta or CAMERA_ONLY), "results": results}
    return replace_text(path, json.dumps(content, allow_nan=False))


def read_results(path: Path) -> dict[str, GlobalBoxes]:
    """Boxes by sample token.

    Raises:
        DataError: the file is missing, not JSON, or breaks a rule of the format; the message names sample and box.
    """
    results = _load(path)
    return {token: _boxes(path, token, records) for token, records in results.items()}


def best_boxes(boxes: GlobalBoxes) -> GlobalBoxes:
    """What a results file holds of a sample: at most 500, those with the highest scores."""
    best = np.argsort(-boxes.scores, kind="stable")[:MAX_BOXES]
    return boxes.keep(np.sort(best))  # in their order: the metrics let it decide between equal scores


def _records(token: str, boxes: GlobalBoxes) -> list[dict[str, Any]]:
    kept = best_boxes(boxes)
    velocities = np.nan_to_num(kept.velocities)  # annotations without neighbours have none, and JSON no NaN
    return [
        {
            "sample_token": token,
            "translation": kept.centres[i].tolist(),
            "size": kept.sizes[i].tolist(),
            "rotation": kept.rotations[i].tolist(),
            "velocity": velocities[i].tolist(),
            "detection_name": CLASSES[kept.labels[i]],
            "detection_score": float(kept.scores[i]),
            "attribute_name": kept.attributes[i],
        }
        for i in range(len(kept))
    ]


def _load(path: Path) -> dict[str, list[dict[str, Any]]]:
    if not path.is_file():
        raise DataError(f"results file {path} does not exist", fix="name a file that `eval` or `infer` wrote")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}", fix=_FIX) from error
    if not isinstance(content, dict) or not {"meta", "results"} <= content.keys():
        raise DataError(f"{path} is not a nuScenes results file: `meta` or `results` is missing", fix=_FIX)
    results = content["results"]
    if not isinstance(results, dict) or not all(isinstance(records, list) for records in results.values()):
        raise DataError(f"{path}: `results` must map each sample token to a list of boxes", fix=_FIX)
    return results


def _boxes(path: Path, token: str, records: list[dict[str, Any]]) -> GlobalBoxes:
    if len(records) > MAX_BOXES:
        raise DataError(f"{path}: sample {token} has {len(records)} boxes, at most {MAX_BOXES} are allowed", fix=_FIX)
    for position, record in enumerate(records):
        if fault := _fault(token, record):
            raise DataError(f"{path}: sample {token}, box {position}: {fault}", fix=_FIX)

    def column(name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([record[name] for record in records], np.float64).reshape(len(records), _LENGTHS[name])

    return GlobalBoxes(
        centres=column("translation"),
        sizes=column("size"),
        rotations=column("rotation"),
        velocities=column("velocity"),
        labels=np.array([CLASSES.index(record["detection_name"]) for record in records], np.int64),
        scores=np.array([record["detection_score"] for record in records], np.float64),
        attributes=tuple(record["attribute_name"] for record in records),
    )


def _fault(token: str, record: Any) -> str:
    """What is wrong with a box of a results file; empty when nothing is."""
    if not isinstance(record, dict):
        return "is not an object"
    if missing := sorted(_FIELDS - record.keys()):
        return f"lacks {', '.join(missing)}"
    for name, (rule, holds) in _RULES.items():
        if not holds(record[name]):
            return f"{name} must be {rule}, not {record[name]!r}"
    return "" if record["sample_token"] == token else f"sample_token is {record['sample_token']!r}"


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_finite(values: Any, length: int) -> bool:
    return isinstance(values, list) and len(values) == length and all(map(_is_finite, values))


_RULES: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "sample_token": ("a string", lambda value: isinstance(value, str)),
    "translation": ("3 finite numbers", lambda value: _are_finite(value, 3)),
    "size": ("3 positive numbers", lambda value: _are_finite(value, 3) and min(value) > 0),
    "rotation": ("a quaternion of 4 finite numbers, not all 0", lambda value: _are_finite(value, 4) and any(value)),
    "velocity": ("2 finite numbers", lambda value: _are_finite(value, 2)),
    "detection_name": ("a class of the benchmark", lambda value: value in CLASSES),
    "detection_score": ("a finite number", _is_finite),
    "attribute_name": ("an attribute of the benchmark", lambda value: value in ATTRIBUTES),
}
_FIELDS: Final = frozenset(_RULES)
