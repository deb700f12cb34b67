"""Images of nuImages tables as examples to train and measure with; there are no 3D boxes, so prompts are 2D boxes."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor
from torch.utils.data import Dataset

from integration.composition import tight_boxes
from integration.masks.examples import MaskExample
from integration.masks.nuimages import NuImages
from integration.masks.simulated_prompts import simulate_prompts
from scenes.loading import ImageLoader

BOX: Final = "box filled"


class NuImagesExamples(Dataset[MaskExample]):
    """The images of a set of tables.

    An example's boxes are the annotated amodal ones. Its `occlusion` is the share of that box that the bounds of the
    visible part leave free, whatever the reason.

    Args:
        largest: most objects of an image that `varied` takes.
        with_hulls: give `MaskExample.hulls` too: the boxes, filled.
    """

    baselines = (BOX,)

    def __init__(self, tables: NuImages, largest: int = 1 << 30, with_hulls: bool = False) -> None:
        self.tables = tables
        self.largest = largest
        self.with_hulls = with_hulls
        self._loader = ImageLoader()

    def __len__(self) -> int:
        return len(self.tables)

    def __getitem__(self, item: int) -> MaskExample:
        found = self.tables[item]
        image = self._loader.read(found.path, found.size).permute(2, 0, 1).clone()
        shown = found.masks.flatten(1).any(1)
        masks, boxes = found.masks[shown], found.boxes[shown]
        return MaskExample(
            image=image,
            boxes=boxes,
            outline=None,
            open_outline=None,
            masks=masks,
            occlusion=1 - (_area(tight_boxes(masks)) / _area(boxes).clamp(min=1)).clamp(0, 1),
            labels=found.labels[shown],
            hulls=(_filled(boxes, found.size),) if self.with_hulls else None,
        )

    def varied(self, example: MaskExample, generator: torch.Generator) -> MaskExample:
        """For training: some of the objects, with simulated prompts; half of the images mirrored."""
        chosen = torch.randperm(len(example.boxes), generator=generator)[: self.largest]
        prompts = simulate_prompts(example.masks[chosen], example.boxes[chosen], example.masks.any(0), generator)
        changed = replace(
            example,
            boxes=prompts.boxes,
            masks=prompts.masks,
            points=prompts.points,
            point_labels=prompts.point_labels,
            occlusion=example.occlusion[chosen],
            labels=example.labels[chosen],
        )
        return changed.mirrored() if bool(torch.rand((), generator=generator) < 0.5) else changed


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)


def _filled(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """bool `[P, H, W]`"""
    rows, columns = (torch.arange(length) for length in size)
    across = (columns >= boxes[:, None, 0]) & (columns < boxes[:, None, 2])
    down = (rows >= boxes[:, None, 1]) & (rows < boxes[:, None, 3])
    return across[:, None] & down[:, :, None]
