"""Prompts as projected 3D boxes and LiDAR points give them, simulated for objects of which only a mask is known.

The box around a projected 3D box is wider than the visible part of the object: objects do not fill their boxes, and
something hides a part of them. So each side of the mask's bounds is moved outwards by a share of the length that is
drawn from what was measured (`WIDENING`), and the box as a whole is shifted a little. Some boxes are the annotated
amodal ones, some prompts have points of which a few are wrong, and some are where there is no object at all.

Shape legend: p prompts, K points of a prompt, H W image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from integration.composition import tight_boxes
from integration.segmenter import NO_POINT, POSITIVE

WIDENING: Final = (-0.066, -0.019, -0.006, -0.001, 0.0, 0.006, 0.013, 0.031, 0.085, 0.262, 2.582)
"""Quantiles, evenly spaced from 0 to 1, of how far a side of the box around the projected 3D box lies outside the
mask's bounds, as a share of the mask's width (left, right) or height. Counted on 813 objects of the synthetic set; the
ends are the first and the last percent."""
SHIFT: Final = 0.1
"""Most that a box is shifted, as a share of its own size."""
AMODAL: Final = 0.25
"""Share of the prompts with the annotated box as it is."""
WITH_POINTS: Final = 0.3
POINTS: Final = 3
"""Most points of a prompt; at least one where there are any."""
OUTLIERS: Final = 0.05
"""Share of the points that lie anywhere in the box."""
EMPTY: Final = 0.1
"""Share of the prompts without an object."""
TRIES: Final = 8
FREE: Final = 0.02
"""Share of an empty prompt's box that may hold objects."""


@dataclass(frozen=True, slots=True)
class SimulatedPrompts:
    """What to ask, and the right answers."""

    boxes: Tensor
    """float32 `[p, 4]`"""
    points: Tensor
    """float32 `[p, POINTS, 2]`"""
    point_labels: Tensor
    """int64 `[p, POINTS]`: POSITIVE or NO_POINT."""
    masks: Tensor
    """bool `[p, H, W]`; nothing where the prompt is empty."""


def simulate_prompts(masks: Tensor, amodal: Tensor, occupied: Tensor, generator: torch.Generator) -> SimulatedPrompts:
    """One prompt for each of p objects; equal generators give equal prompts.

    Args:
        masks: bool `[p, H, W]`, none of them empty.
        amodal: float32 `[p, 4]`: the annotated boxes.
        occupied: bool `[H, W]`: pixels of any object.
    """
    boxes = _inside(_widened(tight_boxes(masks), generator), masks)
    given = _chance(len(masks), AMODAL, generator)
    boxes = torch.where(given[:, None], _inside(amodal, masks), boxes)
    points, labels = _points(masks, boxes, generator)
    boxes, truth = boxes.clone(), masks.clone()
    for number in _chance(len(masks), EMPTY, generator).nonzero()[:, 0].tolist():
        place = _free_place(boxes[number], occupied, generator)
        if place is not None:
            points[number] += place[:2] - boxes[number, :2]
            boxes[number], truth[number] = place, False
    return SimulatedPrompts(boxes, points, labels, truth)


def _widened(tight: Tensor, generator: torch.Generator) -> Tensor:
    size = (tight[:, 2:] - tight[:, :2]).clamp(min=1)
    quantiles = torch.tensor(WIDENING)
    position = torch.rand(len(tight), 4, generator=generator) * (len(quantiles) - 1)
    low = position.long()
    share = quantiles[low] + (position - low) * (quantiles[(low + 1).clamp(max=len(quantiles) - 1)] - quantiles[low])
    outwards = torch.tensor([-1.0, -1, 1, 1])
    shift = (2 * torch.rand(len(tight), 2, generator=generator) - 1) * SHIFT
    boxes = tight + outwards * share * size.repeat(1, 2)
    return boxes + (shift * (boxes[:, 2:] - boxes[:, :2])).repeat(1, 2)


def _inside(boxes: Tensor, masks: Tensor) -> Tensor:
    """Within the image, and at least a pixel wide."""
    height, width = masks.shape[1:]
    start = boxes[:, :2].minimum(boxes.new_tensor([width - 1, height - 1])).clamp(min=0)
    end = boxes[:, 2:].minimum(boxes.new_tensor([width, height])).maximum(start + 1)
    return torch.cat([start, end], 1)


def _points(masks: Tensor, boxes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    points = torch.zeros(len(masks), POINTS, 2)
    labels = torch.full((len(masks), POINTS), NO_POINT)
    for number in _chance(len(masks), WITH_POINTS, generator).nonzero()[:, 0].tolist():
        count = int(torch.randint(1, POINTS + 1, (), generator=generator))
        pixels = masks[number].nonzero()
        taken = pixels[torch.randint(len(pixels), (count,), generator=generator)].flip(1).float()
        start, end = boxes[number, :2], boxes[number, 2:]
        anywhere = start + torch.rand(count, 2, generator=generator) * (end - start)
        wrong = _chance(count, OUTLIERS, generator)
        points[number, :count] = torch.where(wrong[:, None], anywhere, taken)
        labels[number, :count] = POSITIVE
    return points, labels


def _free_place(box: Tensor, occupied: Tensor, generator: torch.Generator) -> Tensor | None:
    """A box of the same size where there is no object, if one is found."""
    height, width = occupied.shape
    size = box[2:] - box[:2]
    room = box.new_tensor([width, height]) - size
    for _ in range(TRIES):
        start = torch.rand(2, generator=generator) * room
        left, top, right, bottom = torch.cat([start, start + size]).round().int().tolist()
        if float(occupied[top:bottom, left:right].float().mean()) <= FREE:
            return torch.cat([start, start + size])
    return None


def _chance(count: int, share: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator) < share
