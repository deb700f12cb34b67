"""What is asked of every GPU, how often, and where it goes among the figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pynvml

from monitoring.nvml_ask import Call
from monitoring.samples import Missing

Found = Mapping[str, float | Missing]

EVERY: Final = 1
SELDOM: Final = 10
"""In samples, for what changes rarely."""
KIBIBYTE: Final = 1024
MOST_LINKS: Final = 18
"""NVLinks of one GPU so far (Hopper, Blackwell)."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question."""

    calls: tuple[Call, ...]
    """The newest form of the function first."""
    figures: tuple[str, ...]
    read: Callable[[Any], Found]
    """The answer as figures, before they are checked."""
    every: int = EVERY


def _one(
    figure: str, function: str, *arguments: Any, scale: float = 1.0, every: int = EVERY, old: str | None = None
) -> Query:
    """A query whose answer is a number; `old` is the function's former name."""
    calls: tuple[Call, ...] = ((function, arguments), *(((old, arguments),) if old else ()))
    return Query(calls, (figure,), lambda answer: {figure: answer * scale}, every)


def _memory(answer: Any) -> Found:
    reserved = getattr(answer, "reserved", None)
    return {
        "memory_used": answer.used,
        "memory_total": answer.total,
        "memory_reserved": Missing("this driver counts it as used") if reserved is None else reserved,
    }


QUERIES: Final = (
    Query(
        (("nvmlDeviceGetUtilizationRates", ()),),
        ("utilisation", "memory_utilisation"),
        lambda answer: {"utilisation": answer.gpu, "memory_utilisation": answer.memory},
    ),
    Query(
        (("nvmlDeviceGetMemoryInfo", (pynvml.nvmlMemory_v2,)), ("nvmlDeviceGetMemoryInfo", ())),
        ("memory_used", "memory_total", "memory_reserved"),
        _memory,
    ),
    _one("power", "nvmlDeviceGetPowerUsage", scale=1e-3),
    _one("power_limit", "nvmlDeviceGetEnforcedPowerLimit", scale=1e-3, every=SELDOM),
    _one("energy", "nvmlDeviceGetTotalEnergyConsumption", scale=1e-3),
    _one("temperature", "nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
    _one("slowdown_temperature", "nvmlDeviceGetTemperatureThreshold", pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
         every=SELDOM),
    _one("sm_clock", "nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM),
    _one("memory_clock", "nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_MEM),
    _one("sm_clock_max", "nvmlDeviceGetMaxClockInfo", pynvml.NVML_CLOCK_SM, every=SELDOM),
    _one("clock_reasons", "nvmlDeviceGetCurrentClocksEventReasons", old="nvmlDeviceGetCurrentClocksThrottleReasons"),
    _one("pcie_generation", "nvmlDeviceGetCurrPcieLinkGeneration", every=SELDOM),
    _one("pcie_generation_max", "nvmlDeviceGetMaxPcieLinkGeneration", every=SELDOM),
    _one("pcie_width", "nvmlDeviceGetCurrPcieLinkWidth", every=SELDOM),
    _one("pcie_width_max", "nvmlDeviceGetMaxPcieLinkWidth", every=SELDOM),
    _one("ecc_corrected", "nvmlDeviceGetTotalEccErrors", pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
         pynvml.NVML_AGGREGATE_ECC, every=SELDOM),
    _one("ecc_uncorrected", "nvmlDeviceGetTotalEccErrors", pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
         pynvml.NVML_VOLATILE_ECC, every=SELDOM),
    Query(
        (("nvmlDeviceGetRemappedRows", ()),),
        ("remapped_rows", "remap_failed"),
        lambda rows: {"remapped_rows": rows[0] + rows[1], "remap_failed": rows[3]},
        SELDOM,
    ),
)  # fmt: skip

COUNTERS: Final = {
    "pcie_tx": (pynvml.NVML_FI_DEV_PCIE_COUNT_TX_BYTES, 0, 1),
    "pcie_rx": (pynvml.NVML_FI_DEV_PCIE_COUNT_RX_BYTES, 0, 1),
    "nvlink_tx": (pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, 2**32 - 1, KIBIBYTE),
    "nvlink_rx": (pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, 2**32 - 1, KIBIBYTE),
}
"""Rates: field, scope (all links together) and bytes per count."""
PCIE_DIRECTIONS: Final = {
    "pcie_tx": pynvml.NVML_PCIE_UTIL_TX_BYTES,
    "pcie_rx": pynvml.NVML_PCIE_UTIL_RX_BYTES,
}
"""The old question, which measures for 20 ms: only where there are no counters."""
GPM: Final = {
    "sm_activity": pynvml.NVML_GPM_METRIC_SM_UTIL,
    "sm_occupancy": pynvml.NVML_GPM_METRIC_SM_OCCUPANCY,
    "tensor_activity": pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL,
    "dram_activity": pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL,
}
OF_THE_WHOLE_GPU: Final = frozenset({
    "power", "power_limit", "energy", "temperature", "memory_temperature", "slowdown_temperature", "sm_clock",
    "sm_clock_max", "memory_clock", "clock_reasons", "pcie_generation", "pcie_generation_max", "pcie_width",
    "pcie_width_max", "pcie_tx", "pcie_rx", "nvlink_links", "nvlink_tx", "nvlink_rx", "ecc_corrected",
    "ecc_uncorrected", "remapped_rows", "remap_failed", "xid_errors", "last_xid",
})  # fmt: skip
"""What an instance (MIG) does not have of its own: it stands with its GPU."""
