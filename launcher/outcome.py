"""How a run ended, in one exit code and a few lines: torchrun itself exits with 1 whatever its workers said."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from configs import run_directory
from configs.errors import ExitCode
from launcher.measured import latest_events
from launcher.supervision import Ended

TORCHRUN_LOG: Final = "torchrun.log"
"""torchrun's own error stream, in the folder of the start's logs."""
LAST_LINES: Final = 15
FAILURE: Final = re.compile(r"rank\s*:\s*\d+ \(local_rank: (?P<rank>\d+)\)\s+exitcode\s*:\s*(?P<code>-?\d+)")
"""A worker that failed, as torchrun reports it; what it takes for the root cause comes last."""
FOR_GOOD: Final = (ExitCode.BAD_USAGE, ExitCode.BAD_DATA, ExitCode.PREEMPTED, ExitCode.NO_PROGRESS)
"""Codes after which the processes of no machine are to be started again."""
OUT_OF_MEMORY: Final = "fix: memory is the usual cause (see `dmesg`): a smaller --batch-size, fewer --workers"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The exit code of a run, and what to tell the user about it."""

    code: ExitCode
    text: str = ""
    stopped: bool = field(default=False, compare=False)
    """Someone asked the launcher to stop."""


def judge(run_dir: Path, log_dir: Path, ended: Ended, *, speaks: bool = True) -> Verdict:
    """What the run's end means: the first failure decides, and the workers' own word on it where they left one.

    When a worker dies, torchrun asks the others to stop; they may save and say so, but the run has crashed.
    When torchrun is told to stop, it ends with 1 and blames no worker; then they alone know.

    Args:
        speaks: a worker of this machine writes the outcome; without one, success is not believed.
    """
    verdict = _judge(run_dir, log_dir, ended, speaks)
    return replace(verdict, stopped=ended.asked_to_stop)


def _judge(run_dir: Path, log_dir: Path, ended: Ended, speaks: bool) -> Verdict:
    told, failure = _told(run_dir), _first_failure(log_dir)
    if ended.returncode == 0 and (told is not None or not speaks):
        return Verdict(ExitCode.DONE if told is None else told.code, "" if told is None else told.text)
    if told is None and failure is None and ended.asked_to_stop and not _has_trained(run_dir, ended.started):
        return Verdict(ExitCode.PREEMPTED, "stopped before the first step; nothing is lost")
    if told is None and _stacks_written(run_dir, ended.started):
        stacks = run_dir / run_directory.STACKS
        return Verdict(ExitCode.HUNG, f"no progress for too long; the stacks in {stacks} show where")
    if told is None or (failure is not None and _contradicts(failure, told)):
        return _unexplained(run_dir, log_dir, ended, failure)
    if told.code is ExitCode.CRASHED:
        return Verdict(told.code, _join(f"rank {told.rank} failed: {told.text}", _tail(log_dir, told.local_rank)))
    return Verdict(told.code, told.text)


def ended_for_good(run_dir: Path) -> bool:
    """The workers say that the run is not to go on, though torchrun may wait for other machines to do so."""
    told = _told(run_dir)
    return told is not None and told.code in FOR_GOOD


@dataclass(frozen=True, slots=True)
class _Told:
    """`outcome.json`, which the first process that fails writes."""

    code: ExitCode
    rank: int
    local_rank: int
    text: str


def _told(run_dir: Path) -> _Told | None:
    path = run_dir / run_directory.OUTCOME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        code, rank = ExitCode(content["exit_code"]), int(content["rank"])
        local_rank = int(content.get("local_rank", rank))
    except (ValueError, KeyError, TypeError) as error:
        return _Told(ExitCode.CRASHED, 0, 0, f"{path} cannot be read ({error!r})")
    fix = f"\n  fix: {content['fix']}" if content.get("fix") else ""
    return _Told(code, rank, local_rank, f"{content.get('error', '')}{fix}")


@dataclass(frozen=True, slots=True)
class _Failure:
    """The worker that failed first, as torchrun saw it."""

    local_rank: int
    code: int
    """Negative for a signal."""


def _first_failure(log_dir: Path) -> _Failure | None:
    """Torchrun's root cause, unless another worker was killed: the rest then fails because it is gone."""
    log = log_dir / TORCHRUN_LOG
    text = log.read_text(errors="replace") if log.is_file() else ""
    if "Root Cause" not in text:
        return None
    failures = [_Failure(int(found["rank"]), int(found["code"])) for found in FAILURE.finditer(text)]
    killed = [failure for failure in failures if failure.code < 0 and failure.code != -signal.SIGTERM]
    return killed[0] if killed else failures[-1]


def _contradicts(failure: _Failure, told: _Told) -> bool:
    """Another worker than the one that spoke failed first: it was killed, or the one that spoke had not failed."""
    if told.code is ExitCode.HUNG:
        return False  # the one that spoke has killed the others
    spoke_well = told.code in (ExitCode.DONE, ExitCode.PREEMPTED)
    return failure.code < 0 or (spoke_well and failure.code != told.code)


def _stacks_written(run_dir: Path, since: float) -> bool:
    """A process that was stuck wrote where, after that time in seconds since the epoch."""
    files = (path.stat() for path in (run_dir / run_directory.STACKS).glob("rank_*.txt"))
    return any(file.st_size and file.st_mtime >= since for file in files)


def _has_trained(run_dir: Path, since: float) -> bool:
    """A step has been logged after that time, in seconds since the epoch."""
    return any(event["time"] >= since for event in latest_events(run_dir / run_directory.METRICS))


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
