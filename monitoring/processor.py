"""The processor and memory that this process may really use: affinity and container limits, not what the box has."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
OWN_CGROUP: Final = Path("/proc/self/cgroup")
SHARED_MEMORY: Final = Path("/dev/shm")


def processor_name() -> str:
    """What the processor calls itself, else its architecture."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(errors="replace").splitlines() if information.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.machine()


def usable_cores() -> int:
    """Cores of this process's affinity, or fewer where a container's quota of processor time allows less."""
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


def cpu_quota(root: Path = CGROUPS, own: Path = OWN_CGROUP) -> float | None:
    """Processors' worth of time that the control groups of this process allow; `None` without a limit."""
    quotas = []
    for group in _groups(root, own):
        words = _read(group / "cpu.max").split()
        if len(words) == 2 and words[0] != "max":
            quotas.append(int(words[0]) / int(words[1]))
    quota, period = _read(root / "cpu/cpu.cfs_quota_us"), _read(root / "cpu/cpu.cfs_period_us")
    if quota and period and int(quota) > 0:
        quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


@dataclass(frozen=True, slots=True)
class GroupProcessor:
    """Counts of a control group that has a quota of processor time."""

    quota: float
    """Processors' worth of time."""
    used: float
    """Seconds of processor time."""
    periods: int
    """Of the quota, in which something ran."""
    held: int
    """Those of them in which it was used up."""


def group_processor(root: Path = CGROUPS, own: Path = OWN_CGROUP) -> GroupProcessor | None:
    """The control group whose quota is the tightest; `None` without a quota, or where nothing is counted.

    As the kernel's documentation has it: cpu.max and cpu.stat of version 2 count microseconds, cpuacct.usage of version
    1 nanoseconds.
    """
    found = []
    for group in _groups(root, own):
        words, counts = _read(group / "cpu.max").split(), _counts(group / "cpu.stat")
        if len(words) == 2 and words[0] != "max" and "usage_usec" in counts:
            found.append(_group(int(words[0]) / int(words[1]), counts["usage_usec"] / 1e6, counts))
    quota, period = _read(root / "cpu/cpu.cfs_quota_us"), _read(root / "cpu/cpu.cfs_period_us")
    used = _read(root / "cpuacct/cpuacct.usage")
    if quota and period and int(quota) > 0 and used:
        found.append(_group(int(quota) / int(period), int(used) / 1e9, _counts(root / "cpu/cpu.stat")))
    return min(found, key=lambda group: group.quota, default=None)


def memory_limit(root: Path = CGROUPS, own: Path = OWN_CGROUP) -> int | None:
    """Bytes of memory that the control groups of this process allow; `None` without a limit."""
    texts = [_read(group / "memory.max") for group in _groups(root, own)]
    texts.append(_read(root / "memory/memory.limit_in_bytes"))
    limits = [int(text) for text in texts if text.isdigit()]
    # version 1 says "no limit" by a number near 2**63
    return min((limit for limit in limits if limit < 2**60), default=None)


def group_memory(root: Path = CGROUPS, own: Path = OWN_CGROUP) -> tuple[int, int] | None:
    """Bytes in use and allowed of the control group whose limit is the tightest; `None` without a limit."""
    places = [(group / "memory.current", group / "memory.max") for group in _groups(root, own)]
    places.append((root / "memory/memory.usage_in_bytes", root / "memory/memory.limit_in_bytes"))
    texts = [(_read(used), _read(limit)) for used, limit in places]
    found = [(int(used), int(limit)) for used, limit in texts if used.isdigit() and limit.isdigit()]
    return min((pair for pair in found if pair[1] < 2**60), key=lambda pair: pair[1] - pair[0], default=None)


def usable_memory() -> int:
    """Bytes of memory of the machine, or the container's limit where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = memory_limit()
    return total if limit is None else min(total, limit)


def free_shared_memory(path: Path = SHARED_MEMORY) -> int | None:
    """Free bytes of /dev/shm, through which loader workers hand over their batches; `None` where there is none."""
    try:
        status = os.statvfs(path)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def _group(quota: float, used: float, counts: dict[str, int]) -> GroupProcessor:
    return GroupProcessor(quota, used, counts.get("nr_periods", 0), counts.get("nr_throttled", 0))


def _counts(path: Path) -> dict[str, int]:
    """Lines such as `nr_throttled 7`."""
    pairs = (line.split() for line in _read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _groups(root: Path, own: Path) -> list[Path]:
    """Directories of this process's control group (version 2) and of those around it, the root's last."""
    line = next((line for line in _read(own).splitlines() if line.startswith("0::")), "0::/")
    place = root / line.removeprefix("0::").lstrip("/")
    return [group for group in (place, *place.parents) if group == root or root in group.parents]


def _read(path: Path) -> str:
    """The stripped text of a file, empty where it cannot be read: which of these files exist depends on the kernel."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
