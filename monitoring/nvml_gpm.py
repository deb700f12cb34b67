"""NVML's performance counters of Hopper and newer (GPM): how much of a GPU really works. No DCGM, no root."""

from __future__ import annotations

from typing import Any, Final

import pynvml

from monitoring.nvml_ask import ask
from monitoring.nvml_queries import GPM, Found
from monitoring.samples import NEEDS_TWO, Missing

_OLD: Final = Missing("GPM needs a Hopper GPU or a newer one", pynvml.NVML_ERROR_NOT_SUPPORTED)


class GpmCounters:
    """Activity of one GPU or instance between two looks.

    Args:
        gpu: the whole GPU's handle.
        instance: number of the GPU instance on it, `None` for the whole.
    """

    def __init__(self, gpu: Any, instance: int | None = None) -> None:
        self.gpu = gpu
        self.instance = instance
        self.problem = self._support()
        self._before: Any = None
        self._now: Any = None

    def look(self) -> Found:
        """The figures of `GPM` since the last look, and the answers' codes with the missing ones."""
        if self.problem is None and self._now is None:
            self.problem = self._allocate()
        problem = self.problem or self._take()
        if problem is not None:
            return dict.fromkeys(GPM, problem)
        return self._compare()

    def close(self) -> None:
        """Give the samples back to the driver."""
        for sample in (self._before, self._now):
            if sample is not None:
                ask("nvmlGpmSampleFree", sample)
        self._before = self._now = None

    def _support(self) -> Missing | None:
        answer = ask("nvmlGpmQueryDeviceSupport", self.gpu)
        if isinstance(answer, Missing):
            return answer
        return None if answer.isSupportedDevice == 1 else _OLD

    def _allocate(self) -> Missing | None:
        samples = [ask("nvmlGpmSampleAlloc") for _ in range(2)]
        failed = [sample for sample in samples if isinstance(sample, Missing)]
        if failed:
            for sample in samples:
                if not isinstance(sample, Missing):
                    ask("nvmlGpmSampleFree", sample)
            return failed[0]
        self._before, self._now = samples
        self._metrics = pynvml.c_nvmlGpmMetricsGet_t()
        self._whole = False
        return None

    def _take(self) -> Missing | None:
        """Take the next sample into the place of the older one."""
        older = self._before
        taken = (
            ask("nvmlGpmSampleGet", self.gpu, older)
            if self.instance is None
            else ask("nvmlGpmMigSampleGet", self.gpu, self.instance, older)
        )
        if isinstance(taken, Missing):
            self._whole = False
            return taken
        self._before, self._now = self._now, older
        if not self._whole:  # the place of the one before was empty
            self._whole = True
            return NEEDS_TWO
        return None

    def _compare(self) -> Found:
        asked = self._metrics
        asked.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        asked.numMetrics = len(GPM)
        asked.sample1, asked.sample2 = self._before, self._now
        for place, metric in enumerate(GPM.values()):
            asked.metrics[place].metricId = metric
        answer = ask("nvmlGpmMetricsGet", asked)
        if isinstance(answer, Missing):
            return dict.fromkeys(GPM, answer)
        return {name: _value(answer.metrics[place]) for place, name in enumerate(GPM)}


def _value(metric: Any) -> float | Missing:
    if metric.nvmlReturn != pynvml.NVML_SUCCESS:
        return Missing(str(pynvml.NVMLError(metric.nvmlReturn)), metric.nvmlReturn)
    return float(metric.value)
