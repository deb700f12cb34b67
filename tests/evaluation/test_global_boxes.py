"""Boxes in the global frame, against the devkit's own box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nuscenes.utils.data_classes import Box
from pyquaternion import Quaternion

from configs.nuscenes import CLASSES
from detectors.interface import Detections
from evaluation.global_boxes import GlobalBoxes, attribute_of, from_detections


def tilted_pose(seed: int) -> np.ndarray:
    """A vehicle far from the map's origin whose z axis leans by about 2 degrees."""
    random = np.random.default_rng(seed)
    heading = Quaternion(axis=[0, 0, 1], angle=random.uniform(-np.pi, np.pi))
    lean = Quaternion(axis=[*random.normal(size=2), 0], degrees=2)
    pose = (heading * lean).transformation_matrix
    pose[:3, 3] = random.normal(size=3) * 1000
    return np.asarray(pose)


def detections_of(count: int, seed: int) -> Detections:
    random = np.random.default_rng(seed)
    values = np.concatenate(
        [
            random.uniform(-50, 50, (count, 3)),
            random.uniform(0.5, 8, (count, 3)),
            random.uniform(-np.pi, np.pi, (count, 1)),
            random.normal(size=(count, 2)) * 5,
        ],
        axis=1,
    )
    labels = torch.from_numpy(random.integers(0, 10, count))
    return Detections(torch.from_numpy(values).float(), torch.linspace(1, 0.1, count), labels)


def test_detections_move_with_the_pose_and_stand_upright() -> None:
    pose, found = tilted_pose(0), detections_of(20, 1)
    moved = from_detections(found, pose)
    for i, (x, y, z, length, width, height, yaw, vx, vy) in enumerate(found.boxes.double().tolist()):
        box = Box([x, y, z], [width, length, height], Quaternion(axis=[0, 0, 1], angle=yaw), velocity=(vx, vy, 0))
        box.rotate(Quaternion(matrix=pose[:3, :3]))
        box.translate(pose[:3, 3])
        np.testing.assert_allclose(moved.centres[i], box.center, atol=1e-9)
        np.testing.assert_allclose(moved.sizes[i], box.wlh)
        np.testing.assert_allclose(moved.velocities[i], box.velocity[:2])
        ahead = Quaternion(moved.rotations[i]).rotate([1, 0, 0])
        assert ahead[2] == pytest.approx(0, abs=1e-12)
        np.testing.assert_allclose(np.arctan2(ahead[1], ahead[0]), np.arctan2(*box.rotation_matrix[[1, 0], 0]))


def test_corners_are_those_of_the_devkit() -> None:
    random = np.random.default_rng(3)
    quaternions = random.normal(size=(6, 4))
    boxes = GlobalBoxes(
        centres=random.normal(size=(6, 3)),
        sizes=random.uniform(1, 5, (6, 3)),
        rotations=quaternions,
        velocities=np.zeros((6, 2)),
        labels=np.zeros(6, np.int64),
        scores=np.ones(6),
        attributes=("",) * 6,
    )
    for i, corners in enumerate(boxes.corners()):
        expected = Box(boxes.centres[i], boxes.sizes[i], Quaternion(quaternions[i])).corners().T
        np.testing.assert_allclose(corners, expected, atol=1e-12)


def test_nothing_found_is_fine() -> None:
    assert len(from_detections(detections_of(0, 0), tilted_pose(0))) == 0


@pytest.mark.parametrize(
    ("name", "standing", "moving"),
    [
        ("car", "vehicle.parked", "vehicle.moving"),
        ("bus", "vehicle.stopped", "vehicle.moving"),
        ("motorcycle", "cycle.without_rider", "cycle.with_rider"),
        ("pedestrian", "pedestrian.standing", "pedestrian.moving"),
        ("traffic_cone", "", ""),
        ("barrier", "", ""),
    ],
)
def test_attributes_follow_class_and_speed(name: str, standing: str, moving: str) -> None:
    assert name in CLASSES
    assert attribute_of(name, 0.2) == standing
    assert attribute_of(name, 0.21) == moving
