"""Real torchrun processes with a trainer that only pretends: the launcher's exit code tells what happened."""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from configs.errors import ExitCode, UsageError
from launcher import training_run
from launcher.options import TrainRequest
from launcher.outcome import Verdict
from launcher.own_process import ROOT
from launcher.planning import PlannedRun, decide, plan_run
from launcher.retries import run_with_retries
from launcher.run_folder import alone_in, write_run
from launcher.training_run import start
from monitoring.devices import GpuSurvey

FAKE_TRAINER = """
import json, os, pathlib, signal, sys, time
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
run, rank = pathlib.Path(arguments["--run-dir"]), int(os.environ["RANK"])
import training
(run / f"seen_{rank}.json").write_text(json.dumps({
    "arguments": sys.argv[1:], "cwd": os.getcwd(), "training": training.__file__,
    "threads": os.environ["OMP_NUM_THREADS"], "terminal": sys.stdout.isatty(),
}))
def end(code, error=""):
    try:
        with (run / "outcome.json").open("x") as file:
            json.dump({"exit_code": code, "rank": rank, "error": error, "fix": "do that" if error else ""}, file)
    except FileExistsError:
        pass
    sys.exit(code)
mode = (run / "mode").read_text()
print(f"rank {rank} speaks", flush=True)
print(f"rank {rank} complains", file=sys.stderr, flush=True)
if mode == "killed" and rank == 1:
    print("the last words of rank 1", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "bad data" and rank == 1:
    end(3, "it is cut")
if mode == "crash" and rank == 1:
    end(1, "by chance")
if mode != "done":
    signal.signal(signal.SIGTERM, lambda *_: end(75))
    (run / f"ready_{rank}").touch()
    time.sleep(300)
end(0)
"""
PATIENCE: Final = 240.0
"""Less than the trainer's, so that a signal comes before it ends by itself; starting torchrun may take a minute."""


@pytest.fixture
def run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlannedRun:
    """A planned run of the pretending trainer on two processes, under a name that shells would spoil."""
    (tmp_path / "pretending_trainer.py").write_text(textwrap.dedent(FAKE_TRAINER))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    request = TrainRequest(
        data_root=root,
        version="v1.0-synthetic",
        num_processes=2,
        output_dir=tmp_path / "a b",
        run="it's $HOME;\n\\ ü *",
    )
    choices = replace(decide(request, GpuSurvey(problem="none", driver_missing=True)), trainer="pretending_trainer")
    planned = plan_run(choices)
    write_run(choices.run_dir, choices.recipe, planned.plan, planned.launch())
    return planned


def mode(run: PlannedRun, text: str) -> Path:
    (run.choices.run_dir / "mode").write_text(text)
    return run.choices.run_dir


def test_done(run: PlannedRun, capfd: pytest.CaptureFixture[str]) -> None:
    run_dir = mode(run, "done")
    assert start(run).code is ExitCode.DONE
    for rank in range(2):
        seen = json.loads((run_dir / f"seen_{rank}.json").read_text())
        assert seen["arguments"] == run.command[run.command.index("pretending_trainer") + 1 :]
        assert seen["cwd"] == str(ROOT)
        assert seen["training"] == str(ROOT / "training" / "__init__.py")
        assert seen["threads"] == str(run.plan.threads)
    output = capfd.readouterr()
    assert "rank 0 speaks" in output.out
    assert "rank 1 speaks" not in output.out
    assert "complains" not in output.err
    assert [path.read_text() for path in run.log_dir.glob("*/attempt_0/1/stdout.log")] == ["rank 1 speaks\n"]
    assert [path.read_text() for path in run.log_dir.glob("*/attempt_0/0/stderr.log")] == ["rank 0 complains\n"]


def test_bad_data_keeps_its_exit_code_and_message(run: PlannedRun) -> None:
    mode(run, "bad data")
    verdict = start(run)
    assert verdict.code is ExitCode.BAD_DATA
    assert verdict.text == "it is cut\n  fix: do that"


def test_a_killed_rank_is_named_and_its_last_lines_are_shown(run: PlannedRun) -> None:
    mode(run, "killed")
    verdict = start(run)
    assert verdict.code is ExitCode.CRASHED
    assert "rank 1 ended with SIGKILL" in verdict.text
    assert "the last words of rank 1" in verdict.text


def test_preempted_and_saved(run: PlannedRun) -> None:
    """The launcher is told to stop while both ranks train, as a cluster does it."""
    run_dir = mode(run, "sleep")
    with stopped_when_there(run_dir / "ready_0", run_dir / "ready_1"):
        verdict = start(run)
    assert verdict == Verdict(ExitCode.PREEMPTED, "")


@contextmanager
def stopped_when_there(*paths: Path) -> Iterator[None]:
    """SIGTERM to this process as soon as the files are there."""

    def stop() -> None:
        deadline = time.monotonic() + PATIENCE
        while not all(path.exists() for path in paths) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    stopper.start()
    yield
    stopper.join()


@pytest.mark.parametrize("code", [0, 143])  # done just before, or ended by the signal
def test_stopped_while_the_data_are_prepared(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is trained then, and a cluster is told to start the run again."""
    ready, program = tmp_path / "ready", tmp_path / "preparing.py"
    program.write_text(
        "import pathlib, signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: sys.exit({code}))\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(300)\n"
    )
    begun: list[str] = []

    def preparing(arguments: tuple[str, ...]) -> list[str]:
        begun.append(arguments[1])
        return [sys.executable, str(program)]

    monkeypatch.setattr(training_run, "own_command", preparing)
    with stopped_when_there(ready):
        assert training_run.train_run(TrainRequest(device="cpu")) == ExitCode.PREEMPTED
    assert begun == ["synth"]
    assert "stopped before the training began" in capfd.readouterr().err


def test_two_launchers_do_not_train_in_one_directory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_run, "start", lambda *arguments, **others: Verdict(ExitCode.DONE))
    request = TrainRequest(data_root=root, version="v1.0-synthetic", device="cpu")
    run_dir = decide(request).run_dir
    with alone_in(run_dir), pytest.raises(UsageError, match="another `train` is at work") as caught:
        training_run.train_run(request)
    assert "--run NAME" in caught.value.fix
    assert not (run_dir / "plan.json").exists()
    assert training_run.train_run(request) == 0


def test_a_retry_after_a_crash(run: PlannedRun) -> None:
    said: list[str] = []

    def start_again(attempt: int) -> Verdict:
        mode(run, "done" if attempt else "crash")
        return start(run, attempt=attempt)

    verdict = run_with_retries(run.choices.run_dir, "launch", 1, start_again, said.append)
    assert verdict == Verdict(ExitCode.DONE)
    assert len(said) == 1
    assert "rank 1 failed: by chance" in said[0]
    assert "starting again after step 0 (retry 1 of 1)" in said[0]
    assert sorted(path.name for path in run.log_dir.glob("*torchrun.log")) == ["0-torchrun.log", "torchrun.log"]


def test_the_options_for_restarts_reach_torchrun(root: Path) -> None:
    survey = GpuSurvey(problem="none", driver_missing=True)
    request = TrainRequest(data_root=root, version="v1.0-synthetic", max_restarts=3, retries=2)
    choices = decide(request, survey)
    command = plan_run(choices).command
    assert command[command.index("--max-restarts") + 1] == "3"
    assert choices.retries == 2
    assert "--max-restarts" not in plan_run(decide(replace(request, max_restarts=0), survey)).command
