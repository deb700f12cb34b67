"""Starts that torchrun or the launcher make after a failure: they go on, and they end when they lead nowhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import made_up_scores, run_exit_code

from training import run as run_module
from training.causes import explain
from training.reporter import Reporter
from training.restarts import Launch, NoProgressError

quick_scores = pytest.fixture(scope="module", autouse=True)(made_up_scores)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As a process of a launcher."""
    monkeypatch.setenv("BEVNEXT_SAM2_LAUNCH", "first")
    return monkeypatch


def outcome(run_dir: Path) -> dict[str, object]:
    found = json.loads((run_dir / "outcome.json").read_bytes())
    assert isinstance(found, dict)
    return found


def test_restarts_without_a_newer_checkpoint_end(tmp_path: Path, launched: pytest.MonkeyPatch) -> None:
    assert not Launch(tmp_path).is_restart
    for step in (0, 0, 5, 5, 5):  # one restart in vain, then one with progress, then three in vain
        Launch(tmp_path).note_start(step)
    assert Launch(tmp_path).is_restart
    with pytest.raises(NoProgressError, match="3 restarts in a row have not come past step 5") as caught:
        Launch(tmp_path).note_start(5)
    assert caught.value.exit_code == 76
    launched.setenv("BEVNEXT_SAM2_LAUNCH", "second")  # the user starts it again
    assert not Launch(tmp_path).is_restart
    Launch(tmp_path).note_start(5)


def test_without_a_launcher_torchrun_names_the_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BEVNEXT_SAM2_LAUNCH", raising=False)
    for name, known in (("none", False), ("", False), ("2f1c", True)):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", name)
        Launch(tmp_path).note_start(0)
        assert Launch(tmp_path).is_restart is known


def crash_after_step_two(self: Reporter, step: int, *others: object) -> None:
    if step == 2:
        raise ValueError("by chance")


def test_a_restart_goes_on_whatever_resume_said(
    driving_set: Path, tmp_path: Path, launched: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fresh = ["--resume", "none", "--set", "engine.checkpoint_every=1"]
    with launched.context() as patch:
        patch.setattr(Reporter, "step", crash_after_step_two)
        for _ in range(4):
            assert run_exit_code(driving_set, tmp_path, *fresh) == 1
            assert outcome(tmp_path)["error"] == "ValueError('by chance')"
        assert run_exit_code(driving_set, tmp_path, *fresh) == 76
        assert "have not come past step 1" in str(outcome(tmp_path)["error"])
    launched.setenv("BEVNEXT_SAM2_LAUNCH", "second")
    assert run_exit_code(driving_set, tmp_path, *fresh) == 2  # not a restart: `none` insists on a fresh run
    assert run_exit_code(driving_set, tmp_path, "--resume", "auto") == 0
    assert "goes on after step 1" in capfd.readouterr().out


def test_torchrun_cannot_start_again_what_is_over(
    driving_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert run_exit_code(driving_set / "nowhere", tmp_path) == 3
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "_train", None)  # it is not tried again
        assert run_exit_code(driving_set, tmp_path) == 3
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert run_exit_code(driving_set, tmp_path) == 0


def test_a_process_of_torchrun_stops_when_torchrun_is_gone(tmp_path: Path) -> None:
    """The one that starts it is killed: it is told so by the kernel."""
    child = (
        "import os, pathlib, signal, time\n"
        "from configs.process_death import die_with_parent\n"
        "signal.signal(signal.SIGTERM, lambda *_: pathlib.Path('told').touch() or os._exit(0))\n"
        "die_with_parent(signal.SIGTERM)\n"
        "pathlib.Path('ready').touch()\n"
        "time.sleep(300)\n"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    environment = {**os.environ, "PYTHONPATH": str(Path(run_module.__file__ or "").parents[1])}
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=tmp_path, env=environment)
    _wait_for(tmp_path / "ready")
    process.send_signal(signal.SIGKILL)
    process.wait()
    _wait_for(tmp_path / "told")


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 240
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("error", "expected", "fix"),
    [
        (OSError(28, "No space left on device", "/run/train.log"), "/run/train.log: No space left", "make room"),
        (
            RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. "),
            "reads samples was ended",
            "shm_size",
        ),
        (RuntimeError("size mismatch"), "RuntimeError('size mismatch')", ""),
    ],
)
def test_known_causes_are_named(error: Exception, expected: str, fix: str) -> None:
    message, found = explain(error)
    assert expected in message
    assert fix in found
    assert bool(fix) == bool(found)
