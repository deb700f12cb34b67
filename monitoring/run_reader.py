"""A run from its directory, while it is written: progress, verdict, alerts. Never waits, never writes."""

from __future__ import annotations

import json
import math
import socket
import statistics
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from configs import run_directory
from configs.errors import ExitCode
from monitoring.run_lines import Line, RunLines
from monitoring.samples import Alert
from monitoring.trace import Trace, trace_of
from monitoring.verdicts import judge
from monitoring.view import RankView, RunState, RunView, VerdictView

PATIENCE: Final = 300.0
"""Seconds without a new line, at least, before a run counts as silent."""
EVALUATION_PATIENCE: Final = 3600.0
"""The same where an evaluation may be going on."""
LINES_LATE: Final = 5
"""Usual distances between lines that may pass."""
_STATES: Final[dict[int, tuple[RunState, str]]] = {
    ExitCode.DONE: ("done", "done"),
    ExitCode.CRASHED: ("crashed", "crashed"),
    ExitCode.BAD_USAGE: ("refused", "refused to start"),
    ExitCode.BAD_DATA: ("crashed", "stopped by bad data"),
    ExitCode.PREEMPTED: ("stopped", "stopped and saved"),
    ExitCode.NO_PROGRESS: ("crashed", "gave up: no progress over restarts"),
    ExitCode.HUNG: ("hung", "hung"),
}
_NOT_FIGURES: Final = ("event", "time", "step", "epoch", "terms", "seconds", "ranks")


class RunReader:
    """Follows one run directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lines = RunLines(directory / run_directory.METRICS)

    def read(self) -> RunView:
        """What the run has told up to now. Missing and half-written files are no errors."""
        lines = self._lines.read()
        plan = _object(self.directory / run_directory.PLAN)
        outcome = _object(self.directory / run_directory.OUTCOME)
        training = [line for line in lines if line["event"] == "train"]
        newest = training[-1] if training else {}
        idle = self._lines.idle_seconds
        state, words = _state(outcome, lines, newest, idle, plan)
        trace = trace_of(lines, plan)
        faults = [line for line in lines if line["event"] == "fault"]
        finite = not (faults and faults[-1]["step"] >= newest.get("step", 0)) and "not finite" not in words
        return RunView(
            name=self.directory.resolve().name,
            directory=str(self.directory),
            state=state,
            state_text=words,
            recipe=_text(plan.get("recipe")),
            step=newest.get("step"),
            total_steps=_number(plan.get("total_steps")),
            epoch=newest.get("epoch"),
            epochs=_number(plan.get("epochs")),
            figures=_figures(newest),
            terms=_finite(newest.get("terms") or {}),
            seconds=_mean_seconds(trace) or _finite(newest.get("seconds") or {}),
            ranks=tuple(_rank(one, trace) for one in newest.get("ranks") or ()),
            scores=_finite(_newest(lines, "evaluate").get("metrics") or {}),
            faults=len(faults),
            loss_finite=finite,
            idle_seconds=idle,
            verdicts=tuple(_verdicts(trace)),
            alerts=tuple(self._alerts(state, words, faults, finite, idle)),
            hardware=_newest(lines, "devices") or None,
        )  # fmt: skip

    def _alerts(
        self, state: RunState, words: str, faults: list[Line], finite: bool, idle: float | None
    ) -> Iterator[Alert]:
        name = self.directory.resolve().name
        if state == "silent":
            yield Alert(kind="no_progress", subject=name, text=f"no progress for {idle:.0f} s")
        if state in ("crashed", "hung", "gone"):
            yield Alert(kind="ended", subject=name, text=words)
        if not finite:
            said = f"step {faults[-1]['step']}: {faults[-1].get('reason', '')}" if faults else words
            yield Alert(kind="not_finite", subject=name, text=f"loss or gradient not finite: {said}")


def _state(
    outcome: Mapping[str, Any], lines: list[Line], newest: Line, idle: float | None, plan: Mapping[str, Any]
) -> tuple[RunState, str]:
    code = outcome.get("exit_code")
    if isinstance(code, int):
        state, words = _STATES.get(code, ("crashed", f"ended with the unknown exit code {code}"))
        error = str(outcome.get("error") or "").splitlines()
        return state, f"{words}: {error[0]}" if error else words
    if not lines or idle is None:
        return "starting", "no line in the log yet"
    if _processes_gone(newest):
        return "gone", "ended without a word: its processes are gone"
    return ("silent", f"silent for {idle:.0f} s") if idle > _patience(lines, plan) else ("training", "training")


def _patience(lines: list[Line], plan: Mapping[str, Any]) -> float:
    """Seconds without a line that are usual at this point of a run."""
    times = [line["time"] for line in lines if line["event"] == "train" and isinstance(line.get("time"), int | float)]
    gaps = [later - earlier for earlier, later in pairwise(times) if later > earlier]
    usual = LINES_LATE * statistics.median(gaps) if gaps else 0.0
    epoch_over = lines[-1]["step"] % max(1, _number(plan.get("steps_per_epoch")) or 1) == 0
    return max(usual, EVALUATION_PATIENCE if epoch_over else PATIENCE)


def _processes_gone(newest: Line) -> bool:
    """All processes ran on this machine, and none of them is there any more."""
    ranks = newest.get("ranks") or ()
    here = [one.get("pid") for one in ranks if one.get("host") == socket.gethostname()]
    return bool(ranks) and len(here) == len(ranks) and not any(Path(f"/proc/{pid}").exists() for pid in here)


def _verdicts(trace: Trace) -> Iterator[VerdictView]:
    for one in judge(trace):
        yield VerdictView(
            cause=one.cause,
            share=one.share,
            text=one.text,
            evidence=one.evidence,
            change=one.change,
            healthy=one.healthy,
        )


def _mean_seconds(trace: Trace) -> dict[str, float]:
    ranks = [one for window in trace.windows for one in window.ranks]
    phases = ranks[-1].seconds if ranks else {}
    return {phase: statistics.mean(one.seconds.get(phase, 0.0) for one in ranks) for phase in phases}


def _rank(one: Mapping[str, Any], trace: Trace) -> RankView:
    """With the means that the verdict is made from: a single line is full of chance."""
    rank, seconds = int(one["rank"]), _finite(one["seconds"])
    if rank in trace.ranks:
        seconds = {phase: trace.seconds(phase, rank) for phase in seconds}
    return RankView(rank=rank, host=one.get("host", ""), device=one.get("device", ""), seconds=seconds)


def _newest(lines: list[Line], event: str) -> Line:
    return next((line for line in reversed(lines) if line["event"] == event), {})


def _figures(line: Line) -> dict[str, float]:
    return _finite({name: value for name, value in line.items() if name not in _NOT_FIGURES})


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among them that are some."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def _object(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty where there is none, or not a whole one."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
