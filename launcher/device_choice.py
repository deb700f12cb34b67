"""The devices to plan for: those of this machine, or those that a job asks a cluster for."""

from __future__ import annotations

from typing import Final

from configs.errors import UsageError
from configs.plan_schema import DeviceFacts
from launcher.options import TrainRequest
from monitoring.devices import GpuSurvey, device_facts, explain_absence, survey_gpus

CORES_PER_PROCESS: Final = 8
"""What a job asks for where the user says nothing."""


def local_devices(request: TrainRequest, survey: GpuSurvey | None) -> tuple[DeviceFacts, str]:
    """The devices of this machine, and the words for them.

    Args:
        survey: the GPUs; asked from NVML where left out.

    Raises:
        UsageError: options that contradict each other, or a device that is not there.
    """
    survey = survey or survey_gpus()
    wanted, asked_by = _asked_devices(request)
    devices = device_facts(wanted, survey, asked_by)
    return devices, _devices_text(devices, survey)


def cluster_devices(request: TrainRequest) -> tuple[DeviceFacts, str]:
    """The devices of one node of a job, as the options ask for them; nothing of them is seen from here.

    Raises:
        UsageError: the options do not say which.
    """
    if request.gpus is not None:
        raise UsageError(
            f"--gpus {','.join(map(str, request.gpus))}: the cluster chooses which GPUs a job gets",
            fix="say how many on each node with --num-gpus N",
        )
    wanted, _ = _asked_devices(request)
    kind = "cuda" if request.num_gpus else "cpu"
    count = request.num_gpus or request.num_processes
    if count is None or wanted not in (kind, "auto"):
        raise UsageError(
            f"--backend {request.backend} must know what to ask for",
            fix="add --num-gpus N, the GPUs of each node, or --num-processes N on nodes without",
        )
    names = ("GPU",) * count if kind == "cuda" else ("CPU",)
    cores = request.cpus_per_node or CORES_PER_PROCESS * count
    text = f"{count} GPU(s)" if kind == "cuda" else "CPU"
    return DeviceFacts(kind=kind, names=names, cpu_cores=cores), f"{text} and {cores} cores on each node of the job"


def _asked_devices(request: TrainRequest) -> tuple[str, str]:
    """`auto`, `cpu` or `cuda`, and the option that says so: naming GPUs or CPU processes asks for that device."""
    gpus = ""
    if request.gpus is not None:
        gpus = f"--gpus {','.join(map(str, request.gpus))}"
    elif request.num_gpus is not None:
        gpus = f"--num-gpus {request.num_gpus}"
    if gpus and request.num_processes:
        raise UsageError(f"{gpus} and --num-processes exclude each other", fix="--num-processes is for the CPU")
    if gpus and request.device == "cpu":
        raise UsageError(f"--device cpu and {gpus} exclude each other", fix="use --num-processes on the CPU")
    if request.num_processes and request.device == "cuda":
        raise UsageError("--device cuda and --num-processes exclude each other", fix="use --num-gpus")
    if gpus:
        return "cuda", gpus
    return ("cpu", "--num-processes") if request.num_processes else (request.device, f"--device {request.device}")


def _devices_text(devices: DeviceFacts, survey: GpuSurvey) -> str:
    if devices.kind == "cpu":
        found = f"{len(survey.visible())} GPU(s) left unused" if survey.visible() else explain_absence(survey)
        return f"CPU ({devices.names[0]}, {devices.cpu_cores} usable cores); {found}"
    return f"{len(devices.names)} x {devices.names[0]}, driver {survey.driver}"
