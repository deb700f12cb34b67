"""How the run ended, for whoever started torchrun: its own exit code is 1 whatever its workers returned.

The first process that fails writes the file and speaks; those that fail after it, because it is gone, keep quiet.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from configs import run_directory
from configs.errors import ExitCode

FINAL: Final = (ExitCode.BAD_USAGE, ExitCode.BAD_DATA, ExitCode.PREEMPTED, ExitCode.NO_PROGRESS)
"""Codes after which starting again is not torchrun's to decide, though it does."""


def clear_outcome(run_dir: Path) -> None:
    """Forget how the last start ended."""
    (run_dir / run_directory.OUTCOME).unlink(missing_ok=True)


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


def _restart() -> int:
    """How often torchrun has started these processes again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
