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


@dataclass(frozen=True, slots=True)
class Verdict:
    """The exit code of a run, and what to tell the user about it."""

    code: ExitCode
    text: str = ""


def judge(run_dir: Path, log_dir: Path, ended: Ended) -> Verdict:
    """What the run's end means: the workers' own word where they left one, else what torchrun saw."""
    if ended.returncode == 0:
        return Verdict(ExitCode.DONE)
    told = _told(run_dir)
    if told is not None and told.code is not ExitCode.DONE:
        if told.code is ExitCode.CRASHED:
            return Verdict(told.code, _join(told.text, _tail(log_dir, told.rank)))
        return Verdict(told.code, told.text)
    if ended.killed:
        return Verdict(
            ExitCode.CRASHED, f"it did not stop in time and was killed; the last checkpoint in {run_dir} is whole"
        )
    return _seen_by_torchrun(log_dir, ended)


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
    if code in (ExitCode.DONE, ExitCode.PREEMPTED):
        return _Told(code, rank, "")
    fix = f"\n  fix: {content['fix']}" if content["fix"] else ""
    return _Told(
        code,
        rank,
        f"{content['error']}{fix}" if code is not ExitCode.CRASHED else f"rank {rank} failed: {content['error']}",
    )


def _seen_by_torchrun(log_dir: Path, ended: Ended) -> Verdict:
    """No worker left a word: one was killed, or torchrun itself failed."""
    log = log_dir / TORCHRUN_LOG
    text = log.read_text(errors="replace") if log.is_file() else ""
    failure = FIRST_FAILURE.search(text)
    if failure is None:
        how = _status(ended.returncode)
        return Verdict(ExitCode.CRASHED, _join(f"torchrun ended with {how}", _last(log)))
    rank, code = int(failure["rank"]), int(failure["code"])
    hint = (
        "\n  out of memory is the usual cause; see `dmesg`, use a smaller --batch-size"
        if code == -signal.SIGKILL
        else ""
    )
    return Verdict(ExitCode.CRASHED, _join(f"rank {rank} ended with {_status(code)}{hint}", _tail(log_dir, rank)))


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
