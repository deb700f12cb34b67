"""From the published raw outputs to the published results file, box by box in its order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import golden_rule
import numpy as np
import pytest
import torch
from goldens import Golden
from nuscenes.utils.data_classes import Box
from pyquaternion import Quaternion

from configs.nuscenes import CLASSES
from configs.schema import BevGridConfig, HeadConfig
from detectors.bevnext.decode import decode_maps
from detectors.bevnext.grid import BevGrid
from detectors.bevnext.tasks import REGRESSIONS
from detectors.interface import Detections
from evaluation.global_boxes import from_detections
from evaluation.published_results import as_published
from evaluation.results import write_results

POSE = Quaternion(axis=[0, 0, 1], angle=2.5) * Quaternion(axis=[0.6, 0.8, 0], degrees=2.2)
PLACE = np.array([1010.5, 612.25, 1.5])
STANDING = {
    "car": "vehicle.parked", "pedestrian": "pedestrian.moving", "trailer": "vehicle.parked", "truck": "vehicle.parked",
    "bus": "vehicle.moving", "motorcycle": "cycle.without_rider", "construction_vehicle": "vehicle.parked",
    "bicycle": "cycle.without_rider", "barrier": "", "traffic_cone": "",
}  # fmt: skip


def pose_matrix() -> np.ndarray[Any, np.dtype[np.float64]]:
    matrix = np.asarray(POSE.transformation_matrix)
    matrix[:3, 3] = PLACE
    return matrix


def published_record(box: np.ndarray[Any, Any], score: float, label: int) -> dict[str, Any]:
    """What the authors' exporter makes of one box of their head (bottom centre, l w h), step by step."""
    name = CLASSES[label]
    moved = Box(
        box[:3].tolist(),
        box[[4, 3, 5]].tolist(),
        Quaternion(axis=[0, 0, 1], radians=float(box[6])),
        velocity=(*box[7:9].tolist(), 0.0),
    )
    moved.rotate(POSE)
    moved.translate(PLACE)
    if np.hypot(*moved.velocity[:2]) > 0.2:
        vehicles = ("car", "construction_vehicle", "bus", "truck", "trailer")
        cycles = ("bicycle", "motorcycle")
        attribute = STANDING[name]
        attribute = "vehicle.moving" if name in vehicles else attribute
        attribute = "cycle.with_rider" if name in cycles else attribute
    else:
        attribute = {"pedestrian": "pedestrian.standing", "bus": "vehicle.stopped"}.get(name, STANDING[name])
    return {
        "sample_token": "token",
        "translation": moved.center.tolist(),
        "size": moved.wlh.tolist(),
        "rotation": moved.orientation.elements.tolist(),
        "velocity": moved.velocity[:2].tolist(),
        "detection_name": name,
        "detection_score": score,
        "attribute_name": attribute,
    }


def assert_same_record(ours: dict[str, Any], theirs: dict[str, Any], digits: float) -> None:
    assert ours.keys() == theirs.keys()
    for name in ("sample_token", "detection_name", "attribute_name"):
        assert ours[name] == theirs[name], name
    for name in ("translation", "size", "velocity", "detection_score"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=digits, err_msg=name)
    assert abs(np.dot(ours["rotation"], theirs["rotation"])) == pytest.approx(
        1, abs=digits
    )  # q and -q are one rotation


@pytest.mark.parity
@pytest.mark.parametrize("sample", [0, 1])
def test_raw_outputs_give_the_published_file(sample: int, tmp_path: Path) -> None:
    tasks = golden_rule.head_maps(2, "decode")
    heatmaps = [torch.from_numpy(maps["heatmap"]) for maps in tasks]
    boxes = [torch.from_numpy(np.concatenate([maps[name] for name in REGRESSIONS], 1)) for maps in tasks]
    found = decode_maps(heatmaps, boxes, BevGrid.of(BevGridConfig()), HeadConfig())[sample]
    boxes_as_published = as_published(from_detections(found, pose_matrix()), pose_matrix())
    path = write_results(tmp_path / "results.json", {"token": boxes_as_published})
    ours = json.loads(path.read_text())["results"]["token"]
    golden = Golden("decode_unit")
    stored = (golden[f"{name}_{sample}"] for name in ("boxes", "scores", "labels"))
    theirs = [published_record(box, float(score), int(label)) for box, score, label in zip(*stored, strict=True)]
    assert len(ours) == len(theirs) > 100
    assert len({record["detection_name"] for record in ours}) == len(CLASSES)
    for one, other in zip(ours, theirs, strict=True):
        assert_same_record(one, other, 1e-4)


def test_attributes_follow_the_speed_over_ground() -> None:
    """A cone of slow boxes around the limit: on a slope the speed from above is lower."""
    speeds = np.linspace(0.1995, 0.2005, 21)
    directions = np.linspace(0, np.pi, 21)
    for label in range(len(CLASSES)):
        boxes = np.zeros((21, 9), np.float32)
        boxes[:, 3:6] = 1
        boxes[:, 7], boxes[:, 8] = speeds * np.cos(directions), speeds * np.sin(directions)
        found = Detections(torch.from_numpy(boxes), torch.ones(21), torch.full((21,), label))
        moved = from_detections(found, pose_matrix())
        expected = [published_record(box, 1.0, label)["attribute_name"] for box in boxes]
        assert list(moved.attributes) == expected
    assert len(set(expected)) == 1  # cones have none
    flat = np.hypot(boxes[:, 7], boxes[:, 8]) > 0.2
    assert (flat != (np.linalg.norm(moved.velocities, axis=1) > 0.2)).any()


def test_nothing_found_is_fine() -> None:
    nothing = Detections(torch.zeros(0, 9), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert len(as_published(from_detections(nothing, pose_matrix()), pose_matrix())) == 0
