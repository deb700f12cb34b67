"""Masks of several objects in one image: cleaned, and without overlaps.

Shape legend: P pairs of one camera, h w the masks' raster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

FAR_OUTSIDE: Final = -20.0
"""Logit that pixels far outside the outline of the 3D box get."""
LARGER: Final = 0.08
"""How far, as a share of its size, an object may reach beyond the outline of its 3D box: boxes are not exact."""


@dataclass(frozen=True, slots=True)
class Composed:
    """Masks that share out the pixels."""

    logits: Tensor
    """`[P, h, w]`: positive for at most one object at a pixel."""
    owner: Tensor
    """int64 `[h, w]`: position of the object that has the pixel, -1 for none."""


def keep_to_outlines(logits: Tensor, boxes: Tensor, outline: Tensor) -> Tensor:
    """Logits `[P, h, w]` that are low outside the outline, enlarged by `LARGER` of its size.

    Args:
        boxes: `[P, 4]`: 2D boxes in cells of the raster; best on the CPU, as their sizes are asked for one by one.
        outline: `[P, h, w]`: share of each cell that the 3D box fills.
    """
    kept = torch.empty_like(logits)
    for number, box in enumerate(boxes):
        reach = max(1, round(float((box[2:] - box[:2]).max()) * LARGER))
        near = functional.max_pool2d(outline[number, None], 2 * reach + 1, 1, reach)[0] > 0
        kept[number] = torch.where(near, logits[number], logits[number].clamp(max=FAR_OUTSIDE))
    return kept


def share_pixels(logits: Tensor, order: Tensor) -> Composed:
    """Every pixel goes to one object at most: to the surest, and among equally sure ones to the nearest.

    Args:
        logits: `[P, h, w]`, above 0 where an object claims a pixel.
        order: int64 `[P]`: positions from near to far.
    """
    if len(logits) == 0:
        return Composed(logits, torch.full(logits.shape[1:], -1, dtype=torch.int64, device=logits.device))
    surest, place = logits[order].max(0)
    owner = torch.where(surest > 0, order[place], -1)
    own = owner[None] == torch.arange(len(logits), device=logits.device)[:, None, None]
    return Composed(torch.where(own, logits, logits.clamp(max=-1e-3)), owner)


def tight_boxes(masks: Tensor) -> Tensor:
    """`[P, 4]`: left, top, right, bottom of the pixels of bool masks `[P, H, W]`; zeros for empty ones."""
    columns, rows = masks.any(1), masks.any(2)
    ends = torch.stack([_first(columns), _first(rows), _last(columns), _last(rows)], 1)
    return torch.where(masks.flatten(1).any(1)[:, None], ends, 0).float()


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """`[P]`: IoU of boxes `[P, 4]` one by one."""
    sides = (a[:, 2:].minimum(b[:, 2:]) - a[:, :2].maximum(b[:, :2])).clamp(min=0)
    areas = [(one[:, 2:] - one[:, :2]).clamp(min=0).prod(1) for one in (a, b)]
    return sides.prod(1) / (areas[0] + areas[1] - sides.prod(1)).clamp(min=1e-9)


def _first(present: Tensor) -> Tensor:
    return present.to(torch.uint8).argmax(1)


def _last(present: Tensor) -> Tensor:
    return present.shape[1] - present.flip(1).to(torch.uint8).argmax(1)
