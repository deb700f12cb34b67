"""The devices as torch sees them, for a plan that the trainer makes itself."""

from __future__ import annotations

import torch

from configs.errors import UsageError
from configs.plan import DeviceFacts
from monitoring.processor import free_shared_memory, processor_name, usable_cores


def find_devices(wanted: str | None) -> DeviceFacts:
    """The accelerators of this machine, or its CPU where there are none or `wanted` is `cpu`.

    Raises:
        UsageError: `wanted` names an accelerator that torch does not see.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    if wanted not in (None, "cpu") and (found is None or found.type != wanted):
        raise UsageError(
            f"--device {wanted}: torch {torch.__version__} sees {found.type if found else 'no accelerator'} here",
            fix="`bevnext-sam2 doctor` says why; --device cpu trains without one",
        )
    cores, shared_memory = usable_cores(), free_shared_memory()
    if found is None or wanted == "cpu":
        return DeviceFacts(kind="cpu", names=(processor_name(),), cpu_cores=cores, shared_memory_bytes=shared_memory)
    cuda = found.type == "cuda"
    count = torch.accelerator.device_count()
    return DeviceFacts(
        kind=found.type,
        names=tuple(torch.cuda.get_device_name(i) if cuda else f"{found.type}:{i}" for i in range(count)),
        memory_bytes=torch.cuda.get_device_properties(0).total_memory if cuda else None,
        cpu_cores=cores,
        shared_memory_bytes=shared_memory,
        bf16=torch.cuda.is_bf16_supported(including_emulation=False) if cuda else True,
    )
