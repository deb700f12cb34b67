"""What there is to compute on: NVIDIA GPUs through NVML, else the processor. No torch.

GPUs are numbered as torch will see them: `CUDA_VISIBLE_DEVICES` is honoured, and the order is that of `nvidia-smi`
(whoever starts torch sets `CUDA_DEVICE_ORDER=PCI_BUS_ID`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pynvml

from configs.errors import UsageError
from configs.plan_schema import DeviceFacts
from monitoring.processor import free_shared_memory, processor_name, usable_cores

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
BF16_CAPABILITY: Final = (8, 0)
"""First compute capability with bfloat16 arithmetic (Ampere)."""
NO_DRIVER: Final = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or an instance of one (MIG)."""

    index: int
    """Position in the list of `nvidia-smi`; an instance has that of its GPU."""
    name: str
    uuid: str
    memory_bytes: int
    capability: tuple[int, int]
    instance: bool = False
    """A part of a divided GPU (MIG)."""


@dataclass(frozen=True, slots=True)
class GpuSurvey:
    """The GPUs of the machine, or why there are none."""

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    problem: str | None = None
    """Why NVML does not answer."""
    driver_missing: bool = False
    """The problem is that there is no NVIDIA driver at all: a machine without GPUs."""

    def visible(self, environment: Mapping[str, str] = os.environ) -> tuple[Gpu, ...]:
        """The GPUs that `CUDA_VISIBLE_DEVICES` leaves, in its order."""
        return visible_gpus(self.gpus, environment.get(VISIBLE))


def survey_gpus() -> GpuSurvey:
    """Ask NVML; whatever is wrong with it is part of the answer, not an exception."""
    try:
        with _nvml():
            driver = pynvml.nvmlSystemGetDriverVersion()
            found = [gpu for i in range(pynvml.nvmlDeviceGetCount()) for gpu in _devices_of(i)]
    except pynvml.NVMLError as error:
        return GpuSurvey(problem=str(error), driver_missing=error.value in NO_DRIVER)
    return GpuSurvey(tuple(found), driver)


def visible_gpus(gpus: Sequence[Gpu], visible: str | None) -> tuple[Gpu, ...]:
    """The GPUs that CUDA shows for a value of `CUDA_VISIBLE_DEVICES`.

    CUDA's rules: the list ends at the first unknown entry, and a process sees one instance of divided GPUs at most.
    """
    chosen = list(gpus) if visible is None else []
    for entry in visible.split(",") if visible is not None else ():
        gpu = _entry(gpus, entry.strip())
        if gpu is None or gpu in chosen:
            break
        chosen.append(gpu)
    instances = [gpu for gpu in chosen if gpu.instance]
    return tuple(instances[:1] or chosen)


def device_facts(wanted: str, survey: GpuSurvey, asked_by: str = "") -> DeviceFacts:
    """The devices to plan for.

    Args:
        wanted: `cpu`, `cuda`, or `auto`: the GPUs where there are any.
        asked_by: the option that says so, for the error; `--device` where left out.

    Raises:
        UsageError: `cuda` without a visible GPU, or `auto` where a driver is installed and does not answer.
    """
    gpus = survey.visible()
    if wanted == "cpu" or (wanted == "auto" and not gpus and (survey.problem is None or survey.driver_missing)):
        return DeviceFacts(
            kind="cpu",
            names=(processor_name(),),
            cpu_cores=usable_cores(),
            shared_memory_bytes=free_shared_memory(),
        )
    if not gpus:
        raise UsageError(
            f"{asked_by or f'--device {wanted}'}: {explain_absence(survey)}",
            fix="`bevnext-sam2 doctor` names the cause; --device cpu trains without a GPU",
        )
    return DeviceFacts(
        kind="cuda",
        names=tuple(gpu.name for gpu in gpus),
        memory_bytes=min(gpu.memory_bytes for gpu in gpus),
        cpu_cores=usable_cores(),
        shared_memory_bytes=free_shared_memory(),
        bf16=all(gpu.capability >= BF16_CAPABILITY for gpu in gpus),
    )


def explain_absence(survey: GpuSurvey) -> str:
    """Why no GPU is visible."""
    if survey.driver_missing:
        return f"no NVIDIA driver here ({survey.problem})"
    if survey.problem:
        return f"the NVIDIA driver does not answer ({survey.problem})"
    if survey.gpus:
        return f"{VISIBLE}={os.environ.get(VISIBLE, '')!r} hides the {len(survey.gpus)} GPU(s) of this machine"
    return "the NVIDIA driver sees no GPU"


@contextmanager
def _nvml() -> Iterator[None]:
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _devices_of(index: int) -> list[Gpu]:
    """The GPU at `index`, or its instances where it is divided (MIG)."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    capability = tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle))
    instances = list(_instances(handle))
    return [_describe(one, index, capability, bool(instances)) for one in instances or [handle]]


def _instances(handle: Any) -> Iterator[Any]:
    try:
        enabled, _ = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError_NotSupported:
        return
    if not enabled:
        return
    places = range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle))
    yield from (instance for place in places if (instance := _instance(handle, place)) is not None)


def _instance(handle: Any, place: int) -> Any | None:
    """The instance at one place of a GPU's table, `None` where there is none."""
    try:
        return pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
    except pynvml.NVMLError_NotFound:
        return None


def _describe(handle: Any, index: int, capability: tuple[int, int], instance: bool) -> Gpu:
    return Gpu(
        index=index,
        name=pynvml.nvmlDeviceGetName(handle),
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        capability=capability,
        instance=instance,
    )


def _entry(gpus: Sequence[Gpu], entry: str) -> Gpu | None:
    """The GPU that one entry of `CUDA_VISIBLE_DEVICES` names: a number, or a beginning of its UUID."""
    if entry.isdigit():
        return gpus[int(entry)] if int(entry) < len(gpus) else None
    named = [gpu for gpu in gpus if entry.startswith(("GPU-", "MIG-")) and gpu.uuid.startswith(entry)]
    return named[0] if len(named) == 1 else None
