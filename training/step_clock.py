"""Where the time of a step goes: phases that follow each other without a gap.

On an accelerator the marks are events in its own queue, read when they are over: nothing waits for them, and waiting
for data counts only while the device really had nothing to do.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Final

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

PHASES: Final = (
    "data_wait",
    "host_to_device",
    "forward",
    "backward",
    "all_reduce",
    "optimizer",
    "checkpoint",
    "evaluation",
    "other",
)
"""`all_reduce` is what exchanges with other processes cost beyond computation, waiting for the slowest included."""

MOST_MARKS: Final = 1000


class StepClock:
    """Adds up seconds by phase. One phase runs at any time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.waiting_cpu = 0.0
        """Processor seconds of this thread while it waited for data: it reads by itself where there are no workers."""
        self._marks: deque[tuple[str, Any]] = deque([("other", self._now())])
        self._ready: Any = None
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._cpu_before: float | None = None

    def begin(self, phase: str) -> None:
        """The phase that ran is over; this one runs."""
        if self._cpu_before is not None:
            self.waiting_cpu += time.thread_time() - self._cpu_before
        self._cpu_before = time.thread_time() if phase == "data_wait" else None
        self._marks.append((phase, self._now()))
        if len(self._marks) > MOST_MARKS:  # nobody takes what is measured
            self._add_up()

    def gradients_ready(self) -> None:
        """A bucket of gradients is computed; what comes after the last one is the exchange alone."""
        self._ready = self._now()

    def end_backward(self) -> None:
        """Backward is over, its exchange with other processes too, if there was one."""
        if self._ready is not None:
            self._marks.append(("all_reduce", self._ready))
            self._ready = None
        self.begin("other")

    def take(self) -> dict[str, float]:
        """Seconds of each phase since the last call, up to the last mark that the device has passed."""
        self._add_up()
        taken, self._seconds = self._seconds, dict.fromkeys(PHASES, 0.0)
        return taken

    def _add_up(self) -> None:
        while len(self._marks) > 1 and self._passed(self._marks[1][1]):
            phase, begun = self._marks.popleft()
            self._seconds[phase] += self._between(begun, self._marks[0][1])

    def _now(self) -> Any:
        if self.device.type == "cpu":
            return time.perf_counter()
        event = torch.Event(self.device, enable_timing=True)
        event.record()
        return event

    def _passed(self, mark: Any) -> bool:
        return self.device.type == "cpu" or bool(mark.query())

    def _between(self, begun: Any, ended: Any) -> float:
        if self.device.type == "cpu":
            return float(ended - begun)
        return float(begun.elapsed_time(ended)) / 1e3


def noted_all_reduce(clock: StepClock, bucket: Any) -> Any:
    """DDP's own exchange of a bucket of gradients, with a note of when it began."""
    clock.gradients_ready()
    return allreduce_hook(dist.distributed_c10d._get_default_group(), bucket)


# DDP compares the annotations of its hooks with classes: strings, which they are here, it refuses
noted_all_reduce.__annotations__.clear()
