"""Which number format a step runs in."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """`x` itself, or widened to float32 where autocast made it narrower (float64 models stay float64)."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
