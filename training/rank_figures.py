"""What each process of a run measures about itself, and what it shows about all of them."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import socket
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import torch

from .step_clock import PHASES, StepClock
from .world import World

OWN_WORK: Final = ("data_wait", "host_to_device", "forward", "backward", "optimizer", "other")
"""Phases in which a process keeps the others waiting."""
RankFigures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Spent:
    """Seconds of a process since its start."""

    running: float
    starved: float
    """Ready to run, and no processor was free."""


@dataclass
class RankMeter:
    """Measures this process between two lines of the log."""

    clock: StepClock
    world: World
    workers: int
    _begun: float = field(default_factory=time.perf_counter)
    _before: _Spent | None = field(default_factory=lambda: _spent("self"))
    _loader_before: dict[str, _Spent] = field(default_factory=dict)

    def all_ranks(self, steps: int) -> list[RankFigures]:
        """The figures of every process over the last `steps` steps, in rank order; collective."""
        return [json.loads(text) for text in self.world.all_texts(json.dumps(self._own(max(1, steps))))]

    def _own(self, steps: int) -> RankFigures:
        seconds = self.clock.take()
        now = time.perf_counter()
        window, self._begun = now - self._begun, now
        return {
            "rank": self.world.rank,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "device": device_name(self.world.device),
            "seconds": {phase: round(seconds[phase] / steps, 7) for phase in PHASES},
            "starved": self._starved(window),
            **self._loader(window, seconds["data_wait"]),
            **memory_figures(self.world.device),
        }

    def _starved(self, window: float) -> float | None:
        """Share of time, 0 to 1, in which this process's main thread could run and no processor was free."""
        before, self._before = self._before, _spent("self")
        if before is None or self._before is None or window <= 0:
            return None
        return min(1.0, (self._before.starved - before.starved) / window)

    def _loader(self, window: float, waited: float) -> dict[str, float | None]:
        """Shares of time, 0 to 1, in which a reader computes and in which it waits for a processor.

        Readers are the workers, or this thread while it waits for what it reads itself. The rest of the time they wait
        for a disk, or have nothing to do.
        """
        readers = [str(pid) for pid in _loader_processes()] if self.workers else ["thread-self"]
        spent = {reader: seconds for reader in readers if (seconds := _spent(reader)) is not None}
        before, self._loader_before = self._loader_before, spent
        known = [(spent[reader], before[reader]) for reader in spent if reader in before]
        if not known or window <= 0:
            return {"loader_cpu": None, "loader_starved": None}
        running = statistics.mean(now.running - then.running for now, then in known) / window
        starved = statistics.mean(now.starved - then.starved for now, then in known) / window
        if not self.workers:
            busy, self.clock.waiting_cpu = self.clock.waiting_cpu, 0.0
            running = busy / waited if waited else 0.0
        return {"loader_cpu": min(1.0, running), "loader_starved": min(1.0, starved)}


def straggler(ranks: Sequence[RankFigures]) -> tuple[float, int] | None:
    """Own work of the slowest process over the median's, and its rank; `None` for one process."""
    if len(ranks) < 2:
        return None
    work = [own_work(one["seconds"]) for one in ranks]
    middle = statistics.median_low(work)
    slowest = max(range(len(work)), key=work.__getitem__)
    return (work[slowest] / middle, int(ranks[slowest]["rank"])) if middle > 0 else None


def own_work(seconds: Mapping[str, float]) -> float:
    """Seconds of a step in which a process worked, or waited for its own data."""
    return sum(seconds[phase] for phase in OWN_WORK)


def mean_seconds(ranks: Sequence[RankFigures]) -> dict[str, float]:
    """Seconds of each phase of a step, the mean over the processes."""
    return {phase: statistics.mean(one["seconds"][phase] for one in ranks) for phase in PHASES}


def device_name(device: torch.device) -> str:
    """How the sampler names this process's device, `cpu` without one."""
    if device.type != "cuda":
        return device.type
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def memory_figures(device: torch.device) -> dict[str, int]:
    """Bytes that this process holds on its device, at most and now; allocator retries and failures since the start."""
    if device.type == "cpu":
        return {
            "memory_allocated": psutil.Process().memory_info().rss,
            "memory_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
    found = torch.accelerator.memory_stats(device)
    names = {
        "memory_allocated": "allocated_bytes.all.current",
        "memory_peak": "allocated_bytes.all.peak",
        "memory_reserved": "reserved_bytes.all.current",
        "allocator_retries": "num_alloc_retries",
        "out_of_memory": "num_ooms",
    }
    return {name: int(found[key]) for name, key in names.items() if key in found}


def _loader_processes() -> list[int]:
    return [process.pid for process in multiprocessing.active_children() if process.pid is not None]


def _spent(task: str) -> _Spent | None:
    """Of the kernel's own account; `None` where it keeps none, and for a process that has just ended."""
    try:
        running, starved, _ = Path(f"/proc/{task}/schedstat").read_text().split()
    except (OSError, ValueError):
        return None
    return _Spent(int(running) / 1e9, int(starved) / 1e9)
