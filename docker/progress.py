"""Healthcheck of a training container: each run that trains here has written to its log lately.

Ends with 1 where a run has been silent for `BEVNEXT_SAM2_SILENT_SECONDS` (default 2700: the trainer's watchdog comes
first; it gives a step 15 minutes and an evaluation half an hour more). Before training starts, while data is made or
indexed, there is nothing to look at, and the container counts as healthy.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LOGS = ("metrics.jsonl", "train.log")
SILENT_SECONDS = 2700.0


def runs(proc: Path = Path("/proc")) -> Iterator[tuple[Path, float]]:
    """Run directory and age in seconds of each process that trains."""
    up_seconds = float((proc / "uptime").read_text().split()[0])
    for process in proc.glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            started = int((process / "stat").read_text().rpartition(")")[2].split()[19])
        except OSError:
            continue  # it has ended meanwhile
        if b"--run-dir" in arguments[:-1]:
            run_dir = arguments[arguments.index(b"--run-dir") + 1]
            yield Path(os.fsdecode(run_dir)), up_seconds - started / os.sysconf("SC_CLK_TCK")


def silent_seconds(run_dir: Path, age: float) -> float:
    """How long ago the run wrote to one of its logs, or was started."""
    logs = (run_dir / name for name in LOGS)
    return min([age, *(time.time() - log.stat().st_mtime for log in logs if log.is_file())])


if __name__ == "__main__":
    limit = float(os.environ.get("BEVNEXT_SAM2_SILENT_SECONDS", SILENT_SECONDS))
    silent = {run_dir: silent_seconds(run_dir, age) for run_dir, age in runs()}
    late = {run_dir: seconds for run_dir, seconds in silent.items() if seconds > limit}
    for run_dir, seconds in late.items():
        print(f"{run_dir}: no word for {seconds:.0f} s")
    sys.exit(bool(late))
