"""The masks of one image at its full size, without overlaps."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from integration.segmenter import upsample

_AT_A_TIME: Final = 8
"""Masks that are held at full size: memory stays bounded with any number of objects."""


def pixel_owners(logits: Tensor, order: Tensor, size: tuple[int, int]) -> Tensor:
    """int64 `[H, W]`: which of P objects has a pixel, -1 for none; on the device of the logits.

    A pixel goes to the surest, and among equally sure ones to the nearest (as `composition.share_pixels`).

    Args:
        logits: `[P, h, w]`, above 0 where an object claims a pixel.
        order: int64 `[P]`: positions from near to far.
        size: H, W
    """
    surest = torch.zeros(size, device=logits.device)
    owner = torch.full(size, -1, dtype=torch.int64, device=logits.device)
    for some in torch.split(order, _AT_A_TIME):
        for number, claim in zip(some.tolist(), upsample(logits[some, None], size)[:, 0], strict=True):
            better = claim > surest
            surest = torch.where(better, claim, surest)
            owner = torch.where(better, number, owner)
    return owner
