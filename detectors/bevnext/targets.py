"""What the network should say: where objects are, the heat maps drawn around them, and what the image cells show.

Shape legend: B batch, N cameras, h w image cells, M objects of the batch, Y X BEV cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from configs.nuscenes import CLASSES
from detectors.bevnext.grid import BevGrid
from detectors.bevnext.tasks import TASKS
from detectors.interface import Targets

MIN_OVERLAP = 0.1
MIN_RADIUS = 2


@dataclass(frozen=True, slots=True)
class ObjectTargets:
    """All objects of a batch in one list; those outside the raster stay in it, marked."""

    sample: Tensor
    """int64 `[M]`"""
    label: Tensor
    """int64 `[M]`"""
    row: Tensor
    """int64 `[M]`: cell along y, 0 where not counted."""
    column: Tensor
    """int64 `[M]`: cell along x, 0 where not counted."""
    counted: Tensor
    """bool `[M]`: centre inside the raster and size positive."""
    radius: Tensor
    """float32 `[M]`: whole cells."""
    regression: Tensor
    """float32 `[M, 10]`: offset in the cell (x, y), z, log l, log w, log h, sin yaw, cos yaw, vx, vy."""


@dataclass(frozen=True, slots=True)
class BEVNeXtTargets(Targets):
    """`counts` `[13]`: image cells of known depth; per task, heat map peaks; per task, objects."""

    objects: ObjectTargets
    depth: Tensor
    """float32 `[B*N, h, w]`: metres, 0 where unknown."""
    classes: Tensor | None
    """int64 `[B*N, h, w]` as of `perspective.classes_in_perspective`; `None` without perspective supervision."""


def assign(boxes: list[Tensor], labels: list[Tensor], grid: BevGrid) -> ObjectTargets:
    """Cells and regression targets of boxes `[n, 9]` (x, y, z centre, l, w, h, yaw, vx, vy) with labels `[n]`."""
    box, label = torch.cat(boxes), torch.cat(labels)
    sample = torch.cat([label.new_full((len(own),), number) for number, own in enumerate(boxes)])
    x, y = grid.x.coordinate(box[:, 0]), grid.y.coordinate(box[:, 1])
    column, row = grid.x.index(box[:, 0]), grid.y.index(box[:, 1])
    counted = grid.x.holds(column) & grid.y.holds(row) & (box[:, 3] > 0) & (box[:, 4] > 0)
    regression = torch.cat(
        [
            torch.stack([x - column, y - row, box[:, 2]], 1),
            box[:, 3:6].log(),
            torch.stack([box[:, 6].sin(), box[:, 6].cos()], 1),
            box[:, 7:9],
        ],
        1,
    )
    return ObjectTargets(
        sample=sample,
        label=label,
        row=row.where(counted, 0),
        column=column.where(counted, 0),
        counted=counted,
        radius=gaussian_radius(box[:, 3] / grid.x.step, box[:, 4] / grid.y.step).where(counted, MIN_RADIUS),
        regression=regression.where(counted[:, None], 0.0),
    )


def gaussian_radius(length: Tensor, width: Tensor) -> Tensor:
    """Radius in whole cells within which a shifted box still overlaps by `MIN_OVERLAP` (CornerNet, as published).

    `length` and `width` are in cells. The smallest of three cases: both corners inside, both outside, one of each.
    """
    total, area, overlap = length + width, length * width, MIN_OVERLAP
    mixed = (total + (total**2 - 4 * area * (1 - overlap) / (1 + overlap)).sqrt()) / 2
    inside = (2 * total + (4 * total**2 - 16 * (1 - overlap) * area).sqrt()) / 2
    outside = (-2 * overlap * total + (4 * overlap**2 * total**2 - 16 * overlap * (overlap - 1) * area).sqrt()) / 2
    return torch.minimum(torch.minimum(mixed, inside), outside).trunc().clamp(min=MIN_RADIUS)


def draw_heatmaps(targets: ObjectTargets, batch: int, grid: BevGrid) -> Tensor:
    """float32 `[B, classes, Y, X]`: a Gaussian around every counted object, exactly 1 at its cell; the larger wins."""
    rows = _bell(targets.row, targets.radius, grid.y.cells) * targets.counted[:, None]
    columns = _bell(targets.column, targets.radius, grid.x.cells)
    bells = (rows[:, :, None] * columns[:, None, :]).flatten(1)
    maps = bells.new_zeros(batch * len(CLASSES), grid.cells)
    plane = targets.sample * len(CLASSES) + targets.label
    maps.scatter_reduce_(0, plane[:, None].expand_as(bells), bells, "amax")
    return maps.view(batch, len(CLASSES), grid.y.cells, grid.x.cells)


def count_positives(targets: ObjectTargets, batch: int, grid: BevGrid) -> Tensor:
    """float32 `[12]`: per task, heat map cells that are exactly 1; then, per task, counted objects."""
    cell = (targets.sample * len(CLASSES) + targets.label) * grid.cells + targets.row * grid.x.cells + targets.column
    peak = torch.zeros(batch * len(CLASSES) * grid.cells, dtype=torch.float32, device=cell.device)
    peak = peak.scatter_reduce_(0, cell, targets.counted.float(), "amax")
    peaks = peak.view(batch, len(CLASSES), grid.cells).sum((0, 2))
    objects = peaks.new_zeros(len(CLASSES)).index_add_(0, targets.label, targets.counted.float())
    return torch.stack([counts[task.span].sum() for counts in (peaks, objects) for task in TASKS])


def _bell(centre: Tensor, radius: Tensor, cells: int) -> Tensor:
    """`[M, cells]`: exp(-d^2 / 2 sigma^2) up to `radius` cells from the centre, sigma = (2 radius + 1) / 6."""
    distance = torch.arange(cells, device=centre.device) - centre[:, None]
    sigma = (2 * radius + 1) / 6
    bell = torch.exp(-(distance**2) / (2 * sigma[:, None] ** 2))
    return bell * (distance.abs() <= radius[:, None])
