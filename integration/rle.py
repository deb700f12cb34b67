"""Masks as COCO run-length encodings: what result files hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from pycocotools import mask as coco
from torch import Tensor


class Rle(TypedDict):
    """One mask; `counts` is COCO's compressed text."""

    size: list[int]
    counts: str


def encode_masks(masks: Tensor) -> list[Rle]:
    """Bool masks `[P, H, W]`, as JSON can hold them."""
    columns = np.asfortranarray(masks.cpu().numpy().astype(np.uint8).transpose(1, 2, 0))
    return [Rle(size=list(item["size"]), counts=item["counts"].decode()) for item in coco.encode(columns)]


def decode_masks(items: Sequence[Rle], size: tuple[int, int]) -> Tensor:
    """Bool masks `[P, H, W]` of what `encode_masks` made; `size` (height, width) is for none."""
    if not items:
        return torch.zeros(0, *size, dtype=torch.bool)
    packed = [{"size": item["size"], "counts": item["counts"].encode()} for item in items]
    return torch.from_numpy(coco.decode(packed).transpose(2, 0, 1).astype(bool))
