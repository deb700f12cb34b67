"""Out of memory, in terms of the plan: which batch did not fit, and which one would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch

from configs.errors import BevnextError
from configs.plan import Plan
from configs.schema import Recipe
from scenes.sample import Batch

_SAID_BY: Final = ("DefaultCPUAllocator", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")
"""Errors of another type that mean the same."""


@contextmanager
def out_of_memory_explained(plan: Plan, recipe: Recipe, step: int, batches: Sequence[Batch]) -> Iterator[None]:
    """Turn torch's error into one that names the batch and a plan that would fit.

    Raises:
        BevnextError: instead of torch's error.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not is_out_of_memory(error):
            raise
        height, width = recipe.data.image_size
        tokens = ", ".join(token for batch in batches for token in batch.tokens)
        raise BevnextError(
            f"step {step + 1}: out of memory on {plan.device_names[0]} with micro-batches of {plan.device_batch} "
            f"samples of {plan.images_per_sample} images of {height}x{width} in {plan.precision}; "
            f"samples: {tokens} ({str(error).splitlines()[0]})",
            fix=_what_would_fit(plan),
        ) from error


def is_out_of_memory(error: RuntimeError) -> bool:
    """The device, or the machine, has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or any(name in str(error) for name in _SAID_BY)


def _what_would_fit(plan: Plan) -> str:
    smaller = [size for size in range(1, plan.device_batch // 2 + 1) if plan.device_batch % size == 0]
    if not smaller:
        return (
            "one sample is the least: --mixed-precision, --set model.backbone.checkpointing=true or a smaller "
            "data.image_size need less; with loader workers, fewer --workers leave more main memory"
        )
    batch = smaller[-1]
    accumulation = plan.accumulation * plan.device_batch // batch
    return (
        f"--batch-size {batch} --gradient-accumulation {accumulation} needs about half and takes the same step: "
        f"{plan.devices} x {batch} x {accumulation} = {plan.effective_batch} samples"
    )
