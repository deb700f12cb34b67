"""`--profile FIRST:LAST`: a trace of chosen optimiser steps, for TensorBoard, Perfetto or chrome://tracing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile, schedule
from torch.utils.tensorboard import SummaryWriter

OPERATORS: Final = 30
"""Rows of the table."""
Item = TypeVar("Item")


def profiled(
    items: Iterable[Item], steps: tuple[int, int] | None, *, done: int, folder: Path, rank: int
) -> Iterator[Item]:
    """The items, one for each optimiser step; what happens to those of the chosen steps is recorded.

    Args:
        steps: first and last, counted from 1 as in the log; `None` records nothing.
        done: steps done before the first item.
        folder: where each process puts its `rank<r>.<time>.pt.trace.json`, and rank 0 a table of the costliest
            operators, as a text for TensorBoard: the trace itself is drawn by a page that needs the internet.
    """
    if steps is None or steps[1] <= done:
        yield from items
        return
    first = max(steps[0], done + 1)
    begin = max(first - 1, done + 1)  # the step before warms the profiler up, where there is one
    recorder = _recorder(first - begin, steps[1] - first + 1, folder, rank)
    recording = False
    try:
        for step, item in enumerate(items, start=done + 1):
            if step == begin:
                recorder.start()
                recording = True
            yield item
            if recording:
                recorder.step()
            if step == steps[1]:
                recorder.stop()
                recording = False
    finally:
        if recording:  # the run has ended before: what there is, is kept
            recorder.stop()


def _recorder(warmup: int, active: int, folder: Path, rank: int) -> profile:
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    return profile(
        activities=activities,
        schedule=schedule(wait=0, warmup=warmup, active=active, repeat=1),
        on_trace_ready=lambda recorded: _keep(recorded, folder, rank),
        record_shapes=True,
    )


def _keep(recorded: profile, folder: Path, rank: int) -> None:
    """Write the trace, whole at once: TensorBoard reads a file when it finds its name, and never again."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"rank{rank}.{time.time_ns()}.pt.trace.json"
    unfinished = path.with_suffix(".unfinished")
    recorded.export_chrome_trace(str(unfinished))
    unfinished.replace(path)
    if rank == 0:
        board = SummaryWriter(str(folder))
        board.add_text("operators", _costliest_operators(recorded.key_averages()))
        board.close()


def _costliest_operators(operators: Iterable[Any]) -> str:
    """Markdown: operators by the time of their own, on the device where there is one."""
    found = [one for one in operators if not one.key.startswith("ProfilerStep")]
    found.sort(key=lambda one: (one.self_device_time_total, one.self_cpu_time_total), reverse=True)
    columns: dict[str, Callable[[Any], object]] = {
        "operator": lambda one: one.key.replace("|", " "),
        "calls": lambda one: one.count,
        "device, ms": lambda one: f"{one.self_device_time_total / 1e3:.2f}",
        "processor, ms": lambda one: f"{one.self_cpu_time_total / 1e3:.2f}",
    }
    if not any(one.self_device_time_total for one in found):  # there is no device beside the processor
        del columns["device, ms"]
    rows = [[str(told(one)) for told in columns.values()] for one in found[:OPERATORS]]
    return "\n".join(f"| {' | '.join(row)} |" for row in ([*columns], ["---"] * len(columns), *rows))
