"""Driver, GPUs, and whether torch's build fits them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from configs.plan import size_text
from launcher.doctor.finding import Finding, fail, ok, warn
from launcher.doctor.torch_probe import TorchFacts
from monitoring.devices import VISIBLE, GpuSurvey

OLDEST_DRIVER: Final = {"11": 450, "12": 525, "13": 580}
"""Major version of CUDA -> the first driver that runs its builds (CUDA's table of minor-version compatibility)."""
LEAST_DRIVER_FOR_SET_UP: Final = "scripts/set_up.sh --torch cu126, or update the driver"


def check_driver(survey: GpuSurvey, device_files: bool) -> Finding:
    """The driver is there and answers.

    Args:
        device_files: /dev/nvidia* exist, so that the machine has GPUs whatever NVML says.
    """
    if survey.problem is None:
        return ok("driver", f"NVIDIA {survey.driver}")
    if not device_files and survey.driver_missing:
        return ok("driver", "no NVIDIA driver: this machine trains on its CPU")
    if survey.driver_missing:
        return fail(
            "driver",
            f"there are GPU device files, but NVML is missing ({survey.problem})",
            "in a container: docker run --gpus all with NVIDIA_DRIVER_CAPABILITIES=compute,utility; else reinstall it",
        )
    if "mismatch" in survey.problem.lower():
        return fail("driver", survey.problem, "the driver was updated under a running kernel: reboot")
    return fail(
        "driver",
        f"NVML does not answer: {survey.problem}",
        "in a container: restart it (`systemctl daemon-reload` takes its GPUs away); else look into `dmesg`",
    )


def check_gpus(survey: GpuSurvey, visible: str | None) -> Iterator[Finding]:
    """The GPUs, and those that CUDA_VISIBLE_DEVICES hides."""
    if survey.problem is not None:
        return
    if not survey.gpus:
        yield fail("gpus", "the driver sees none", "docker run --gpus all; or look into `lspci` and `dmesg`")
    for gpu in survey.gpus:
        capability = ".".join(map(str, gpu.capability))
        yield ok(f"gpu {gpu.index}", f"{gpu.name}, {size_text(gpu.memory_bytes)}, compute capability {capability}")
    seen = survey.visible({} if visible is None else {VISIBLE: visible})
    if len(seen) < len(survey.gpus):
        yield warn("visible gpus", f"{VISIBLE}={visible!r} shows {len(seen)} of {len(survey.gpus)}", f"unset {VISIBLE}")


def check_torch(facts: TorchFacts, survey: GpuSurvey) -> Iterator[Finding]:
    """torch loads, its parts load, and its build runs on these GPUs."""
    if facts.error:
        yield fail("torch", facts.error, "scripts/set_up.sh installs it again from the lock file")
        return
    yield ok("torch", f"{facts.version}, built for {f'CUDA {facts.cuda}' if facts.cuda else 'CPU'}")
    if facts.torchvision_error:
        fix = "install torch and torchvision of one build: scripts/set_up.sh --torch BUILD"
        yield fail("torchvision", facts.torchvision_error, fix)
    else:
        yield ok("torchvision", facts.torchvision)
    if facts.gloo:
        yield ok("gloo", "processes on a CPU can talk")
    else:
        yield fail("gloo", "this torch has no gloo", "scripts/set_up.sh --torch default")
    if survey.visible():
        yield from _check_build(facts, survey)


def _check_build(facts: TorchFacts, survey: GpuSurvey) -> Iterator[Finding]:
    """GPUs are there: torch must be able to use every one."""
    if facts.cuda is None:
        yield fail("torch on gpu", "this torch is built for the CPU only", "scripts/set_up.sh --torch default")
        return
    oldest = OLDEST_DRIVER.get(facts.cuda.partition(".")[0])
    driver = int((survey.driver or "0").partition(".")[0])
    if oldest is not None and driver < oldest:
        yield fail(
            "torch on gpu",
            f"torch for CUDA {facts.cuda} needs driver {oldest} or newer, this one is {survey.driver}",
            LEAST_DRIVER_FOR_SET_UP,
        )
    elif facts.devices < len(survey.visible()):
        yield fail(
            "torch on gpu",
            f"torch sees {facts.devices} of {len(survey.visible())} GPUs {facts.cuda_error}".strip(),
            "restart the container or the machine; look into `dmesg | grep -i nvrm`",
        )
    else:
        yield from _check_architectures(facts, survey)
    if facts.nccl:
        yield ok("nccl", facts.nccl)
    else:
        yield fail("nccl", "this torch has no NCCL", "scripts/set_up.sh --torch default")


def _check_architectures(facts: TorchFacts, survey: GpuSurvey) -> Iterator[Finding]:
    """A build runs on GPUs of its architectures, and on later ones of the same major version."""
    built = {(int(name[3:-1]), int(name[-1])) for name in facts.architectures if name[3:].isdigit()}
    for gpu in survey.visible():
        if not any(major == gpu.capability[0] and minor <= gpu.capability[1] for major, minor in built):
            yield fail(
                "torch on gpu",
                f"{gpu.name} has compute capability {gpu.capability[0]}.{gpu.capability[1]}, "
                f"torch {facts.version} is built for {', '.join(facts.architectures)}",
                "scripts/set_up.sh --torch cu126 (older GPUs) or default (newer ones)",
            )
            return
    yield ok("torch on gpu", f"torch computes on {facts.devices} GPU(s)")


def has_device_files(devices: Path = Path("/dev")) -> bool:
    """The kernel shows GPUs."""
    return any(devices.glob("nvidia[0-9]*"))
