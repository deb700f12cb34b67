"""Targets and losses of the centre heads and of the depth network."""

import golden_rule
import numpy as np
import pytest
import torch
from goldens import Golden, nearest_per_patch
from torch import Tensor

from configs.schema import BevGridConfig
from detectors.bevnext.grid import BevGrid, DepthBins
from detectors.bevnext.losses import box_losses, depth_bins, depth_foreground, depth_loss, heatmap_loss
from detectors.bevnext.targets import ObjectTargets, assign, count_positives, draw_heatmaps
from detectors.bevnext.tasks import REGRESSIONS, TASKS

GRID = BevGrid.of(BevGridConfig())
BINS = DepthBins(1.0, 0.5, 118)


def golden_targets(batch: int = 2) -> ObjectTargets:
    objects = golden_rule.boxes(batch, "lossunit")
    return assign([torch.from_numpy(b) for b, _ in objects], [torch.from_numpy(k) for _, k in objects], GRID)


def no_objects() -> ObjectTargets:
    return assign([torch.zeros(0, 9)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2, GRID)


def losses(targets: ObjectTargets, velocity_weight: float) -> dict[str, Tensor]:
    """Losses of the golden head maps under their published names, without the task's weight for heat maps."""
    counts = count_positives(targets, 2, GRID).view(2, 6)
    heatmaps = draw_heatmaps(targets, 2, GRID)
    terms = {}
    for t, (task, maps) in enumerate(zip(TASKS, golden_rule.head_maps(2, "decode"), strict=True)):
        boxes = torch.cat([torch.from_numpy(maps[name]) for name in REGRESSIONS], 1)
        in_task = torch.isin(targets.label, torch.tensor(task.classes))
        found = box_losses(boxes, targets, in_task, counts[1, t], velocity_weight)
        terms |= {f"task{t}.loss_{name}": 0.25 * value for name, value in found.items()}
        logits = torch.from_numpy(maps["heatmap"])
        terms[f"task{t}.loss_heatmap"] = heatmap_loss(logits, heatmaps[:, list(task.classes)], counts[0, t])
    return terms


@pytest.mark.parity
def test_golden_targets():
    golden, targets = Golden("target_loss_unit"), golden_targets()
    heatmaps = draw_heatmaps(targets, 2, GRID).numpy()
    for t, task in enumerate(TASKS):
        stored = np.zeros((2, len(task.classes), 128, 128), np.float32)
        stored[tuple(golden[f"target_hm_task{t}_idx"].T)] = golden[f"target_hm_task{t}_val"]
        golden.arrays["dense"] = stored
        golden.check("dense", heatmaps[:, list(task.classes)], 1e-6)

        # The published order: sample, then class, then input.
        chosen = (targets.counted & torch.isin(targets.label, torch.tensor(task.classes))).nonzero().squeeze(1)
        rank = targets.sample[chosen] * 10 + targets.label[chosen]
        chosen = chosen[rank.argsort(stable=True)]
        np.testing.assert_array_equal(golden[f"target_slot_task{t}"][:, 0], targets.sample[chosen])
        index = targets.row[chosen] * 128 + targets.column[chosen]
        np.testing.assert_array_equal(golden[f"target_ind_task{t}"], index)
        golden.check(f"target_box_task{t}", targets.regression[chosen], 1e-6)


@pytest.mark.parity
@pytest.mark.parametrize(("stage", "velocity_weight"), [("loss_stage1", 0.2), ("loss_stage2", 1.0)])
def test_golden_losses(stage, velocity_weight):
    golden, terms = Golden("target_loss_unit"), losses(golden_targets(), velocity_weight)
    golden.check_losses(terms, stage, 1e-6)
    golden.check_losses(terms, "loss", 1e-5)


@pytest.mark.parity
def test_golden_losses_without_objects():
    Golden("target_loss_unit").check_losses(losses(no_objects(), 0.2), "loss_empty", 1e-5)


@pytest.mark.parity
def test_golden_depth_loss():
    golden = Golden("target_loss_unit")
    maps = golden_rule.stream("depthunit/p").random_sample((6, 118, 8, 22)) * 6
    depth = np.zeros((6, 64 * 176), np.float32)
    for n in range(6):
        draw = golden_rule.stream(f"depthunit/{n}")
        where = draw.randint(0, 64 * 176, 400)
        depth[n, where] = draw.random_sample(400) * 64
    nearest = nearest_per_patch(torch.from_numpy(depth.reshape(1, 6, 64, 176)))[0]
    golden.check("depthunit/bins_float", depth_bins(nearest, BINS), 1e-6)
    np.testing.assert_array_equal(golden["depthunit/bin_index"], depth_bins(nearest, BINS).long())
    probability = torch.from_numpy(maps).float().softmax(1)
    count = depth_foreground(nearest, BINS).sum()
    golden.check("depthunit/loss", (3 * depth_loss(probability, nearest, BINS, count)).double(), 1e-6)


def test_a_box_outside_the_raster_or_without_size_does_not_count():
    box = torch.tensor([[10.0, 5, 0, 4, 2, 1.5, 0.3, 1, -1]])
    outside, flat, just_below = box.clone(), box.clone(), box.clone()
    outside[0, 0], flat[0, 4], just_below[0, 1] = 60.0, 0.0, -51.5
    targets = assign([torch.cat([box, outside, flat, just_below])], [torch.tensor([0, 0, 0, 0])], GRID)
    # Cells truncate toward zero: up to one cell below the range still falls into the first cell (published).
    assert targets.counted.tolist() == [True, False, False, True]
    assert targets.row[3] == 0
    assert targets.regression.isfinite().all()
    assert draw_heatmaps(targets, 1, GRID).eq(1).sum() == 2
    assert count_positives(targets, 1, GRID)[[0, 6]].tolist() == [2, 2]


def test_two_objects_of_a_class_in_one_cell_are_one_peak_and_two_objects():
    box = torch.tensor([[10.0, 5, 0, 4, 2, 1.5, 0.3, 1, -1]])
    targets = assign([box, box.repeat(2, 1)], [torch.tensor([1]), torch.tensor([2, 2])], GRID)
    counts = count_positives(targets, 2, GRID).view(2, 6)
    assert counts[:, 1].tolist() == [2, 3]
    assert counts.sum() == 5


def test_unknown_depth_counts_nothing():
    depth = torch.zeros(2, 3, 4)
    probability = torch.full((2, 118, 3, 4), 1 / 118, requires_grad=True)
    loss = depth_loss(probability, depth, BINS, depth_foreground(depth, BINS).sum())
    loss.backward()
    assert loss == 0
    assert not probability.grad.any()
