"""`Sampler`: one look after the other at this machine. NVIDIA GPUs, Ascend NPUs, or the host alone.

`with Sampler() as sampler: print(sampler.sample().host.values["cpu"])`
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Final, Literal, Protocol

from monitoring.host import Host
from monitoring.samples import Alert, DeviceSample, MachineSample

Backend = Literal["auto", "nvml", "npu-smi", "host"]
NEARLY_FULL: Final = 0.95
"""Share of a disk in use that is an alert."""


class Devices(Protocol):
    """Accelerators of one make."""

    backend: str
    """Who is asked, for the reader."""
    problem: str | None
    """Why there are no values."""

    def sample(self, now: float) -> tuple[DeviceSample, ...]:
        """Every device at `now` (`time.monotonic()`); never raises."""

    def alerts(self) -> list[Alert]:
        """What is wrong as of the last sample."""

    def close(self) -> None:
        """Give back what was taken."""


class NoDevices:
    """The host alone."""

    backend = "host only"

    def __init__(self, problem: str | None = None) -> None:
        self.problem = problem

    def sample(self, now: float) -> tuple[DeviceSample, ...]:  # noqa: ARG002  (the interface)
        return ()

    def alerts(self) -> list[Alert]:
        return []

    def close(self) -> None:
        """Nothing to give back."""


class Sampler:
    """Looks at this machine whenever it is asked; cheap enough for once a second.

    Args:
        backend: who to ask about devices; `auto` takes NVML where its library is, else `npu-smi` where that program
            is, else none.
        disk: a path on the file system to watch.
    """

    def __init__(self, backend: Backend = "auto", disk: Path = Path()) -> None:
        self.devices = open_devices(backend)
        self.host = Host(disk)

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def sample(self) -> MachineSample:
        """One look. Whatever cannot be told is `missing` with a reason; rates need a second look."""
        now = time.monotonic()
        devices = self.devices.sample(now)
        host = self.host.sample(now)
        return MachineSample(
            time=time.time(),
            backend=self.devices.backend,
            problem=self.devices.problem,
            devices=devices,
            host=host,
            alerts=(*self.devices.alerts(), *_disk_alerts(host.values, self.host.disk)),
        )

    def close(self) -> None:
        """Leave the driver as it was found."""
        self.devices.close()


def open_devices(backend: Backend) -> Devices:
    """The accelerators of this machine; what is wrong with them is part of the answer."""
    if backend == "host":
        return NoDevices("not asked for")
    if backend in ("auto", "nvml"):
        from monitoring.nvml import NvmlDevices

        nvml = NvmlDevices()
        if backend == "nvml" or not nvml.driver_missing:
            return nvml
        if shutil.which("npu-smi") is None:
            return NoDevices(f"no NVIDIA driver here ({nvml.problem}), and no npu-smi")
    from monitoring.npu_smi import NpuSmiDevices

    return NpuSmiDevices()


def _disk_alerts(host: dict[str, float], disk: Path) -> list[Alert]:
    used, total = host.get("disk_used"), host.get("disk_total")
    if not total or used is None or used / total < NEARLY_FULL:
        return []
    free = f"{(total - used) / 2**30:.1f} GiB"
    return [Alert(kind="disk", subject=str(disk.resolve()), text=f"disk {used / total:.0%} full, {free} left")]
