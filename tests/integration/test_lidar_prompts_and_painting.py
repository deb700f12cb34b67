"""LiDAR points as prompts, and LiDAR points painted with masks: on the right objects, at the right depth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.errors import UsageError
from configs.nuscenes import CLASSES
from integration import BEVSAMFusion
from integration.masks.examples import ExactMasks
from integration.painting import CHANNELS, paint_points
from integration.point_prompts import farthest_points, points_on_objects
from integration.projection import ALL_VISIBLE, CameraRig, Visibility, project_boxes, worth
from integration.sam2_package import NANO
from integration.scene_boxes import annotated_boxes, lidar_points, rig_of
from scenes.frame import Frame
from scenes.index import SceneIndex
from scenes.synthetic.labels import point_label_path

AHEAD = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
BOX = torch.tensor([[10.0, 0, 0, 4, 2, 2, 0]])


def camera(cameras: int = 1, delay: float = 0.0) -> CameraRig:
    intrinsics = torch.tensor([[100.0, 0, 100], [0, 100, 50], [0, 0, 1]])
    rig = (matrix.expand(cameras, -1, -1) for matrix in (intrinsics, AHEAD))
    return CameraRig(*rig, (100, 200), torch.full((cameras,), delay))


def front(*places: tuple[float, float]) -> Tensor:
    """Points on the near side of `BOX` at y, z."""
    return torch.tensor([[8.0, y, z] for y, z in places])


def masks_of(rig: CameraRig, maps: Tensor, boxes: Tensor, **changed: Any) -> dict[str, Any]:
    """What the fusion would return for masks that are known."""
    pairs = project_boxes(boxes, rig, ALL_VISIBLE)
    found = {
        "boxes_3d": boxes,
        "scores": torch.full((len(boxes),), 0.5),
        "labels": torch.zeros(len(boxes), dtype=torch.int64),
        "pair_object": pairs.object,
        "pair_camera": pairs.camera,
        "mask_scores": torch.full((len(pairs),), 0.7),
        "instance_maps": maps,
    }
    return found | changed


def test_points_are_the_central_one_and_far_ones() -> None:
    places = torch.tensor([[0.0, 0], [1, 0], [5, 0], [10, 0], [10, 1]])
    assert farthest_points(places, 3).tolist() == [2, 4, 0]
    assert farthest_points(places[:2], 3).tolist() == [0, 1]
    assert farthest_points(places[:0], 3).tolist() == []


def test_prompts_are_points_of_the_box_that_its_camera_sees() -> None:
    rig = camera()
    pairs = project_boxes(BOX, rig)
    inside, beside, low, at_the_edge = (-0.5, 0.3), (3.0, 0.0), (0.5, -0.9), (0.999, 0.0)
    points, valid = points_on_objects(front(inside, beside, low, at_the_edge), BOX, pairs, rig)
    assert points.shape == (1, 3, 2)
    assert valid.tolist() == [[True, False, False]]
    torch.testing.assert_close(points[0, 0], torch.tensor([106.25, 46.25], dtype=torch.float64))
    none, valid = points_on_objects(front(beside), BOX, pairs, rig)
    assert not valid.any()
    assert not none.any()


def test_points_move_with_their_object() -> None:
    moving = torch.cat([BOX, torch.tensor([[0.0, -10.0]])], 1)
    rig = camera(delay=0.04)
    points, _ = points_on_objects(front((0.0, 0.0)), moving, project_boxes(moving, rig), rig)
    torch.testing.assert_close(points[0, 0], torch.tensor([105.0, 50], dtype=torch.float64), atol=1e-3, rtol=0)


def test_prompts_lie_on_visible_pixels_of_their_objects(town: SceneIndex) -> None:
    right = total = 0
    for row in range(len(town)):
        frame = town.frame(row)
        rig, boxes = rig_of(frame), annotated_boxes(frame.annotations)
        pairs = project_boxes(boxes, rig, ALL_VISIBLE)
        pairs = pairs.select(worth(pairs, Visibility()))
        points, valid = points_on_objects(lidar_points(frame), boxes, pairs, rig)
        numbers, maps = exact_maps(town, frame)
        u, v = points.round().long().unbind(-1)
        hit = maps[pairs.camera[:, None], v, u] == numbers[pairs.object][:, None]
        right, total = right + int(hit[valid].sum()), total + int(valid.sum())
    assert total > 50
    assert right / total > 0.92  # the farthest points are those at the edges; nuImages prompts simulate such errors


def test_fusion_takes_points() -> None:
    pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")
    torch.manual_seed(0)
    fusion = BEVSAMFusion(None, NANO, "cpu", network_size=(96, 160), passes=1)
    images = torch.randint(0, 256, (1, 1, 3, 100, 200), dtype=torch.uint8)
    boxes = torch.cat([BOX, BOX + torch.tensor([10.0, 6, 0, 0, 0, 0, 0])])
    found = {"boxes_3d": boxes, "scores": torch.tensor([0.9, 0.8]), "labels": torch.tensor([0, 1])}
    rig = {"intrinsics": camera().img_from_cam, "extrinsics": AHEAD[None]}
    plain, with_points = fusion(images, found, rig), fusion(images, found, rig, front((0.0, 0.0), (0.5, 0.5)))
    logits = [result["mask_logits_lowres"].float() for result in (plain, with_points)]
    no_points = fusion(images, found, rig, [torch.zeros(0, 3)])["mask_logits_lowres"].float()
    assert not torch.equal(logits[1][0], no_points[0])
    assert torch.equal(logits[1][1], no_points[1])  # none is on this one
    torch.testing.assert_close(no_points, logits[0], atol=0.1, rtol=0)  # tokens without meaning do little
    with pytest.raises(UsageError, match="2 sets of points"):
        fusion(images, found, rig, [torch.zeros(0, 3)] * 2)
    fusion.segmenter.wants_outline = True
    with pytest.raises(UsageError, match="without points"):
        fusion(images, found, rig, front((0.0, 0.0)))


def test_a_painted_point_says_class_score_and_quality() -> None:
    rig = camera()
    maps = torch.full((1, 100, 200), -1)
    maps[:, 40:60, 90:110] = 0
    edge_of_mask, on_the_way, far_behind = [8.0, -0.8, 0], [5.0, 0, 0.1], [30.0, 0.9, -0.9]
    points = torch.cat([front((0.0, 0.0)), torch.tensor([edge_of_mask, far_behind, on_the_way])])
    found = masks_of(rig, maps, BOX, labels=torch.tensor([CLASSES.index("bus")]))
    painted = paint_points(points[:3], found, rig)
    assert painted.pair.tolist() == [0, -1, -1]
    assert painted.pair.dtype == torch.int16
    assert painted.features.shape == (3, CHANNELS)
    assert painted.features[0, CLASSES.index("bus")] == 0.5
    assert painted.features[0, -2:].tolist() == pytest.approx([0.7, 1])
    assert painted.features[0].count_nonzero() == 3
    assert painted.features[1:].count_nonzero() == 0
    assert paint_points(points, found, rig).pair.tolist() == [-1, -1, -1, -1]  # the last one hides the first


def test_the_better_mask_of_two_cameras_counts() -> None:
    rig = camera(cameras=2)
    maps = torch.zeros(2, 100, 200, dtype=torch.int64)
    for quality, row in (([0.3, 0.6], 1), ([0.6, 0.3], 0)):
        found = masks_of(rig, maps, BOX, mask_scores=torch.tensor(quality))
        painted = paint_points(front((0.0, 0.0)), found, rig)
        assert painted.pair.tolist() == [row]
        assert float(painted.features[0, -2]) == pytest.approx(0.6)


def test_nothing_is_painted_where_nothing_is_found() -> None:
    rig = camera()
    empty = masks_of(rig, torch.full((1, 100, 200), -1), BOX[:0])
    painted = paint_points(front((0.0, 0.0)), empty, rig)
    assert painted.pair.tolist() == [-1]
    assert not painted.features.any()
    assert len(paint_points(torch.zeros(0, 3), empty, rig).pair) == 0
    with pytest.raises(UsageError, match="cameras"):
        paint_points(front((0.0, 0.0)), empty, camera(cameras=2))


def test_painting_with_exact_masks_is_precise(town: SceneIndex) -> None:
    """Against the exact owner of every point; recall is of points whose pixel shows their object."""
    right = painted_points = visible = 0
    for row in range(len(town)):
        frame = town.frame(row)
        rig, boxes, points = rig_of(frame), annotated_boxes(frame.annotations), lidar_points(frame)
        numbers, maps = exact_maps(town, frame)
        position = torch.full((int(maps.max()) + 1,), -1)
        position[numbers[numbers <= maps.max()]] = torch.arange(len(numbers))[numbers <= maps.max()]
        found = masks_of(rig, position[maps], boxes)
        painted = paint_points(points, found, rig)
        path = town.dataroot / point_label_path(frame.lidar.path.relative_to(town.dataroot).as_posix())
        owner = torch.from_numpy(np.load(path)[:, 1].astype(np.int64))
        on_object = painted.pair >= 0
        claimed = numbers[found["pair_object"][painted.pair[on_object].long()]]
        right += int((claimed == owner[on_object]).sum())
        painted_points += int(on_object.sum())
        visible += int(torch.isin(owner, numbers).sum())
    assert right / painted_points > 0.98
    assert right / visible > 0.5


def exact_maps(index: SceneIndex, frame: Frame) -> tuple[Tensor, Tensor]:
    """Numbers of the annotated objects, and of the pixels of the six cameras."""
    exact = ExactMasks(index.dataroot)
    maps = np.stack([exact.read(path) for path in frame.image_paths]).astype(np.int64)
    return torch.from_numpy(exact.numbers(index, frame)), torch.from_numpy(maps)
