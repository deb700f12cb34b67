"""Starting a run again after a failure, as long as that leads anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from configs import run_directory
from configs.errors import ExitCode
from configs.launch import FRUITLESS_RESTARTS
from launcher.outcome import Verdict

WORTH_A_RETRY: Final = (ExitCode.CRASHED, ExitCode.HUNG)


def run_with_retries(
    run_dir: Path, launch: str, retries: int, start: Callable[[int], Verdict], say: Callable[[str], None]
) -> Verdict:
    """Start the run until it ends well, says that it must not be started again, or has used up its retries.

    Args:
        launch: name of this launch.
        start: gets the number of the attempt, from 0.
    """
    attempt = fruitless = 0
    while True:
        before = newest_step(run_dir)
        verdict = start(attempt)
        if verdict.code not in WORTH_A_RETRY:
            return verdict
        now = newest_step(run_dir)
        fruitless = fruitless + 1 if attempt and now == before else 0
        if max(fruitless, _fruitless_restarts_of_torchrun(run_dir, launch, now)) >= FRUITLESS_RESTARTS:
            text = f"{FRUITLESS_RESTARTS} restarts in a row have not come past step {now}; the last one:"
            return Verdict(ExitCode.NO_PROGRESS, f"{text}\n{verdict.text}")
        if attempt == retries or verdict.stopped:
            return verdict
        attempt += 1
        say(f"{verdict.text}\nstarting again after step {now} (retry {attempt} of {retries})")


def newest_step(run_dir: Path) -> int:
    """Step of the newest finished checkpoint; 0 where there is none."""
    found = (run_dir / run_directory.CHECKPOINTS).glob("step_*/manifest.json")
    return max((int(path.parent.name.removeprefix("step_")) for path in found), default=0)


def _fruitless_restarts_of_torchrun(run_dir: Path, launch: str, step: int) -> int:
    """How many restarts in a row, as the trainer counts them, had no newer checkpoint; 0 if there is one now."""
    try:
        starts = json.loads((run_dir / run_directory.STARTS).read_bytes())
        in_vain = (starts["launch"], starts["step"]) == (launch, step)
        return int(starts["fruitless"]) + int(starts["restart"]) if in_vain else 0
    except (OSError, ValueError, KeyError):
        return 0
