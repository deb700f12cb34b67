"""`outcome.json` between the processes of one start: one of them speaks, whichever is first, and nothing old stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.errors import ExitCode
from training import outcome

PROCESS = """
import sys, time
from pathlib import Path
from training.outcome import forget_earlier_end, record_outcome
run_dir, rank, go = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
while not go.exists():
    time.sleep(0.001)
forget_earlier_end(run_dir)
print(record_outcome(run_dir, 3, rank, "no data"))
"""


class Process:
    """A process as torchrun starts it, which fails as soon as it may go."""

    def __init__(self, run_dir: Path, rank: int, go: Path) -> None:
        self.go = go
        environment = {
            **os.environ,
            "TORCHELASTIC_RUN_ID": "none",
            "PYTHONPATH": str(Path(outcome.__file__).parents[1]),
        }
        command = [sys.executable, "-c", PROCESS, str(run_dir), str(rank), str(go)]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    def fail(self) -> bool:
        """Let it go; whether it was to speak."""
        self.go.touch()
        said, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return said == "True\n"


@pytest.fixture
def ended_before(tmp_path: Path) -> Path:
    """A run directory in which an earlier start ended with 2."""
    assert outcome.record_outcome(tmp_path, ExitCode.BAD_USAGE, 0, "an option")
    time.sleep(0.05)  # no start follows faster than the kernel counts
    return tmp_path


def told(run_dir: Path) -> tuple[int, int]:
    content = json.loads((run_dir / "outcome.json").read_bytes())
    return content["exit_code"], content["rank"]


@pytest.mark.parametrize("first", [0, 1])
def test_the_first_to_fail_speaks_though_an_earlier_start_did(ended_before: Path, first: int) -> None:
    """Rank 1 may be through before rank 0 has begun."""
    processes = [Process(ended_before, rank, ended_before / f"go_{rank}") for rank in (0, 1)]
    assert processes[first].fail()
    assert told(ended_before) == (3, first)
    assert not processes[1 - first].fail()
    assert told(ended_before) == (3, first)


def test_one_speaks_of_many_that_fail_together(ended_before: Path) -> None:
    go = ended_before / "go"
    processes = [Process(ended_before, rank, go) for rank in range(6)]
    spoke = [process.fail() for process in processes]
    assert sum(spoke) == 1
    assert told(ended_before) == (3, spoke.index(True))


def test_a_process_without_torchrun_starts_anew(ended_before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    outcome.forget_earlier_end(ended_before)
    assert not (ended_before / "outcome.json").exists()
    outcome.forget_earlier_end(ended_before)
