"""How exactly networks compute where they only look: `--precision` of `eval`, `infer`, `demo` and `sam2 label`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Final

import torch

from configs.errors import UsageError
from configs.plan_schema import Precision

_KINDS: Final[dict[Precision, torch.dtype | None]] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def lower_kind(precision: Precision, device: torch.device) -> torch.dtype | None:
    """What `autocast_to` takes for an option; `None` for fp32.

    Raises:
        UsageError: the device does not compute so.
    """
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UsageError(
            f"--precision bf16: {torch.cuda.get_device_name(device)} has no bf16", fix="use --precision fp16 or fp32"
        )
    if precision == "fp16" and device.type == "cpu":
        raise UsageError(
            "--precision fp16: processors are no faster with it", fix="use --precision bf16 or fp32, or a GPU"
        )
    return _KINDS[precision]


def autocast_to(kind: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """Networks compute in `kind` meanwhile; `None` leaves it to whoever calls."""
    return nullcontext() if kind is None else torch.autocast(device.type, kind)
