"""From maps to boxes: the best cells of each task's heat map, their regressions, suppression within the task."""

from __future__ import annotations

import torch
from torch import Tensor

from configs.schema import HeadConfig
from detectors.bevnext.grid import BevGrid
from detectors.bevnext.tasks import TASKS, Task
from detectors.interface import Detections
from detectors.layers.precision import at_least_float32
from detectors.ops.suppression import suppress_circle, suppress_rotated

BEYOND_RASTER = 10.0
"""Metres outside the raster (x, y) up to which a regressed centre is kept."""
HEIGHT_LIMIT = 10.0
"""Metres that a centre may lie above or below the ego frame's origin."""


def decode_maps(heatmaps: list[Tensor], boxes: list[Tensor], grid: BevGrid, config: HeadConfig) -> list[Detections]:
    """Detections per sample, task by task, best first within a task.

    Args: per task, heat map logits `[B, classes, Y, X]` and box maps `[B, 10, Y, X]`.
    """
    per_task = []
    for task, logits, maps in zip(TASKS, heatmaps, boxes, strict=True):
        candidates = best_cells(task, at_least_float32(logits), at_least_float32(maps), grid, config)
        per_task.append([suppress(task, found, config.max_per_task) for found in candidates])
    return [_concatenate(found) for found in zip(*per_task, strict=True)]


def best_cells(task: Task, logits: Tensor, maps: Tensor, grid: BevGrid, config: HeadConfig) -> list[Detections]:
    """Candidates of one task per sample, best first, before suppression. There is no local-maximum test (published)."""
    found = logits.flatten(1).sigmoid().topk(min(config.max_candidates, logits[0].numel()))
    cell = found.indices % grid.cells
    numbers = maps.flatten(2).gather(2, cell.unsqueeze(1).expand(-1, maps.shape[1], -1)).transpose(1, 2)
    box = torch.cat(
        [
            ((cell % grid.x.cells + numbers[..., 0]) * grid.x.step + grid.x.lower).unsqueeze(2),
            ((cell // grid.x.cells + numbers[..., 1]) * grid.y.step + grid.y.lower).unsqueeze(2),
            numbers[..., 2:3],
            numbers[..., 3:6].exp(),
            torch.atan2(numbers[..., 6], numbers[..., 7]).unsqueeze(2),
            numbers[..., 8:10],
        ],
        2,
    )
    label = found.indices // grid.cells + task.classes[0]
    keep = (found.values > config.score_threshold) & _within_limits(box, grid)
    return [Detections(b[k], s[k], c[k]) for b, s, c, k in zip(box, found.values, label, keep, strict=True)]


def suppress(task: Task, found: Detections, limit: int) -> Detections:
    """The task's greedy suppression over all its classes; at most `limit` boxes stay."""
    if task.suppression == "circle":
        keep = suppress_circle(found.boxes[:, :2], task.threshold)
    else:
        factor = found.boxes.new_tensor(task.sizes)[found.labels - task.classes[0]]
        size = found.boxes[:, 3:5] * factor[:, None]
        keep = suppress_rotated(torch.cat([found.boxes[:, :2], size, found.boxes[:, 6:7]], 1), task.threshold)
    keep = keep[:limit]
    return Detections(found.boxes[keep], found.scores[keep], found.labels[keep])


def _within_limits(box: Tensor, grid: BevGrid) -> Tensor:
    inside = box[..., 2].abs() <= HEIGHT_LIMIT
    for i, axis in enumerate((grid.x, grid.y)):
        lower, upper = axis.lower - BEYOND_RASTER, axis.lower + axis.cells * axis.step + BEYOND_RASTER
        inside &= (box[..., i] >= lower) & (box[..., i] <= upper)
    return inside


def _concatenate(found: tuple[Detections, ...]) -> Detections:
    return Detections(
        torch.cat([f.boxes for f in found]), torch.cat([f.scores for f in found]), torch.cat([f.labels for f in found])
    )
