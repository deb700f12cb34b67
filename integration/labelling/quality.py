"""Which masks are good enough to be labels.

Three figures, each from 0 to 1, that need no truth: the IoU that SAM 2 expects of its mask; how well the mask's bounds
agree with those of the 3D box, as far as no nearer box covers it; and the share of the box's outline that the mask
fills.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from integration.composition import box_iou, tight_boxes
from integration.labelling.options import Thresholds

KEPT: Final = "kept"
REASONS: Final = ("visible", "iou", "agreement", "quality")
"""Why a mask is left out: the first of these figures that is too low."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Of one mask, 0 to 1."""

    iou: float
    agreement: float
    visible: float

    @property
    def quality(self) -> float:
        """Geometric mean of expected IoU and agreement."""
        return float((self.iou * self.agreement) ** 0.5)

    def verdict(self, thresholds: Thresholds) -> str:
        """`KEPT`, or the reason why not; an empty mask is never kept."""
        if self.visible == 0:
            return "visible"
        return next((name for name in REASONS if getattr(self, name) < getattr(thresholds, name)), KEPT)


def agreement(masks: Tensor, open_box: Tensor) -> Tensor:
    """`[P]`: IoU of the bounds of bool masks `[P, H, W]` and boxes `[P, 4]` in the same pixels; 0 for empty masks."""
    if len(masks) == 0:
        return torch.zeros(0)
    return box_iou(tight_boxes(masks), open_box.float())
