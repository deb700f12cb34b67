"""One exit code out of what torchrun returned, what it logged, and what the workers said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.errors import ExitCode
from launcher.outcome import TORCHRUN_LOG, judge
from launcher.supervision import Ended

STARTED = 1000.0
CRASH = Ended(returncode=1, asked_to_stop=False, started=STARTED, killed=False)
STOPPED = Ended(returncode=1, asked_to_stop=True, started=STARTED, killed=False)

ROOT_CAUSE = """
training.x FAILED
Failures:
  <NO_OTHER_FAILURES>
Root Cause (first observed failure):
[0]:
  time      : 2026-01-01_00:00:00
  host      : h
  rank      : 3 (local_rank: {rank})
  exitcode  : {code} (pid: 5)
"""
SIGNALLED = "torch.distributed.elastic.multiprocessing.api.SignalException: Process 9 got signal: 15\n"


@pytest.fixture
def scene(tmp_path: Path):
    """A run directory with what torchrun and the workers left in it."""

    def make(log: str = "", **outcome: object) -> tuple[Path, Path]:
        logs = tmp_path / "logs"
        for rank in range(2):
            stream = logs / f"id/attempt_0/{rank}/stderr.log"
            stream.parent.mkdir(parents=True, exist_ok=True)
            stream.write_text(f"last words of {rank}\n")
        (logs / TORCHRUN_LOG).write_text(log)
        if outcome:
            (tmp_path / "outcome.json").write_text(json.dumps({"rank": 0, "error": "", "fix": "", **outcome}))
        return tmp_path, logs

    return make


def test_success_is_believed_where_a_process_says_so(scene) -> None:
    ended = Ended(0, False, STARTED, False)
    assert judge(*scene(), ended).code is ExitCode.CRASHED
    assert judge(*scene(), ended, speaks=False).code is ExitCode.DONE  # another machine keeps the outcome
    assert judge(*scene(exit_code=0), ended).code is ExitCode.DONE


@pytest.mark.parametrize("code", [2, 3, 76, 77])
def test_codes_with_a_meaning_are_kept(code: int, scene) -> None:
    verdict = judge(*scene(ROOT_CAUSE.format(rank=0, code=code), exit_code=code, error="why", fix="so"), CRASH)
    assert (verdict.code, verdict.text) == (code, "why\n  fix: so")


def test_a_crash_shows_error_and_last_lines(scene) -> None:
    verdict = judge(*scene(ROOT_CAUSE.format(rank=1, code=1), exit_code=1, rank=1, error="ValueError()"), CRASH)
    assert verdict.code is ExitCode.CRASHED
    assert "rank 1 failed: ValueError()" in verdict.text
    assert "last words of 1" in verdict.text


@pytest.mark.parametrize("code", [0, 75])
@pytest.mark.parametrize("failure", [-9, -11, 1])
def test_a_worker_that_dies_decides_whatever_the_others_say(code: int, failure: int, scene) -> None:
    verdict = judge(*scene(ROOT_CAUSE.format(rank=1, code=failure), exit_code=code), CRASH)
    assert verdict.code is ExitCode.CRASHED
    assert "last words of 1" in verdict.text


def test_the_one_that_was_killed_is_named_whichever_torchrun_saw_first(scene) -> None:
    other = """
Failures:
[1]:
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 6)
"""
    log = ROOT_CAUSE.replace("Failures:\n  <NO_OTHER_FAILURES>", other.strip("\n")).format(rank=0, code=1)
    verdict = judge(*scene(log, exit_code=1, error="connection closed"), CRASH)
    assert "rank 1 ended with SIGKILL" in verdict.text
    assert "last words of 1" in verdict.text


def test_a_hung_run_keeps_its_code_though_the_watchdog_kills(scene) -> None:
    log = ROOT_CAUSE.format(rank=1, code=-9)
    verdict = judge(*scene(log, exit_code=77, error="rank 0 waited too long", fix="look"), CRASH)
    assert (verdict.code, verdict.text) == (ExitCode.HUNG, "rank 0 waited too long\n  fix: look")


def test_stacks_without_a_word_mean_a_stuck_interpreter(scene) -> None:
    run_dir, logs = scene(ROOT_CAUSE.format(rank=0, code=1))
    (run_dir / "stacks").mkdir()
    (run_dir / "stacks" / "rank_0.txt").write_text("Thread ...")
    assert judge(run_dir, logs, CRASH).code is ExitCode.HUNG


def test_last_lines_are_those_of_the_local_rank(scene) -> None:
    verdict = judge(*scene(exit_code=1, rank=5, local_rank=1, error="ValueError()"), CRASH)
    assert "rank 5 failed" in verdict.text
    assert "last words of 1" in verdict.text


def test_a_killed_worker_is_the_cause_of_what_the_others_complain_about(scene) -> None:
    verdict = judge(*scene(ROOT_CAUSE.format(rank=1, code=-9), exit_code=1, error="connection closed"), CRASH)
    assert "rank 1 ended with SIGKILL" in verdict.text
    assert "--batch-size" in verdict.text


@pytest.mark.parametrize("log", [SIGNALLED, ROOT_CAUSE.format(rank=0, code=75)])
@pytest.mark.parametrize("ended", [CRASH, STOPPED])
def test_preempted_whoever_sent_the_signal(log: str, ended: Ended, scene) -> None:
    """To the launcher, to torchrun, or to the workers themselves."""
    assert judge(*scene(log, exit_code=75), ended).code is ExitCode.PREEMPTED


def test_a_signal_at_the_very_end_does_not_undo_the_run(scene) -> None:
    assert judge(*scene(SIGNALLED, exit_code=0), STOPPED).code is ExitCode.DONE


@pytest.mark.parametrize(("last_step", "code"), [(None, 75), (STARTED - 1, 75), (STARTED + 1, 1)])
def test_stopped_without_a_word(last_step: float | None, code: int, scene) -> None:
    """Before the first step nothing can be lost; after it, work is."""
    run_dir, logs = scene(SIGNALLED)
    if last_step is not None:
        line = json.dumps({"event": "train", "time": last_step})
        (run_dir / "metrics.jsonl").write_text(f'{line}\n{{"event": "tr')  # the next one was cut short
    assert judge(run_dir, logs, STOPPED).code == code


def test_torchrun_itself_fails(scene) -> None:
    verdict = judge(*scene("torchrun: error: address in use\n"), CRASH)
    assert verdict.code is ExitCode.CRASHED
    assert "address in use" in verdict.text


def test_killed_for_want_of_time(scene) -> None:
    run_dir, logs = scene()
    (run_dir / "metrics.jsonl").write_text(json.dumps({"time": STARTED + 5}) + "\n")
    verdict = judge(run_dir, logs, Ended(-9, True, STARTED, killed=True))
    assert verdict.code is ExitCode.CRASHED
    assert "did not stop in time" in verdict.text


@pytest.mark.parametrize("text", ["{", "[]", '{"exit_code": 9}', '{"exit_code": 1}'])
def test_a_damaged_word_is_no_success(text: str, scene) -> None:
    run_dir, logs = scene()
    (run_dir / "outcome.json").write_text(text)
    verdict = judge(run_dir, logs, CRASH)
    assert verdict.code is ExitCode.CRASHED
    assert "outcome.json cannot be read" in verdict.text
