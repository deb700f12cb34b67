"""The LiDAR metric: points where they fall, exact masks near 1, hulls below, and what each number counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from integration.lidar_points import points_in_images, points_in_solids, visible_points
from integration.masks.examples import ExactMasks
from integration.masks.point_evaluate import MasksOf, evaluate_by_points
from integration.masks.point_metric import PointScores, PointTruth, Scores
from integration.masks.session import table
from integration.projection import ALL_VISIBLE, CameraRig, Visibility, box_corners, project_boxes, worth
from integration.scene_boxes import annotated_boxes, annotated_corners, lidar_points, rig_of
from scenes.frame import Frame
from scenes.index import SceneIndex
from scenes.synthetic.labels import point_label_path

AHEAD = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
"""A camera at the origin that looks along x."""


def camera(height: int = 100, width: int = 200) -> CameraRig:
    intrinsics = torch.tensor([[100.0, 0, width / 2], [0, 100, height / 2], [0, 0, 1]])
    return CameraRig(intrinsics[None], AHEAD[None], (height, width))


def exact_masks(town: SceneIndex) -> MasksOf:
    exact = ExactMasks(town.dataroot)

    def masks_of(frame: Frame, boxes: Tensor, rig: CameraRig) -> Tensor:
        pairs = project_boxes(boxes, rig, ALL_VISIBLE)
        pairs = pairs.select(worth(pairs, Visibility()))
        numbers = torch.from_numpy(exact.numbers(town, frame))[pairs.object]
        maps = torch.from_numpy(np.stack([exact.read(path) for path in frame.image_paths]).astype(np.int64))
        return maps[pairs.camera] == numbers[:, None, None]

    return masks_of


@pytest.fixture(scope="module")
def exact_scores(town: SceneIndex) -> Scores:
    return evaluate_by_points(exact_masks(town), town, range(len(town))).summary()


def test_a_point_falls_where_the_camera_sees_it() -> None:
    seen = points_in_images(torch.tensor([[10.0, 1.0, 2.0], [-10, 1, 2], [10, 50, 0]]), camera())
    assert seen.point.tolist() == [0]
    assert seen.pixel.tolist() == [[90, 30]]
    assert seen.depth.tolist() == [10]


def test_what_lies_behind_nearer_points_is_hidden() -> None:
    wall = torch.tensor([[5.0, y, z] for y in torch.arange(-1, 1, 0.05) for z in (-0.2, 0.0, 0.2)])
    behind, beside, close_behind = [20.0, 0, 0.1], [20.0, 15, 0.1], [5.5, 0, 0.1]
    points = torch.cat([wall, torch.tensor([behind, beside, close_behind])])
    seen = visible_points(points, camera()).point.tolist()
    assert len(wall) not in seen
    assert {len(wall) + 1, len(wall) + 2} <= set(seen)
    assert set(range(len(wall))) <= set(seen)


def test_points_in_boxes_with_floor_and_margin() -> None:
    box = torch.tensor([[10.0, 5, 1, 4, 2, 2, torch.pi / 2]])
    points = torch.tensor([[10.0, 6.9, 0.1], [10, 6.9, 0.3], [11.05, 5, 1], [12, 5, 1]])
    assert points_in_solids(points, box_corners(box)).tolist() == [[True, True, False, False]]
    assert points_in_solids(points, box_corners(box), floor=0.2).tolist() == [[False, True, False, False]]
    assert points_in_solids(points, box_corners(box), margin=0.1).tolist() == [[True, True, True, False]]


def test_points_of_objects_lie_in_their_boxes(town: SceneIndex) -> None:
    """Exact point labels: geometry, poses and units fit."""
    frame = town.frame(0)
    path = town.dataroot / point_label_path(frame.lidar.path.relative_to(town.dataroot).as_posix())
    owner = torch.from_numpy(np.load(path)[:, 1].astype(np.int64))
    inside = points_in_solids(lidar_points(frame), annotated_corners(frame.annotations), margin=0.1)
    for row, number in zip(inside, ExactMasks(town.dataroot).numbers(town, frame), strict=True):
        assert row[owner == int(number)].all()


def test_visible_points_lie_on_visible_pixels(town: SceneIndex) -> None:
    exact, right, total = ExactMasks(town.dataroot), 0, 0
    for row in range(len(town)):
        frame = town.frame(row)
        path = town.dataroot / point_label_path(frame.lidar.path.relative_to(town.dataroot).as_posix())
        owner = torch.from_numpy(np.load(path)[:, 1].astype(np.int64))
        standing = np.linalg.norm(np.nan_to_num(frame.annotations.velocity), axis=1) < 1
        known = torch.from_numpy(exact.numbers(town, frame)[standing])
        seen = visible_points(lidar_points(frame), rig_of(frame))
        maps = torch.from_numpy(np.stack([exact.read(path) for path in frame.image_paths]).astype(np.int64))
        on_objects = torch.isin(owner[seen.point], known)
        right += int((seen.values(maps) == owner[seen.point])[on_objects].sum())
        total += int(on_objects.sum())
    assert total > 1000
    assert right / total > 0.97


def test_exact_masks_score_near_one_and_hulls_do_not(exact_scores: Scores) -> None:
    every = exact_scores["all"]
    assert every["SAM 2"]["objects"] > 20
    assert every["SAM 2"]["f1"] > 0.95
    assert every["hull filled"]["recall"] > 0.99
    assert every["hull filled"]["f1"] < every["hull without nearer hulls"]["f1"] < every["SAM 2"]["f1"] - 0.05


def test_groups_share_out_the_standing_objects(exact_scores: Scores) -> None:
    count = {name: ways["SAM 2"]["objects"] for name, ways in exact_scores.items()}
    assert sum(count.get(name, 0) for name in ("open", "partly hidden", "mostly hidden")) == count["all"]
    assert sum(count.get(name, 0) for name in ("0 to 20 m", "20 to 40 m", "beyond 40 m")) == count["all"]


def test_boxes_are_upright_in_the_global_frame(town: SceneIndex) -> None:
    annotations = town.frame(0).annotations
    upright, annotated = box_corners(annotated_boxes(annotations)), annotated_corners(annotations)
    torch.testing.assert_close(upright, annotated, atol=1e-6, rtol=0)


def test_what_each_number_counts() -> None:
    """Ten own points of which the mask holds six, and two of five rivals, three metres behind the box."""
    own = torch.zeros(1, 20, dtype=torch.bool)
    own[0, :10] = True
    rival = torch.zeros_like(own)
    rival[0, 10:15] = True
    held = torch.zeros_like(own)
    held[0, [0, 1, 2, 3, 4, 5, 10, 11, 16]] = True
    everything = torch.ones_like(own)
    truth = PointTruth(torch.tensor([0]), torch.zeros(20, 2), own, rival, torch.full((1, 20), 3.0), everything, own)
    scores = PointScores(("mask", "hull", "nothing"))
    place = {"labels": torch.tensor([0]), "distance": torch.tensor([30.0]), "occlusion": torch.tensor([0.2])}
    held_by = {"mask": held, "hull": everything, "nothing": ~everything}
    scores.add(truth, held_by, **place, speed=torch.tensor([0.0]))
    scores.add(truth, held_by, **place, speed=torch.tensor([5.0]))
    found = scores.summary()
    assert set(found) == {"all", "car", "20 to 40 m", "partly hidden", "moving"}
    expected = {"recall": 0.6, "precision": 0.75, "f1": 12 / 18, "depth_leak": 3.0, "objects": 1}
    assert found["all"]["mask"] == pytest.approx(expected)
    assert found["all"]["hull"]["precision"] == pytest.approx(10 / 15)
    assert "moving" in table({"moving": found["moving"]})  # of a split in which nothing stands
    assert found["car"]["nothing"] == {"recall": 0, "precision": 0, "f1": 0, "depth_leak": 0, "objects": 1}


def test_objects_with_few_points_or_without_class_do_not_count() -> None:
    own = torch.ones(2, 5, dtype=torch.bool)
    own[0, 0] = False
    truth = PointTruth(torch.arange(2), torch.zeros(5, 2), own, ~own, torch.zeros(2, 5), own, own)
    scores = PointScores(("mask",))
    scores.add(truth, {"mask": own}, torch.tensor([0, -1]), *(torch.zeros(2) for _ in range(3)))
    assert scores.summary() == {}
