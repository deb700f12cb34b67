"""How a run ended, in one exit code and a few lines: torchrun itself exits with 1 whatever its workers said."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from configs import run_directory
from configs.errors import ExitCode
from launcher.supervision import Ended

TORCHRUN_LOG: Final = "torchrun.log"
"""torchrun's own error stream, in the folder of the start's logs."""
LAST_LINES: Final = 15
FIRST_FAILURE: Final = re.compile(
    r"Root Cause.*?rank\s*:\s*\d+ \(local_rank: (?P<rank>\d+)\).*?exitcode\s*:\s*(?P<code>-?\d+)", re.DOTALL
)
"""The worker that failed first, as torchrun reports it."""
OUT_OF_MEMORY: Final = "fix: memory is the usual cause (see `dmesg`): a smaller --batch-size, fewer --workers"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The exit code of a run, and what to tell the user about it."""

    code: ExitCode
    text: str = ""


def judge(run_dir: Path, log_dir: Path, ended: Ended) -> Verdict:
    """What the run's end means: the first failure decides, and the workers' own word on it where they left one.

    When a worker dies, torchrun asks the others to stop; they may save and say so, but the run has crashed.
    When torchrun is told to stop, it ends with 1 and blames no worker; then they alone know.
    """
    if ended.returncode == 0:
        return Verdict(ExitCode.DONE)
    told, failure = _told(run_dir), _first_failure(log_dir)
    if told is None and failure is None and ended.asked_to_stop and not _has_trained(run_dir, ended.started):
        return Verdict(ExitCode.PREEMPTED, "stopped before the first step; nothing is lost")
    if told is None or (failure is not None and _contradicts(failure, told)):
        return _unexplained(run_dir, log_dir, ended, failure)
    if told.code is ExitCode.CRASHED:
        return Verdict(told.code, _join(f"rank {told.rank} failed: {told.text}", _tail(log_dir, told.rank)))
    return Verdict(told.code, told.text)


@dataclass(frozen=True, slots=True)
class _Told:
    """`outcome.json`, which the first process that fails writes."""

    code: ExitCode
    rank: int
    text: str


def _told(run_dir: Path) -> _Told | None:
    path = run_dir / run_directory.OUTCOME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        code, rank = ExitCode(content["exit_code"]), int(content["rank"])
    except (ValueError, KeyError, TypeError) as error:
        return _Told(ExitCode.CRASHED, 0, f"{path} cannot be read ({error!r})")
    fix = f"\n  fix: {content['fix']}" if content.get("fix") else ""
    return _Told(code, rank, f"{content.get('error', '')}{fix}")


@dataclass(frozen=True, slots=True)
class _Failure:
    """The worker that failed first, as torchrun saw it."""

    local_rank: int
    code: int
    """Negative for a signal."""


def _first_failure(log_dir: Path) -> _Failure | None:
    log = log_dir / TORCHRUN_LOG
    found = FIRST_FAILURE.search(log.read_text(errors="replace")) if log.is_file() else None
    return None if found is None else _Failure(int(found["rank"]), int(found["code"]))


def _contradicts(failure: _Failure, told: _Told) -> bool:
    """Another worker than the one that spoke failed first: it was killed, or the one that spoke had not failed."""
    spoke_well = told.code in (ExitCode.DONE, ExitCode.PREEMPTED)
    return failure.code < 0 or (spoke_well and failure.code != told.code)


def _has_trained(run_dir: Path, since: float) -> bool:
    """A step has been logged after that time, in seconds since the epoch."""
    path = run_dir / run_directory.METRICS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return bool(lines) and json.loads(lines[-1])["time"] >= since


def _unexplained(run_dir: Path, log_dir: Path, ended: Ended, failure: _Failure | None) -> Verdict:
    """The worker that failed left no word."""
    if ended.killed:
        text = f"it did not stop in time and was killed; the checkpoints in {run_dir} are whole"
    elif failure is None:
        text = _join(f"torchrun ended with {_status(ended.returncode)}", _last(log_dir / TORCHRUN_LOG))
    else:
        rank, code = failure.local_rank, failure.code
        hint = f"\n  {OUT_OF_MEMORY}" if code == -signal.SIGKILL else ""
        text = _join(f"rank {rank} ended with {_status(code)}{hint}", _tail(log_dir, rank))
    return Verdict(ExitCode.CRASHED, text)


def _status(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _tail(log_dir: Path, rank: int) -> str:
    """The last lines of a worker's error stream at its latest attempt."""
    logs = sorted(log_dir.glob(f"*/attempt_*/{rank}/stderr.log"), key=lambda path: path.stat().st_mtime)
    return _last(logs[-1]) if logs else ""


def _last(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:] if log.is_file() else []
    return "\n".join([f"last lines of {log}:", *(f"  {line}" for line in lines)]) if lines else ""


def _join(*parts: str) -> str:
    return "\n".join(part for part in parts if part)
