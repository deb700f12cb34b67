"""How the run ended, for whoever started torchrun: its own exit code is 1 whatever its workers returned.

The first process that fails writes the file and speaks; those that fail after it, because it is gone, keep quiet.
"""

from __future__ import annotations

import json
from pathlib import Path

from configs import run_directory
from configs.errors import ExitCode


def clear_outcome(run_dir: Path) -> None:
    """Forget how the last start ended."""
    (run_dir / run_directory.OUTCOME).unlink(missing_ok=True)


def record_outcome(run_dir: Path | None, code: ExitCode, rank: int, error: str = "", fix: str = "") -> bool:
    """Write `outcome.json`; tells whether this process is to speak: no other one did so before.

    Where there is no run directory (yet), or it cannot be written, rank 0 speaks.
    """
    if run_dir is None:
        return rank == 0
    content = {"exit_code": int(code), "rank": rank, "error": error, "fix": fix}
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
    try:
        content = json.loads((run_dir / run_directory.OUTCOME).read_bytes())
    except (OSError, ValueError):
        return False
    return content["rank"] != rank and content["exit_code"] not in (ExitCode.DONE, ExitCode.PREEMPTED)
