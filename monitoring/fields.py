"""Every figure of a device and of the host: its name, unit, meaning, and the range a true value lies in.

Drivers answer with placeholders where they know nothing (all bits set, for one): what lies outside the range is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from monitoring.samples import Missing

PERCENT: Final = "%"
BYTES: Final = "B"
_LARGEST: Final = 2.0**60
"""More bytes, joules or errors than any machine has."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure."""

    name: str
    unit: str
    what: str
    good: str = ""
    """What a good value is, for the reader of the documentation."""
    most: float = _LARGEST
    least: float = 0.0

    def checked(self, value: float) -> float | Missing:
        """The value, or that it cannot be one."""
        if not math.isfinite(value) or not self.least <= value <= self.most:
            return Missing(f"the driver gave a placeholder ({value:g})")
        return float(value)


def _by_name(*figures: Figure) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


DEVICE: Final = _by_name(
    Figure("utilisation", PERCENT, "share of time in which any kernel ran: one busy multiprocessor counts as 100 %",
           "a trend only; read sm_activity where there is one", most=100),
    Figure("memory_utilisation", PERCENT, "share of time in which device memory was read or written", most=100),
    Figure("sm_activity", PERCENT, "share of multiprocessors that had work (GPM)", "over 80 in training", most=100),
    Figure("sm_occupancy", PERCENT, "warps in flight of those possible (GPM)", "over 25; it depends on the kernels",
           most=100),
    Figure("tensor_activity", PERCENT, "share of time in which tensor cores worked (GPM)",
           "over 30 with bf16; low means small or fp32 matrices", most=100),
    Figure("dram_activity", PERCENT, "share of the memory bandwidth in use (GPM)",
           "over 60 means memory-bound kernels", most=100),
    Figure("memory_used", BYTES, "device memory that processes hold", "under 95 % of memory_total"),
    Figure("memory_total", BYTES, "device memory there is"),
    Figure("memory_reserved", BYTES, "device memory that the driver keeps for itself"),
    Figure("power", "W", "power drawn now", "near power_limit under load", most=5000),
    Figure("power_limit", "W", "power the driver allows", most=5000),
    Figure("energy", "J", "energy drawn since the driver was loaded", most=1e14),
    Figure("temperature", "°C", "temperature of the chip", "10 below slowdown_temperature", most=150, least=-50),
    Figure("memory_temperature", "°C", "temperature of the memory", "under 95", most=150, least=-50),
    Figure("slowdown_temperature", "°C", "where the chip begins to slow itself down", most=150),
    Figure("sm_clock", "MHz", "clock of the multiprocessors now", "over 90 % of sm_clock_max under load", most=20_000),
    Figure("sm_clock_max", "MHz", "highest clock of the multiprocessors", most=20_000),
    Figure("memory_clock", "MHz", "clock of the memory now", most=50_000),
    Figure("clock_reasons", "bits", "why clocks are held down: the bits of NVML, by name in the view",
           "0, idle, or a power cap that costs little", most=2**32 - 2),
    Figure("pcie_generation", "", "generation of the PCIe link now; it falls while idle", "pcie_generation_max",
           most=16),
    Figure("pcie_generation_max", "", "generation of the PCIe link at best", most=16),
    Figure("pcie_width", "lanes", "lanes of the PCIe link now", "pcie_width_max; fewer point to a bad seat or riser",
           most=64),
    Figure("pcie_width_max", "lanes", "lanes of the PCIe link at best", most=64),
    Figure("pcie_tx", "B/s", "sent over PCIe", most=1e13),
    Figure("pcie_rx", "B/s", "received over PCIe", most=1e13),
    Figure("nvlink_links", "", "NVLink links that are up", "all that the board has", most=64),
    Figure("nvlink_tx", "B/s", "sent over NVLink", most=1e14),
    Figure("nvlink_rx", "B/s", "received over NVLink", most=1e14),
    Figure("ecc_corrected", "", "memory errors that were corrected, over the life of the board", "constant"),
    Figure("ecc_uncorrected", "", "memory errors that could not be corrected, since the driver was loaded", "0"),
    Figure("remapped_rows", "", "memory rows replaced by spare ones", "constant; ask for another board when it grows",
           most=1e6),
    Figure("remap_failed", "", "1 where a row could not be replaced", "0: a broken board otherwise", most=1),
    Figure("xid_errors", "", "critical driver errors (XID) since the sampler began", "0"),
    Figure("last_xid", "", "number of the last of them, see NVIDIA's list of XIDs", most=100_000),
)  # fmt: skip

HOST: Final = _by_name(
    Figure("cpu", PERCENT, "processor time in use, of all cores", "under 90", most=100),
    Figure("iowait", PERCENT, "processor time spent waiting for disks", "under 5", most=100),
    Figure("cores", "", "cores this process may use", most=2**16),
    Figure("container_cpu", PERCENT, "processor time that this container uses, of what its quota allows",
           "under 90: above, it is held back while the machine may be idle", most=1000),
    Figure("container_cpu_held", PERCENT, "share of the quota's periods in which it held this container back",
           "under 5", most=100),
    Figure("container_cpu_limit", "", "processors' worth of time that this container may use, its quota", most=2**16),
    Figure("memory_used", BYTES, "main memory in use (what is not available)"),
    Figure("memory_total", BYTES, "main memory there is"),
    Figure("container_memory_used", BYTES, "memory of this container, page cache included"),
    Figure("container_memory_limit", BYTES, "memory this container may use: at it, processes are killed"),
    Figure("swap_used", BYTES, "memory that was moved to disk", "0"),
    Figure("shared_memory_used", BYTES, "of /dev/shm, through which loader workers hand over batches"),
    Figure("shared_memory_total", BYTES, "size of /dev/shm; Docker gives 64 MB unless told otherwise"),
    Figure("disk_used", BYTES, "of the file system that the runs are written to", "under 95 % of disk_total"),
    Figure("disk_total", BYTES, "size of that file system"),
    Figure("disk_read", "B/s", "read from all disks", most=1e13),
    Figure("disk_written", "B/s", "written to all disks", most=1e13),
    Figure("disk_busy", PERCENT, "share of time in which the busiest disk worked", "under 80", most=100),
    Figure("network_received", "B/s", "received over network cards; in a container, over its interfaces", most=1e13),
    Figure("network_sent", "B/s", "sent over network cards; in a container, over its interfaces", most=1e13),
)  # fmt: skip

CLOCK_REASONS: Final = {
    0x001: "idle",
    0x002: "clocks set by the user",
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x010: "synchronised boost",
    0x020: "heat (driver)",
    0x040: "heat (hardware)",
    0x080: "power brake",
    0x100: "display clocks",
}
POWER_REASONS: Final = 0x004 | 0x080
HEAT_REASONS: Final = 0x020 | 0x040


def clock_reasons(bits: float) -> list[str]:
    """What NVML's bits say, in words."""
    return [text for bit, text in CLOCK_REASONS.items() if int(bits) & bit]
