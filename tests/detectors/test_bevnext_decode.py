"""From head maps to boxes."""

import golden_rule
import numpy as np
import pytest
import torch
from goldens import Golden

from configs.schema import BevGridConfig, HeadConfig
from detectors.bevnext.decode import best_cells, decode_maps
from detectors.bevnext.grid import BevGrid
from detectors.bevnext.tasks import REGRESSIONS, TASKS

GRID = BevGrid.of(BevGridConfig())


def head_maps() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    tasks = golden_rule.head_maps(2, "decode")
    heatmaps = [torch.from_numpy(maps["heatmap"]) for maps in tasks]
    return heatmaps, [torch.from_numpy(np.concatenate([maps[name] for name in REGRESSIONS], 1)) for maps in tasks]


@pytest.mark.parity
@pytest.mark.parametrize("t", [1, 3])
def test_golden_candidates(t):
    golden = Golden("decode_unit")
    heatmaps, boxes = head_maps()
    for i, found in enumerate(best_cells(TASKS[t], heatmaps[t], boxes[t], GRID, HeadConfig())):
        golden.check(f"cand_task{t}_boxes_{i}", found.boxes, 1e-6)
        golden.check(f"cand_task{t}_scores_{i}", found.scores, 1e-6)
        np.testing.assert_array_equal(golden[f"cand_task{t}_labels_{i}"], found.labels - TASKS[t].classes[0])


@pytest.mark.parity
def test_golden_detections():
    golden = Golden("decode_unit")
    heatmaps, boxes = head_maps()
    for t, heatmap in enumerate(heatmaps):
        golden.check(f"in_heatmap_task{t}", heatmap, 1e-7)
    for i, found in enumerate(decode_maps(heatmaps, boxes, GRID, HeadConfig())):
        published = found.boxes.clone()
        published[:, 2] -= published[:, 5] / 2  # the published head hands out the bottom centre
        np.testing.assert_array_equal(golden[f"labels_{i}"], found.labels)
        golden.check(f"scores_{i}", found.scores, 1e-6)
        golden.check(f"boxes_{i}", published, 1e-6)


def test_an_empty_scene_gives_empty_detections():
    heatmaps = [torch.full((1, len(task.classes), 128, 128), -9.0) for task in TASKS]
    (found,) = decode_maps(heatmaps, [torch.zeros(1, 10, 128, 128)] * 6, GRID, HeadConfig())
    assert found.boxes.shape == (0, 9)
    assert found.scores.shape == found.labels.shape == (0,)
    assert found.labels.dtype == torch.int64


def test_one_car_is_read_back_from_the_maps_that_describe_it():
    heatmaps = [torch.full((1, len(task.classes), 128, 128), -9.0) for task in TASKS]
    boxes = [torch.zeros(1, 10, 128, 128) for _ in TASKS]
    heatmaps[0][0, 0, 70, 80] = 3.0
    size = torch.tensor([4.5, 1.9, 1.6])
    boxes[0][0, :, 70, 80] = torch.tensor([0.25, 0.5, 0.9, *size.log(), np.sin(0.7), np.cos(0.7), 3.0, -1.0])
    (found,) = decode_maps(heatmaps, boxes, GRID, HeadConfig())
    expected = torch.tensor([[80.25 * 0.8 - 51.2, 70.5 * 0.8 - 51.2, 0.9, 4.5, 1.9, 1.6, 0.7, 3.0, -1.0]])
    torch.testing.assert_close(found.boxes, expected)
    torch.testing.assert_close(found.scores, torch.tensor([3.0]).sigmoid())
    assert found.labels.tolist() == [0]


def test_centres_far_outside_are_dropped():
    heatmaps = [torch.full((1, len(task.classes), 128, 128), -9.0) for task in TASKS]
    boxes = [torch.zeros(1, 10, 128, 128) for _ in TASKS]
    heatmaps[0][0, 0, 0, :3] = 3.0
    boxes[0][0, 1, 0, 0] = -13.0  # 10.4 m below the raster
    boxes[0][0, 2, 0, 1] = 10.5  # above the height limit
    (found,) = decode_maps(heatmaps, boxes, GRID, HeadConfig())
    assert len(found.labels) == 1
