"""Retries: as long as they lead anywhere, and never after an end that another start cannot change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from configs.errors import ExitCode
from launcher.outcome import Verdict
from launcher.retries import newest_step, run_with_retries

LAUNCH = "name"


def run(run_dir: Path, retries: int, *starts: tuple[ExitCode, int]) -> tuple[Verdict, int]:
    """Starts that end with these codes, each with a newest checkpoint of that step; and how many there were."""
    attempts: list[int] = []

    def start(attempt: int) -> Verdict:
        attempts.append(attempt)
        code, step = starts[attempt]
        save(run_dir, step)
        return Verdict(code, f"end {attempt}")

    verdict = run_with_retries(run_dir, LAUNCH, retries, start, lambda text: None)
    assert attempts == list(range(len(attempts)))
    return verdict, len(attempts)


def save(run_dir: Path, step: int) -> None:
    if step:
        place = run_dir / "checkpoints" / f"step_{step:08d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "manifest.json").touch()


CRASHED, HUNG, DONE = ExitCode.CRASHED, ExitCode.HUNG, ExitCode.DONE


@pytest.mark.parametrize(
    ("retries", "starts", "code", "used"),
    [
        (0, [(CRASHED, 0)], CRASHED, 1),
        (2, [(CRASHED, 0), (HUNG, 5), (DONE, 9)], DONE, 3),
        (1, [(CRASHED, 0), (HUNG, 5)], HUNG, 2),
        (9, [(ExitCode.BAD_DATA, 0)], ExitCode.BAD_DATA, 1),
        (9, [(CRASHED, 1), (ExitCode.PREEMPTED, 2)], ExitCode.PREEMPTED, 2),
        (9, [(CRASHED, 4)] * 4, ExitCode.NO_PROGRESS, 4),
        (9, [(CRASHED, 0)] * 3 + [(CRASHED, 1)] + [(CRASHED, 1)] * 3, ExitCode.NO_PROGRESS, 7),
        (3, [(CRASHED, 0)] * 3 + [(DONE, 1)], DONE, 4),
    ],
)
def test_starts(
    retries: int, starts: Sequence[tuple[ExitCode, int]], code: ExitCode, used: int, tmp_path: Path
) -> None:
    verdict, attempts = run(tmp_path, retries, *starts)
    assert (verdict.code, attempts) == (code, used)


def test_nobody_starts_again_what_was_asked_to_stop(tmp_path: Path) -> None:
    stopped = Verdict(CRASHED, "killed", stopped=True)
    assert run_with_retries(tmp_path, LAUNCH, 9, lambda attempt: stopped, lambda text: None) is stopped


def test_restarts_by_torchrun_count_too(tmp_path: Path) -> None:
    save(tmp_path, 7)
    (tmp_path / "starts.json").write_text(json.dumps({"launch": LAUNCH, "step": 7, "restart": True, "fruitless": 2}))
    assert run(tmp_path, 0, (CRASHED, 7))[0].code is ExitCode.NO_PROGRESS
    assert run(tmp_path, 0, (CRASHED, 8))[0].code is CRASHED  # the last of them did save


def test_the_newest_checkpoint_is_a_finished_one(tmp_path: Path) -> None:
    assert newest_step(tmp_path) == 0
    save(tmp_path, 12)
    (tmp_path / "checkpoints" / "step_00000020").mkdir()
    assert newest_step(tmp_path) == 12
