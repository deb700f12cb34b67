"""`--profile`: the chosen steps are in the trace, and no others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from training.profiler import profiled


def steps_in(folder: Path) -> list[set[int]]:
    """For each trace, the marks of the steps that work was recorded in."""
    found = []
    for path in sorted(folder.glob("*.pt.trace.json")):
        events = json.loads(path.read_text())["traceEvents"]
        found.append(
            {int(size) for event in events for size in re.findall(r"work at step (\d+)", str(event.get("name")))}
        )
    return found


def work(folder: Path, steps: tuple[int, int] | None, *, done: int = 0, stop_after: int = 8) -> list[int]:
    seen = []
    for step in profiled(range(done + 1, 9), steps, done=done, folder=folder, rank=3):
        with torch.profiler.record_function(f"work at step {step}"):
            torch.ones(4).sum()
        seen.append(step)
        if step == stop_after:
            break
    return seen


@pytest.mark.parametrize(
    ("steps", "done", "stop_after", "recorded"),
    [
        ((3, 5), 0, 8, {3, 4, 5}),
        ((1, 2), 0, 8, {1, 2}),
        ((8, 8), 0, 8, {8}),
        ((3, 5), 3, 8, {4, 5}),
        ((3, 6), 0, 4, {3, 4}),
        ((7, 20), 0, 8, {7, 8}),
    ],
)
def test_the_chosen_steps_are_recorded(
    steps: tuple[int, int], done: int, stop_after: int, recorded: set[int], tmp_path: Path
) -> None:
    assert work(tmp_path, steps, done=done, stop_after=stop_after) == list(range(done + 1, stop_after + 1))
    assert steps_in(tmp_path) == [recorded]
    assert next(tmp_path.iterdir()).name.startswith("rank3.")


@pytest.mark.parametrize(("steps", "done"), [(None, 0), ((2, 3), 3), ((9, 12), 0)])
def test_nothing_is_recorded_where_nothing_is_asked_or_left(
    steps: tuple[int, int] | None, done: int, tmp_path: Path
) -> None:
    assert work(tmp_path, steps, done=done) == list(range(done + 1, 9))
    assert steps_in(tmp_path) == []
