"""The real launcher, torchrun and trainer: a signal, a killed process with and without restarts, a killed launcher."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from forked_run import make_driving_set
from signals import run_trial, still_runs, training_command, wait_for_steps

from evaluation.checkpoint_files import read_manifest
from launcher.own_process import ROOT, own_environment

pytestmark = pytest.mark.slow
PATIENCE = 300.0


@pytest.fixture(scope="module")
def soak_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_driving_set(tmp_path_factory.mktemp("launched"))


@pytest.fixture
def launchers() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for launcher in started:
        launcher.terminate()
        launcher.wait()


def launch(
    driving_set: Path, folder: Path, launchers: list[subprocess.Popen[str]], *more: str
) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A run that trains, and its two trainers."""
    command = training_command(driving_set, folder, *more)
    launcher = subprocess.Popen(command, cwd=ROOT, env=own_environment(), stderr=subprocess.PIPE, text=True)
    launchers.append(launcher)
    wait_for_steps(launcher, folder / "run")
    torchrun = psutil.Process(launcher.pid).children()[0]
    return launcher, torchrun.children()


@pytest.mark.parametrize(("number", "target"), [(signal.SIGTERM, "launcher"), (signal.SIGUSR1, "torchrun")])
def test_a_signal_saves_and_leaves_nothing(number: signal.Signals, target: str, soak_set: Path, tmp_path: Path) -> None:
    trial = run_trial(soak_set, tmp_path, number, target, delay=0.1)
    assert trial.good, trial


@contextmanager
def read_by_somebody(terminal: int) -> Iterator[None]:
    """Nobody who writes to it has to wait meanwhile."""
    enough = threading.Event()

    def read() -> None:
        while not enough.is_set():
            if select.select([terminal], [], [], 0.1)[0]:
                os.read(terminal, 1 << 16)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        enough.set()
        reader.join()


def test_a_connection_that_breaks_saves_and_leaves_nothing(
    soak_set: Path, tmp_path: Path, launchers: list[subprocess.Popen[str]]
) -> None:
    """The terminal is gone before the processes know: whatever they say to it from then on is an error."""
    ours, theirs = os.openpty()

    def take_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may have been started by nohup
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    launcher = subprocess.Popen(
        training_command(soak_set, tmp_path, "--set", "engine.log_every=1"),
        cwd=ROOT,
        env=own_environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=take_terminal,  # noqa: PLW1509  no thread runs here
        text=True,
    )
    launchers.append(launcher)
    os.close(theirs)
    with read_by_somebody(ours):
        wait_for_steps(launcher, tmp_path / "run")
    below = psutil.Process(launcher.pid).children(recursive=True)
    os.close(ours)
    assert launcher.wait(PATIENCE) == 75, (tmp_path / "run" / "train.log").read_text()
    assert not any(still_runs(process) for process in below)
    assert read_manifest(tmp_path / "run" / "checkpoints" / "latest").step > 0


@pytest.mark.parametrize("option", ["--retries", "--max-restarts"])
def test_a_killed_process_is_started_again(
    option: str, soak_set: Path, tmp_path: Path, launchers: list[subprocess.Popen[str]]
) -> None:
    short = ("--epochs", "20", "--set", "engine.checkpoint_every=2")
    launcher, trainers = launch(soak_set, tmp_path, launchers, option, "1", *short)
    while not (tmp_path / "run" / "checkpoints" / "latest").exists():
        time.sleep(0.05)
    trainers[1].kill()
    said = launcher.communicate(timeout=PATIENCE)[1]
    assert launcher.returncode == 0, said
    assert read_manifest(tmp_path / "run" / "checkpoints" / "latest").step == 40
    assert json.loads((tmp_path / "run" / "starts.json").read_bytes())["restart"] is True
    if option == "--retries":
        assert "rank 1 ended with SIGKILL" in said
        assert "starting again after step" in said


def test_a_killed_process_decides_and_is_named(
    soak_set: Path, tmp_path: Path, launchers: list[subprocess.Popen[str]]
) -> None:
    launcher, trainers = launch(soak_set, tmp_path, launchers)
    trainers[1].kill()
    said = launcher.communicate(timeout=PATIENCE)[1]
    assert launcher.returncode == 1
    assert "rank 1 ended with SIGKILL" in said
    assert not any(still_runs(trainer) for trainer in trainers)


def test_a_killed_launcher_leaves_a_checkpoint_and_no_process(
    soak_set: Path, tmp_path: Path, launchers: list[subprocess.Popen[str]]
) -> None:
    launcher, _ = launch(soak_set, tmp_path, launchers)
    below = psutil.Process(launcher.pid).children(recursive=True)
    os.kill(launcher.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(still_runs(process) for process in below):
        assert time.monotonic() < deadline, below
        time.sleep(0.05)
    assert read_manifest(tmp_path / "run" / "checkpoints" / "latest").step > 0
