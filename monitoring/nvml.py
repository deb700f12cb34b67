"""All GPUs of the machine through NVML. Whatever the driver does, there is an answer and no exception."""

from __future__ import annotations

from ctypes import c_void_p, cast
from typing import Any, Final

import pynvml

from monitoring.nvml_ask import ask
from monitoring.nvml_device import NvmlDevice
from monitoring.samples import Alert, DeviceSample, Missing

RETRY: Final = 10
"""Samples between attempts to open the driver again when it or a device is gone."""
_MOST_DEVICES: Final = 1024
_MOST_EVENTS: Final = 64
"""Critical errors that are read at one sample."""


class NvmlDevices:
    """Looks at every GPU and MIG instance; implements `monitoring.sampler.Devices`."""

    def __init__(self) -> None:
        self.backend = "NVML"
        self.problem: str | None = None
        self.driver_missing = False
        self._devices: list[NvmlDevice] = []
        self._closed_to_us: dict[int, str] = {}
        self._events: Any = None
        self._opened = False
        self._count = 0
        self._open()

    def sample(self, now: float) -> tuple[DeviceSample, ...]:
        """Every device at `now` (`time.monotonic()`); one that is gone stays in the list, without values."""
        if self._count % RETRY == 0 and self._count and (self.problem or self._closed_to_us or self._any_lost()):
            self._open_again()
        self._count += 1
        self._read_events()
        return tuple(device.sample(now) for device in self._devices)

    def alerts(self) -> list[Alert]:
        """What is wrong with the devices, as of the last sample."""
        found = [
            Alert(kind="gpu_lost", subject=f"GPU {one.index}", text=f"{one.name} is lost: {one.lost}")
            for one in self._devices
            if one.lost
        ]
        found += [
            Alert(kind="device_error", subject=f"GPU {index}", text=f"cannot be opened: {reason}")
            for index, reason in self._closed_to_us.items()
        ]
        found += [
            Alert(kind="device_error", subject=f"GPU {one.index}", text=f"driver error XID {one.xids[-1]}")
            for one in self._devices
            if one.xids
        ]
        if self.problem and self._opened:
            found.append(Alert(kind="gpu_lost", subject="driver", text=f"worked before, now: {self.problem}"))
        return found

    def close(self) -> None:
        """Leave NVML as it was found."""
        for device in self._devices:
            device.close()
        if self._events is not None:
            ask("nvmlEventSetFree", self._events)
            self._events = None
        if self.problem is None:
            ask("nvmlShutdown")
        self.problem = self.problem or "closed"

    # --- opening -------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        begun = ask("nvmlInit")
        if isinstance(begun, Missing):
            self.problem, self.driver_missing = begun.reason, begun.code in _NO_DRIVER
            return
        count = _number(ask("nvmlDeviceGetCount"))
        if isinstance(count, Missing):
            self.problem = count.reason
            ask("nvmlShutdown")
            return
        driver = ask("nvmlSystemGetDriverVersion")
        self.backend = "NVML" if isinstance(driver, Missing) else f"NVML, driver {driver}"
        self.problem, self._closed_to_us = None, {}
        found = [device for index in range(count) for device in self._devices_at(index)]
        if self._opened:  # those that have not come back stay, as lost
            here = {device.uuid for device in found}
            found += [device for device in self._devices if device.uuid not in here and device.lost]
        self._devices, self._opened = found, True
        self._register_events()

    def _open_again(self) -> None:
        """Start NVML anew; while it does not start, the devices that were known stay."""
        self.close()
        self._open()

    def _devices_at(self, index: int) -> list[NvmlDevice]:
        """The GPU at `index`, and its instances where it is divided (MIG)."""
        handle = ask("nvmlDeviceGetHandleByIndex", index)
        if isinstance(handle, Missing):
            self._closed_to_us[index] = handle.reason
            return []
        gpu = NvmlDevice(handle, index)
        return [gpu, *(NvmlDevice(one, index, gpu=handle, parent=gpu.uuid) for one in _instances(handle))]

    def _any_lost(self) -> bool:
        return any(device.lost for device in self._devices)

    # --- critical errors -----------------------------------------------------------------------------------------

    def _register_events(self) -> None:
        events = ask("nvmlEventSetCreate")
        if isinstance(events, Missing):
            for device in self._devices:
                device.watches_xid = events
            return
        self._events = events
        for device in self._devices:
            if device.kind == "gpu":
                asked = ask("nvmlDeviceRegisterEvents", device.handle, pynvml.nvmlEventTypeXidCriticalError, events)
                device.watches_xid = asked if isinstance(asked, Missing) else None

    def _read_events(self) -> None:
        for _ in range(_MOST_EVENTS if self._events is not None else 0):
            event = ask("nvmlEventSetWait", self._events, 0)
            if isinstance(event, Missing):  # no more of them
                return
            for device in self._devices:
                if device.kind == "gpu" and _same(device.handle, event.device):
                    device.xids.append(int(event.eventData))


_NO_DRIVER: Final = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)


def _number(answer: int | Missing) -> int | Missing:
    """A number of devices, unless it is a placeholder."""
    if isinstance(answer, Missing) or 0 <= answer <= _MOST_DEVICES:
        return answer
    return Missing(f"the driver gave a placeholder ({answer})")


def _instances(handle: Any) -> list[Any]:
    mode, places = ask("nvmlDeviceGetMigMode", handle), _number(ask("nvmlDeviceGetMaxMigDeviceCount", handle))
    if isinstance(mode, Missing) or not mode[0] or isinstance(places, Missing):
        return []
    found = [ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, place) for place in range(places)]
    return [one for one in found if not isinstance(one, Missing)]


def _same(one: Any, other: Any) -> bool:
    """Whether two handles are one."""
    return bool(one) and bool(other) and _address(one) == _address(other)


def _address(handle: Any) -> int | None:
    return cast(handle, c_void_p).value
