"""The machine around the accelerators: processor, memory, disks, network."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil

from monitoring.fields import HOST
from monitoring.processor import SHARED_MEMORY, group_memory, group_processor, usable_cores
from monitoring.rates import Rates
from monitoring.samples import NEEDS_TWO, HostSample, Missing, Readings

BLOCK_DEVICES: Final = Path("/sys/block")
NETWORK_CARDS: Final = Path("/sys/class/net")
_WAITING: Final = ("idle", "iowait")
_QUOTA: Final = ("container_cpu", "container_cpu_held", "container_cpu_limit")


class Host:
    """Looks at this machine.

    Args:
        disk: a path on the file system to watch, such as the folder of the runs.
    """

    def __init__(self, disk: Path = Path()) -> None:
        self.disk = disk
        self._rates = Rates()
        self._times: Any = None

    def sample(self, now: float) -> HostSample:
        """Everything at `now` (`time.monotonic()`)."""
        readings = Readings()
        for names, look in self._looks(now):
            try:
                found = look()
            except (OSError, RuntimeError, psutil.Error) as error:  # not readable here: /proc hidden, path gone
                found = dict.fromkeys(names, Missing(f"{type(error).__name__}: {error}"))
            for name in names:
                value = found.get(name, Missing("this system does not tell"))
                readings.put(name, value if isinstance(value, Missing) else HOST[name].checked(value))
        return HostSample(name=socket.gethostname(), values=readings.values, missing=readings.missing)

    def _looks(self, now: float) -> tuple[tuple[tuple[str, ...], Callable[[], dict[str, float | Missing]]], ...]:
        return (
            (("cpu", "iowait"), self._processor),
            (("cores",), lambda: {"cores": usable_cores()}),
            (_QUOTA, lambda: self._quota(now)),
            (("memory_used", "memory_total"), _memory),
            (("container_memory_used", "container_memory_limit"), _container),
            (("swap_used",), lambda: {"swap_used": psutil.swap_memory().used}),
            (("shared_memory_used", "shared_memory_total"), lambda: _space(SHARED_MEMORY, "shared_memory")),
            (("disk_used", "disk_total"), lambda: _space(self.disk, "disk")),
            (("disk_read", "disk_written", "disk_busy"), lambda: self._disks(now)),
            (("network_received", "network_sent"), lambda: self._network(now)),
        )

    def _processor(self) -> dict[str, float | Missing]:
        before, self._times = self._times, psutil.cpu_times()
        if before is None:
            return {"cpu": NEEDS_TWO, "iowait": NEEDS_TWO}
        # guests are counted among users already
        spent = {
            name: getattr(self._times, name) - getattr(before, name)
            for name in self._times._fields
            if not name.startswith("guest")
        }
        total = sum(spent.values())
        if total <= 0:
            return {"cpu": NEEDS_TWO, "iowait": NEEDS_TWO}
        waiting = sum(spent.get(name, 0.0) for name in _WAITING)
        return {
            "cpu": min(100.0, max(0.0, 100 * (1 - waiting / total))),
            "iowait": min(100.0, max(0.0, 100 * spent["iowait"] / total))
            if "iowait" in spent
            else Missing("this system does not tell"),
        }

    def _quota(self, now: float) -> dict[str, float | Missing]:
        group = group_processor()
        if group is None:
            return dict.fromkeys(_QUOTA, Missing("no quota on the processor time of this container"))
        used = self._rates.of("quota used", group.used, now)
        periods, held = (self._rates.of(f"quota {name}", getattr(group, name), now) for name in ("periods", "held"))
        return {
            "container_cpu": used if isinstance(used, Missing) else 100 * used / group.quota,
            "container_cpu_held": _share(held, periods),
            "container_cpu_limit": group.quota,
        }

    def _disks(self, now: float) -> dict[str, float | Missing]:
        disks = psutil.disk_io_counters(perdisk=True)
        if not disks:
            none = Missing("the kernel shows no disks here")
            return dict.fromkeys(("disk_read", "disk_written", "disk_busy"), none)
        whole = _with_hardware(disks, BLOCK_DEVICES)
        whole = (
            whole or {name: one for name, one in disks.items() if not name.startswith(("loop", "ram", "zram"))} or disks
        )
        busy = [self._rates.of(f"busy {name}", getattr(one, "busy_time", 0.0), now) for name, one in whole.items()]
        known = [share for share in busy if not isinstance(share, Missing)]
        return {
            "disk_read": self._rates.of("read", sum(one.read_bytes for one in whole.values()), now),
            "disk_written": self._rates.of("written", sum(one.write_bytes for one in whole.values()), now),
            "disk_busy": min(100.0, max(known) / 10) if known else NEEDS_TWO,  # milliseconds per second
        }

    def _network(self, now: float) -> dict[str, float | Missing]:
        cards = psutil.net_io_counters(pernic=True)
        own = _with_hardware(cards, NETWORK_CARDS) or {name: one for name, one in cards.items() if name != "lo"}
        outside = own.values()
        if not outside:
            none = Missing("there is no network but the loopback")
            return {"network_received": none, "network_sent": none}
        return {
            "network_received": self._rates.of("received", sum(one.bytes_recv for one in outside), now),
            "network_sent": self._rates.of("sent", sum(one.bytes_sent for one in outside), now),
        }


def _with_hardware(found: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Those that are no part of others and not made of others: bytes of partitions, RAID, bridges would count again.

    None where the kernel shows no hardware, as in a container's own network.
    """
    return {name: one for name, one in found.items() if (folder / name.replace("/", "!") / "device").exists()}


def _share(part: float | Missing, whole: float | Missing) -> float | Missing:
    if isinstance(part, Missing) or isinstance(whole, Missing):
        return part if isinstance(part, Missing) else whole
    return 100 * part / whole if whole else Missing("no period of the quota since the last look")


def _memory() -> dict[str, float | Missing]:
    memory = psutil.virtual_memory()
    return {"memory_used": memory.total - memory.available, "memory_total": memory.total}


def _container() -> dict[str, float | Missing]:
    group = group_memory()
    none = Missing("no limit on the memory of this container")
    if group is None:
        return {"container_memory_used": none, "container_memory_limit": none}
    return {"container_memory_used": group[0], "container_memory_limit": group[1]}


def _space(path: Path, name: str) -> dict[str, float | Missing]:
    status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    total = (status.f_blocks - status.f_bfree + status.f_bavail) * status.f_frsize
    return {f"{name}_used": total - free, f"{name}_total": total}
