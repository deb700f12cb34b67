"""What one look at a machine finds: values, and for every value that is not there the reason. Plain data, JSON-able."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

AlertKind = Literal["gpu_lost", "device_error", "monitor", "no_progress", "not_finite", "disk", "ended"]
DeviceKind = Literal["gpu", "instance", "npu"]


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no value, and why."""

    reason: str
    code: int | None = None
    """NVML's, where it said so."""


NEEDS_TWO: Final = Missing("a rate: there is one after the second sample")


@dataclass(slots=True)
class Readings:
    """Values by the names of `monitoring.fields`; a name is in exactly one of the two."""

    values: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, value: float | Missing) -> None:
        """Record a value or why there is none."""
        if isinstance(value, Missing):
            self.values.pop(name, None)
            self.missing[name] = value.reason
        else:
            self.missing.pop(name, None)
            self.values[name] = value


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Process(_Frozen):
    """A process that has memory of a device."""

    pid: int
    """As the driver tells it: in a container that may be the host's."""
    rank: int | None = None
    """Of the training process it is; `None` for others and where it cannot be seen (another container).

    Where no process can be mapped, `missing["ranks"]` of the device has the reason.
    """
    memory_bytes: int | None = None


class DeviceSample(_Frozen):
    """One accelerator, or one instance of a divided GPU (MIG)."""

    index: int
    """Its number in `nvidia-smi` or `npu-smi`; an instance has that of its GPU."""
    uuid: str
    name: str
    kind: DeviceKind = "gpu"
    parent: str | None = None
    """An instance's GPU."""
    values: dict[str, float] = Field(default_factory=dict)
    missing: dict[str, str] = Field(default_factory=dict)
    processes: tuple[Process, ...] | None = None
    """`None` where they cannot be told; `missing["processes"]` has the reason."""


class HostSample(_Frozen):
    """The machine around the devices."""

    name: str
    values: dict[str, float] = Field(default_factory=dict)
    missing: dict[str, str] = Field(default_factory=dict)


class Alert(_Frozen):
    """Something that somebody should look at now."""

    kind: AlertKind
    subject: str
    """Device or run."""
    text: str


class MachineSample(_Frozen):
    """One look at the machine."""

    time: float
    """Seconds since 1970, for the reader; rates and ages are measured with a clock that does not jump."""
    backend: str
    """Who was asked about devices: `NVML, driver 580.95.05`, `npu-smi`, `host only`."""
    problem: str | None = None
    """Why there are no devices."""
    devices: tuple[DeviceSample, ...] = ()
    host: HostSample
    alerts: tuple[Alert, ...] = ()
