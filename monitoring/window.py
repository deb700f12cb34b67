"""Many looks at a machine as one: means over a while, for a run's log."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from monitoring.fields import HEAT_REASONS, POWER_REASONS
from monitoring.samples import DeviceSample, MachineSample

KEPT: Final = (
    "utilisation", "sm_activity", "tensor_activity", "dram_activity", "memory_used", "memory_total", "power",
    "power_limit", "temperature", "sm_clock", "sm_clock_max", "pcie_rx", "nvlink_rx", "xid_errors",
)  # fmt: skip
"""Figures of a device that a run's log keeps."""
HELD: Final = {"held_by_power": POWER_REASONS, "held_by_heat": HEAT_REASONS}
"""Share of looks, %, at which NVML named such a reason for lower clocks."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """A machine over a while."""

    samples: tuple[MachineSample, ...]
    """At least one, oldest first."""

    def line(self) -> dict[str, Any]:
        """JSON-able: `devices` (a list), `host_values`, `backend`, `problem`, `alerts`, `looks`."""
        last = self.samples[-1]
        return {
            "looks": len(self.samples),
            "backend": last.backend,
            "problem": last.problem,
            "machine": last.host.name,
            "devices": [self._device(one) for one in last.devices],
            "host": self._host(),
            "alerts": sorted({f"{alert.subject}: {alert.text}" for one in self.samples for alert in one.alerts}),
        }

    def curves(self) -> dict[str, float]:
        """Device figures by the names of their curves."""
        number = {one.uuid: place for place, one in enumerate(self.samples[-1].devices)}
        line = self.line()
        return {
            f"device{number[device['uuid']]}/{name}": value
            for device in line["devices"]
            for name, value in device["values"].items()
        }

    def _device(self, last: DeviceSample) -> dict[str, Any]:
        looks = [one for sample in self.samples for one in sample.devices if one.uuid == last.uuid]
        values = _means([one.values for one in looks], KEPT)
        reasons = [int(one.values["clock_reasons"]) for one in looks if "clock_reasons" in one.values]
        for name, bits in HELD.items() if reasons else ():
            values[name] = 100 * statistics.mean(bool(reason & bits) for reason in reasons)
        return {"index": last.index, "uuid": last.uuid, "name": last.name, "kind": last.kind, "values": values}

    def _host(self) -> dict[str, float]:
        return _means([one.host.values for one in self.samples], tuple(self.samples[-1].host.values))


def _means(values: Sequence[dict[str, float]], names: Sequence[str]) -> dict[str, float]:
    known = {name: [one[name] for one in values if name in one] for name in names}
    return {name: float(f"{statistics.mean(found):.5g}") for name, found in known.items() if found}
