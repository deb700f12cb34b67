"""How the run ended, for whoever started torchrun: its own exit code is 1 whatever its workers returned.

The first process that fails writes the file and speaks; those that fail after it, because it is gone, keep quiet.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from configs import run_directory
from configs.errors import ExitCode

FINAL: Final = (ExitCode.BAD_USAGE, ExitCode.BAD_DATA, ExitCode.PREEMPTED, ExitCode.NO_PROGRESS)
"""Codes after which starting again is not torchrun's to decide, though it does."""


def forget_earlier_end(run_dir: Path) -> None:
    """Remove what was said before torchrun started these processes, and nothing that one of them has said since.

    Each process does so: the first to fail may be through before rank 0 has read its options.
    """
    path = run_dir / run_directory.OUTCOME
    with suppress(FileNotFoundError), path.open("rb") as file:
        with suppress(OSError):  # not every network file system can lock
            fcntl.flock(file, fcntl.LOCK_EX)
        found = os.fstat(file.fileno())
        if found.st_mtime < _start_time() and os.path.samestat(found, path.stat()):
            path.unlink()


def record_outcome(run_dir: Path | None, code: ExitCode, rank: int, error: str = "", fix: str = "") -> bool:
    """Write `outcome.json`; tells whether this process is to speak: no other one did so before.

    Where there is no run directory (yet), or it cannot be written, rank 0 speaks.
    """
    if run_dir is None:
        return rank == 0
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    content = {
        "exit_code": int(code),
        "rank": rank,
        "local_rank": local_rank,
        "restart": _restart(),
        "error": error,
        "fix": fix,
    }
    try:
        with (run_dir / run_directory.OUTCOME).open("x", encoding="utf-8") as file:
            json.dump(content, file)
    except FileExistsError:
        return False
    except OSError:
        return rank == 0
    return True


def failed_elsewhere(run_dir: Path, rank: int) -> bool:
    """Another process than `rank` has failed."""
    content = _read(run_dir)
    return content["rank"] != rank and content["exit_code"] not in (ExitCode.DONE, ExitCode.PREEMPTED)


def earlier_end(run_dir: Path) -> ExitCode | None:
    """How the run ended before torchrun started these processes in vain, if that is so."""
    content = _read(run_dir)
    if content["restart"] < _restart() and content["exit_code"] in FINAL:
        return ExitCode(content["exit_code"])
    return None


def _read(run_dir: Path) -> dict[str, int]:
    """What the outcome says in numbers; where there is none, nothing has gone wrong."""
    try:
        content = json.loads((run_dir / run_directory.OUTCOME).read_bytes())
        return {name: int(content[name]) for name in ("exit_code", "rank", "restart")}
    except (OSError, ValueError, KeyError, TypeError):
        return {"exit_code": ExitCode.DONE, "rank": 0, "restart": 0}


def _start_time() -> float:
    """When torchrun started this process, in seconds since the epoch; what one without torchrun finds is all old."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return math.inf
    after_name = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    started = int(after_name[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5), since boot
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - started)


def _restart() -> int:
    """How often torchrun has started these processes again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
