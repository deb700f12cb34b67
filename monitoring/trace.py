"""What a run has told about itself, in the form that verdicts are made from."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

KEPT_WINDOWS: Final = 60
"""Lines of the log that count: what limited the run an hour ago may be mended."""
OWN_WORK: Final = ("data_wait", "host_to_device", "forward", "backward", "optimizer", "other")
"""Phases in which a process keeps the others waiting."""
COMPUTING: Final = ("forward", "backward", "optimizer")


@dataclass(frozen=True, slots=True)
class RankTrace:
    """One process between two lines of the log."""

    rank: int
    seconds: dict[str, float]
    """Of one step, by phase."""
    host: str = ""
    device: str = ""
    starved: float | None = None
    """Share of time in which the process itself waited for a processor."""
    loader_cpu: float | None = None
    loader_starved: float | None = None
    allocator_retries: int | None = None
    """Since the start."""

    @property
    def work(self) -> float:
        """Seconds of a step in which the others may wait for this process."""
        return sum(self.seconds.get(phase, 0.0) for phase in OWN_WORK)


@dataclass(frozen=True, slots=True)
class Window:
    """All processes between two lines of the log."""

    step: int
    ranks: tuple[RankTrace, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """The newest part of a run; empty parts are not known."""

    windows: tuple[Window, ...] = ()
    """Without the first, in which kernels are chosen and workers begin."""
    devices: tuple[dict[str, Any], ...] = ()
    """What hardware lines say of each device, one after the other."""
    hosts: tuple[dict[str, float], ...] = ()
    plan: Mapping[str, Any] = field(default_factory=dict)

    # --- means over the windows ----------------------------------------------------------------------------------

    @property
    def ranks(self) -> list[int]:
        """Processes of the newest window."""
        return [one.rank for one in self.windows[-1].ranks] if self.windows else []

    def seconds(self, phase: str, rank: int) -> float:
        """Mean seconds of a step that a process spends in a phase."""
        return statistics.mean(one.seconds.get(phase, 0.0) for one in self._of(rank))

    def work(self, rank: int) -> float:
        """Mean seconds of a step in which a process keeps the others waiting."""
        return statistics.mean(one.work for one in self._of(rank))

    def step_seconds(self) -> float:
        """Mean seconds of a step with all that belongs to it, evaluations left out."""
        return statistics.mean(
            sum(value for phase, value in one.seconds.items() if phase != "evaluation")
            for window in self.windows
            for one in window.ranks
        )

    def share(self, name: Literal["starved", "loader_cpu", "loader_starved"], rank: int) -> float | None:
        """Mean of a share of time of a process or its readers."""
        known = [value for one in self._of(rank) if (value := getattr(one, name)) is not None]
        return statistics.mean(known) if known else None

    def processes_here(self) -> int:
        """Processes of the run on the machine that `host` tells of, which is the first one's."""
        return len(self._here())

    def cores_of_readers(self) -> float | None:
        """Cores that the loader workers of the run keep busy on that machine."""
        shares = [self.share("loader_cpu", rank) for rank in self._here()]
        known = [share for share in shares if share is not None]
        return int(self.plan.get("workers", 0)) * sum(known) if known else None

    def host(self, name: str) -> float | None:
        """Mean of a figure of the machine."""
        known = [host[name] for host in self.hosts if name in host]
        return statistics.mean(known) if known else None

    def processors(self) -> tuple[float | None, str]:
        """How busy the processors are, %, and whose: a container's quota may be used up while the machine is idle."""
        machine, quota = self.host("cpu"), self.host("container_cpu")
        if quota is not None and quota > (machine or 0.0):
            return quota, "the container's quota of processors"
        return machine, "processors of the machine"

    def device(self, uuid: str, name: str) -> float | None:
        """Mean of a figure of one device."""
        known = [one["values"][name] for one in self.devices if one["uuid"] == uuid and name in one["values"]]
        return statistics.mean(known) if known else None

    def device_of(self, rank: int) -> str:
        """The device that a process drives, empty where it is not known."""
        return next((one.device for one in self.windows[-1].ranks if one.rank == rank), "")

    def used_devices(self) -> list[str]:
        """Devices that the run drives; all of the machine where the processes do not say."""
        seen = {one["uuid"]: None for one in self.devices}
        own = {one.device for window in self.windows[-1:] for one in window.ranks}
        return [uuid for uuid in seen if uuid in own] or list(seen)

    def _here(self) -> list[int]:
        ranks = self.windows[-1].ranks if self.windows else ()
        return [one.rank for one in ranks if one.host == ranks[0].host]

    def _of(self, rank: int) -> list[RankTrace]:
        return [one for window in self.windows for one in window.ranks if one.rank == rank]


def trace_of(lines: Sequence[Mapping[str, Any]], plan: Mapping[str, Any]) -> Trace:
    """The newest part of a run from the lines of its metrics.jsonl and its plan; older versions' lines are skipped."""
    windows = list(_windows(lines))[-KEPT_WINDOWS:]
    first = windows[0].step if windows else 0
    hardware = [line for line in lines if line.get("event") == "devices" and line.get("step", 0) >= first]
    return Trace(
        windows=tuple(windows),
        devices=tuple(device for line in hardware for device in line.get("devices", ())),
        hosts=tuple(line["host"] for line in hardware if "host" in line),
        plan=plan,
    )


def _windows(lines: Sequence[Mapping[str, Any]]) -> Iterator[Window]:
    """Those of the newest start of the run: counters begin anew with it, and its first window is all beginnings."""
    found: list[Window] = []
    process = None
    for line in lines:
        if line.get("event") != "train" or not line.get("ranks"):
            continue
        ranks = line["ranks"]
        starter = (ranks[0].get("host"), ranks[0].get("pid"))
        if starter != process:
            found, process = [], starter
            continue
        found.append(Window(int(line["step"]), tuple(_rank(one) for one in ranks)))
    yield from found


def _rank(one: Mapping[str, Any]) -> RankTrace:
    return RankTrace(
        rank=int(one["rank"]),
        seconds=dict(one["seconds"]),
        host=one.get("host", ""),
        device=one.get("device", ""),
        starved=one.get("starved"),
        loader_cpu=one.get("loader_cpu"),
        loader_starved=one.get("loader_starved"),
        allocator_retries=one.get("allocator_retries"),
    )
