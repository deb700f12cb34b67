"""Greedy non-maximum suppression in the plane."""

from __future__ import annotations

import torch
from torch import Tensor

from detectors.ops.rotated_overlap import rotated_iou


def suppress_rotated(rectangles: Tensor, threshold: float) -> Tensor:
    """Indices kept of rectangles `[n, 5]` (x, y, l, w, yaw), best first; overlap (IoU) above `threshold` goes."""
    centres, reach = rectangles[:, :2], rectangles[:, 2:4].norm(dim=1) / 2
    near = torch.cdist(centres, centres) < reach[:, None] + reach
    first, second = near.triu(1).nonzero(as_tuple=True)
    rivals = torch.zeros_like(near)
    rivals[first, second] = rotated_iou(rectangles[first], rectangles[second]) > threshold
    return _keep_greedily(rivals)


def suppress_circle(centres: Tensor, squared_distance: float) -> Tensor:
    """Indices kept of points `[n, 2]`, best first; those no further than the distance go."""
    offset = centres[:, None] - centres
    return _keep_greedily(((offset**2).sum(-1) <= squared_distance).triu(1))


def _keep_greedily(rivals: Tensor) -> Tensor:
    """`rivals[i, j]` (i < j) says that i, if kept, removes j."""
    table = rivals.cpu().numpy()
    alive = table.diagonal() == 0
    for i in range(len(table)):
        if alive[i]:
            alive &= ~table[i]
    return torch.from_numpy(alive.nonzero()[0]).to(rivals.device)
