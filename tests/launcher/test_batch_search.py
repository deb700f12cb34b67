"""`--batch-size auto` from the launcher's side: a pass of its own, then the plan with what it found."""

from __future__ import annotations

import json
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ExitCode, UsageError
from launcher import batch_search, training_run
from launcher.batch_search import search_of, with_found_batch
from launcher.options import TrainRequest
from launcher.outcome import Verdict
from launcher.planning import PlannedRun, decide, plan_run
from monitoring.devices import Gpu, GpuSurvey

TWO_GPUS = GpuSurvey(gpus=tuple(Gpu(i, "small GPU", f"GPU-{i}", 2**34, (9, 0)) for i in range(2)), driver="580.1")
PRETENDING = """
import json, os, pathlib, sys
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
run, rank = pathlib.Path(arguments["--run-dir"]), int(os.environ["RANK"])
plan = json.loads((run / "plan.json").read_text())
if rank == 0 and os.environ["ANSWER"] != "null":
    (run / "outcome.json").write_text('{"exit_code": 0, "rank": 0, "error": "", "fix": ""}')
if plan["batch_candidates"]:
    answer = json.loads(os.environ["ANSWER"])
    if rank == 0 and answer:
        (run / "batch_size.json").write_text(json.dumps(answer))
    sys.exit(0 if answer else 1)
(run / f"trained_{rank}").write_text(str(plan["device_batch"]))
"""


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two GPUs, and programs that only pretend to search and to train."""
    (tmp_path / "pretending.py").write_text(textwrap.dedent(PRETENDING))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(batch_search, "SEARCH", "pretending")
    monkeypatch.setattr(
        training_run, "decide", lambda request: replace(decide(request, TWO_GPUS), trainer="pretending")
    )


def planned(root: Path, **request: Any) -> PlannedRun:
    return plan_run(decide(TrainRequest(data_root=root, batch_size="auto", **request), TWO_GPUS))


def test_the_run_uses_what_the_search_found(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANSWER", json.dumps({"device_batch": 4, "tried": {"4": True, "8": False}}))
    request = TrainRequest(data_root=root, batch_size="auto", effective_batch=16)
    assert training_run.train_run(request) == 0
    run_dir = planned(root).choices.run_dir
    assert [(run_dir / f"trained_{rank}").read_text() for rank in range(2)] == ["4", "4"]
    shown = capfd.readouterr().out
    assert "the largest of 1, 2, 4, 8 that fits" in shown
    assert "16 = 2 x 4 x 2" in shown
    assert "found by trying: 4 fits, 8 does not" in shown


def test_a_search_that_fails_starts_no_training(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSWER", "null")
    request = TrainRequest(data_root=root, batch_size="auto", effective_batch=16)
    assert training_run.train_run(request) == ExitCode.CRASHED
    assert not list(planned(root).choices.run_dir.glob("trained_*"))


def test_a_stop_at_the_very_end_of_the_search_starts_no_training(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Verdict(ExitCode.DONE, stopped=True)
    monkeypatch.setattr(training_run, "start", lambda *arguments, **others: found)
    assert training_run.train_run(TrainRequest(data_root=root, batch_size="auto")) == ExitCode.PREEMPTED


def test_an_earlier_answer_is_not_taken_for_a_new_one(root: Path) -> None:
    run = planned(root)
    run.choices.run_dir.mkdir(parents=True)
    answer = run.choices.run_dir / "batch_size.json"
    answer.write_text('{"device_batch": 2, "tried": {}}')
    assert with_found_batch(run).plan.device_batch == 2
    search_of(run)
    with pytest.raises(UsageError, match="holds no answer"):
        with_found_batch(run)
