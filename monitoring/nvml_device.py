"""One GPU or MIG instance: asks everything, checks every answer, notices when it is gone."""

from __future__ import annotations

from typing import Any, Final

import pynvml

from monitoring.fields import DEVICE
from monitoring.nvml_ask import GONE, NOT_HERE, ask, ask_first
from monitoring.nvml_gpm import GpmCounters
from monitoring.nvml_queries import (
    COUNTERS,
    GPM,
    MOST_LINKS,
    OF_THE_WHOLE_GPU,
    PCIE_DIRECTIONS,
    QUERIES,
    SELDOM,
    Found,
    Query,
)
from monitoring.rates import Rates
from monitoring.samples import NEEDS_TWO, DeviceKind, DeviceSample, Missing, Process, Readings
from monitoring.training_processes import foreign_ids, rank_of

IDLE_SAMPLES: Final = 60
"""Samples until a function that this board does not have is asked for again."""
PATIENCE: Final = 2
"""An unknown error is news the second time in a row: one alone may be a hiccup."""
_VALUE_OF_TYPE: Final = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
_WITH_GPU: Final = "stands with the GPU that this is an instance of"


class NvmlDevice:
    """Keeps what must be remembered between samples of one device.

    Args:
        handle: NVML's.
        gpu: the whole GPU's handle, for an instance of one.
    """

    def __init__(self, handle: Any, index: int, *, gpu: Any = None, parent: str | None = None) -> None:
        self.handle = handle
        self.index = index
        self.parent = parent
        self.kind: DeviceKind = "gpu" if gpu is None else "instance"
        name, uuid = ask("nvmlDeviceGetName", handle), ask("nvmlDeviceGetUUID", handle)
        self.name = "unnamed GPU" if isinstance(name, Missing) else name
        self.uuid = f"{self.kind}-{index}" if isinstance(uuid, Missing) else uuid
        self.lost: str | None = None
        """Why this device counts as lost."""
        self.xids: list[int] = []
        self.watches_xid: Missing | None = Missing("no events of this device are registered")
        """Why its critical errors are not known; `None` where they are."""
        self._rates = Rates()
        self._count = 0
        self._worked: set[str] = set()
        self._unknown: dict[str, int] = {}
        self._asleep: dict[str, tuple[int, Missing]] = {}
        self._seldom = Readings()
        self._gpm, self._no_gpm = self._counters(gpu)

    def sample(self, now: float) -> DeviceSample:
        """Ask for everything that is due at `now` (`time.monotonic()`)."""
        self._gone: str | None = None
        readings = Readings(dict(self._seldom.values), dict(self._seldom.missing))
        for query in QUERIES:
            if query.figures[0] in OF_THE_WHOLE_GPU and self.kind == "instance":
                continue
            if self._count % query.every == 0:
                self._put(readings, query)
        if self.kind == "gpu":
            self._links(readings)
            self._field_values(readings, now)
            self._xid(readings)
        else:
            for name in OF_THE_WHOLE_GPU:
                readings.put(name, Missing(_WITH_GPU))
        for name, value in self._activity().items():
            self._note(f"gpm {name}", value)
            self._keep(readings, name, value)
        processes = self._processes(readings)
        self._count += 1
        self._judge()
        if self._gone:  # what was asked a while ago is not true any more
            for name in list(self._seldom.values):
                readings.put(name, Missing(self._gone))
                self._seldom.put(name, Missing(self._gone))
        return DeviceSample(
            index=self.index,
            uuid=self.uuid,
            name=self.name,
            kind=self.kind,
            parent=self.parent,
            values=readings.values,
            missing=readings.missing,
            processes=processes,
        )

    def close(self) -> None:
        """Give back what the driver holds for this device."""
        if self._gpm:
            self._gpm.close()

    # --- asking --------------------------------------------------------------------------------------------------

    def _counters(self, gpu: Any) -> tuple[GpmCounters | None, Missing]:
        if gpu is None:
            return GpmCounters(self.handle), NEEDS_TWO
        instance = ask("nvmlDeviceGetGpuInstanceId", self.handle)
        if isinstance(instance, Missing):
            return None, Missing(f"the number of this instance is not known: {instance.reason}")
        return GpmCounters(gpu, instance), NEEDS_TWO

    def _activity(self) -> Found:
        return self._gpm.look() if self._gpm else dict.fromkeys(GPM, self._no_gpm)

    def _put(self, readings: Readings, query: Query) -> None:
        answer = self._ask(query.figures[0], query.calls)
        found = dict.fromkeys(query.figures, answer) if isinstance(answer, Missing) else query.read(answer)
        for name, value in found.items():
            self._keep(readings, name, value, seldom=query.every != 1)

    def _keep(self, readings: Readings, name: str, value: float | Missing, seldom: bool = False) -> None:
        checked = value if isinstance(value, Missing) else DEVICE[name].checked(value)
        readings.put(name, checked)
        if seldom:
            self._seldom.put(name, checked)

    def _ask(self, key: str, calls: tuple[tuple[str, tuple[Any, ...]], ...]) -> Any:
        """The answer; what this board does not have is asked for again only now and then."""
        until, known = self._asleep.get(key, (0, None))
        if known is not None and self._count < until:
            return known
        answer = ask_first(calls, self.handle)
        if isinstance(answer, Missing) and answer.code in NOT_HERE and key not in self._worked:
            self._asleep[key] = (self._count + IDLE_SAMPLES, answer)
        self._note(key, answer)
        return answer

    def _links(self, readings: Readings) -> None:
        if self._count % SELDOM:
            return
        answers = [ask("nvmlDeviceGetNvLinkState", self.handle, 0)]
        while not isinstance(answers[-1], Missing) and len(answers) < MOST_LINKS:
            answers.append(ask("nvmlDeviceGetNvLinkState", self.handle, len(answers)))
        self._note("nvlink_links", answers[0])
        states = [state for state in answers if state in (pynvml.NVML_FEATURE_DISABLED, pynvml.NVML_FEATURE_ENABLED)]
        no_link = answers[0] if isinstance(answers[0], Missing) else Missing("the driver gave a placeholder")
        self._keep(readings, "nvlink_links", sum(states) if states else no_link, seldom=True)

    def _field_values(self, readings: Readings, now: float) -> None:
        """Memory temperature and the counters of both buses, in one call."""
        ids = [(pynvml.NVML_FI_DEV_MEMORY_TEMP, 0), *((field, scope) for field, scope, _ in COUNTERS.values())]
        answer = self._ask("fields", (("nvmlDeviceGetFieldValues", (ids,)),))
        values: list[float | Missing]
        values = [answer] * len(ids) if isinstance(answer, Missing) else [_field_value(one) for one in answer]
        self._keep(readings, "memory_temperature", values[0])
        for (name, (_, _, unit)), count in zip(COUNTERS.items(), values[1:], strict=True):
            self._note(name, count)
            if isinstance(count, Missing) and name in PCIE_DIRECTIONS:
                self._keep(readings, name, self._throughput(name))
            else:
                scaled = count if isinstance(count, Missing) else count * unit
                self._keep(readings, name, self._rates.of(name, scaled, now))

    def _throughput(self, name: str) -> float | Missing:
        answer = self._ask(f"{name} now", (("nvmlDeviceGetPcieThroughput", (PCIE_DIRECTIONS[name],)),))
        return answer if isinstance(answer, Missing) else float(answer * 1000)  # NVML says KB/s

    def _xid(self, readings: Readings) -> None:
        self._keep(readings, "xid_errors", self.watches_xid or len(self.xids))
        none_yet = Missing("none so far")
        self._keep(readings, "last_xid", self.watches_xid or (self.xids[-1] if self.xids else none_yet))

    def _processes(self, readings: Readings) -> tuple[Process, ...] | None:
        answer = self._ask("processes", (("nvmlDeviceGetComputeRunningProcesses", ()),))
        if isinstance(answer, Missing):
            readings.put("processes", answer)
            return None
        if foreign := foreign_ids():
            readings.put("ranks", foreign)
        return tuple(
            Process(pid=one.pid, rank=rank_of(one.pid), memory_bytes=_plausible(one.usedGpuMemory)) for one in answer
        )

    # --- noticing that it is gone --------------------------------------------------------------------------------

    def _note(self, key: str, answer: Any) -> None:
        """Remember what works, and what stopped to."""
        if not isinstance(answer, Missing):
            self._worked.add(key)
            self._unknown.pop(key, None)
        elif answer.code in GONE:
            self._gone = answer.reason
        elif answer.code == pynvml.NVML_ERROR_UNKNOWN and key in self._worked:
            self._unknown[key] = self._unknown.get(key, 0) + 1
            self._last_unknown = answer.reason
        elif answer.code is not None:
            self._unknown.pop(key, None)

    def _judge(self) -> None:
        stopped = [key for key, times in self._unknown.items() if times >= PATIENCE]
        if self._gone:
            self.lost = f"NVML says {self._gone!r}"
        elif stopped:
            shown = ", ".join(sorted(stopped)[:3]) + (f" and {len(stopped) - 3} more" if len(stopped) > 3 else "")
            self.lost = f"{shown} worked before, now NVML says {self._last_unknown!r}"
        else:
            self.lost = None


def _field_value(one: Any) -> float | Missing:
    if one.nvmlReturn != pynvml.NVML_SUCCESS:
        return Missing(str(pynvml.NVMLError(one.nvmlReturn)), one.nvmlReturn)
    if one.valueType >= len(_VALUE_OF_TYPE):
        return Missing(f"a value of the unknown type {one.valueType}")
    value = float(getattr(one.value, _VALUE_OF_TYPE[one.valueType]))
    return Missing("the driver gave a placeholder") if value >= 2**63 - 2**16 else value


def _plausible(memory: int | None) -> int | None:
    return None if memory is None or memory > 2**60 else memory
