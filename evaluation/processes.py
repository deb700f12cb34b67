"""The device a command works on, and the processes it may share the work with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from configs.errors import UsageError


@contextmanager
def joined_processes(device_name: str) -> Iterator[torch.device]:
    """Join the processes that torchrun started, if it did; yields the device of this process.

    `torchrun --nproc-per-node 8 -m launcher eval ...` thus evaluates on eight devices.
    """
    device = choose_device(device_name, local_rank=int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_torchelastic_launched():
        yield device
        return
    dist.init_process_group(dist.get_default_backend_for_device(device))
    try:
        yield device
    finally:
        dist.destroy_process_group()


def is_main_process() -> bool:
    """True on rank 0 and where there is only one process."""
    return not dist.is_initialized() or dist.get_rank() == 0


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """`auto` is this process's accelerator, the CPU where there is none; other names are PyTorch's (`cuda:1`, `cpu`).

    Raises:
        UsageError: no such device here.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return torch.device(accelerator.type, local_rank) if accelerator else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: PyTorch knows no such device", fix="use auto, cpu or cuda") from error
    if device.type == "cpu":
        return device
    count = torch.accelerator.device_count() if accelerator and accelerator.type == device.type else 0
    position = local_rank if device.index is None else device.index
    if position >= count:
        raise UsageError(
            f"--device {name}: {count} such devices are visible to PyTorch here",
            fix="`bevnext-sam2 doctor` says why; `--device cpu` works without one",
        )
    return torch.device(device.type, position)
