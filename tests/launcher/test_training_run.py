"""Real torchrun processes with a trainer that only pretends: the launcher's exit code tells what happened."""

from __future__ import annotations

import json
import os
import signal
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from configs.errors import ExitCode
from launcher.options import TrainRequest
from launcher.outcome import Verdict
from launcher.own_process import ROOT
from launcher.planning import PlannedRun, decide, plan_run
from launcher.run_folder import write_run
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
if mode != "done":
    signal.signal(signal.SIGTERM, lambda *_: end(75))
    (run / f"ready_{rank}").touch()
    time.sleep(60)
end(0)
"""


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

    def stop_when_ready() -> None:
        deadline = time.monotonic() + 50
        while time.monotonic() < deadline:
            if all((run_dir / f"ready_{rank}").exists() for rank in range(2)):
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(0.05)

    stopper = threading.Thread(target=stop_when_ready)
    stopper.start()
    verdict = start(run)
    stopper.join()
    assert verdict == Verdict(ExitCode.PREEMPTED, "")
