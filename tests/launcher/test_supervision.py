"""A guarded child: signals reach it, it may finish, and nothing of it is left behind."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from launcher import supervision
from launcher.own_process import ROOT, own_environment

PATIENCE: Final = 120.0

WORKER = """
import os, pathlib, signal, subprocess, sys, time
folder, mode = pathlib.Path(sys.argv[1]), sys.argv[2]
def save(number, frame):
    (folder / "saved").write_text(signal.Signals(number).name)
    sys.exit(75)
if mode == "stubborn":
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(one, signal.SIG_IGN)
else:
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(one, save)
if mode == "parent":
    # a child in a session of its own, as torchrun's workers are
    child = subprocess.Popen([sys.executable, __file__, str(folder), "polite"], start_new_session=True)
    while not (folder / "ready").exists():
        time.sleep(0.01)
    (folder / "child").write_text(str(child.pid))
(folder / "worker").write_text(str(os.getpid()))
(folder / "ready").touch()
if mode == "short":
    sys.exit(0)
if mode == "parent":
    (folder / "parent_ready").touch()
time.sleep(300)
"""

DRIVER = """
import pathlib, sys
from configs.outlived_reader import readers_outlived
from launcher.own_process import own_environment
from launcher.supervision import supervise
folder, mode, grace = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
with readers_outlived():
    ended = supervise(
        [sys.executable, str(folder / "worker.py"), str(folder), mode],
        cwd=folder, environment=own_environment(), grace_seconds=grace, say=lambda text: print(text, flush=True),
    )
    print(ended.returncode, ended.asked_to_stop, ended.killed, ended.exit_code)
sys.exit(ended.exit_code)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "worker.py").write_text(textwrap.dedent(WORKER))
    (tmp_path / "driver.py").write_text(textwrap.dedent(DRIVER))
    return tmp_path


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """What a failed test must not leave behind."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def without_nohup() -> None:
    """The tests themselves may have been started by it."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def start(
    folder: Path, mode: str, processes: list[subprocess.Popen[str]], grace: float = 20, **others: Any
) -> subprocess.Popen[str]:
    driver = subprocess.Popen(
        [sys.executable, str(folder / "driver.py"), str(folder), mode, str(grace)],
        cwd=ROOT,
        env=own_environment(),
        text=True,
        **{"stdout": subprocess.PIPE, "preexec_fn": without_nohup, **others},
    )
    processes.append(driver)
    wait_for(folder / ("parent_ready" if mode == "parent" else "ready"))
    return driver


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is left behind"
        time.sleep(0.02)


def test_an_ordinary_end(folder: Path, processes: list[subprocess.Popen[str]]) -> None:
    driver = start(folder, "short", processes)
    assert driver.communicate(timeout=PATIENCE)[0].splitlines()[-1] == "0 False False 0"


@pytest.mark.parametrize(
    ("sent", "received"),
    [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGINT"), ("SIGUSR1", "SIGUSR1"), ("SIGHUP", "SIGTERM")],
)
def test_a_signal_reaches_the_child_which_may_save(
    sent: str, received: str, folder: Path, processes: list[subprocess.Popen[str]]
) -> None:
    driver = start(folder, "polite", processes)
    driver.send_signal(signal.Signals[sent])
    output = driver.communicate(timeout=PATIENCE)[0]
    assert (folder / "saved").read_text() == received
    assert output.splitlines()[-1] == "75 True False 75"
    assert f"{sent}: asked to stop" in output


def test_a_lost_terminal_stops_the_child_which_may_save(folder: Path, processes: list[subprocess.Popen[str]]) -> None:
    """As a connection that breaks: whatever is said from then on is an error."""
    ours, theirs = os.openpty()

    def take_terminal() -> None:
        without_nohup()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    driver = start(folder, "polite", processes, start_new_session=True, preexec_fn=take_terminal, **streams)
    os.close(theirs)
    os.close(ours)
    assert driver.wait(PATIENCE) == 75
    assert (folder / "saved").read_text() == "SIGTERM"


def test_started_by_nohup_a_lost_terminal_is_no_wish_to_stop(
    folder: Path, processes: list[subprocess.Popen[str]]
) -> None:
    def as_nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    driver = start(folder, "polite", processes, preexec_fn=as_nohup)
    driver.send_signal(signal.SIGHUP)
    driver.send_signal(signal.SIGUSR1)
    assert driver.communicate(timeout=PATIENCE)[0].splitlines()[-1] == "75 True False 75"
    assert (folder / "saved").read_text() == "SIGUSR1"


def test_a_reader_that_ctrl_c_ends_first_does_not_keep_the_child_from_saving(
    folder: Path, processes: list[subprocess.Popen[str]]
) -> None:
    """As `tee` behind a pipe."""
    driver = start(folder, "polite", processes)
    assert driver.stdout is not None
    driver.stdout.close()
    driver.send_signal(signal.SIGINT)
    assert driver.wait(PATIENCE) == 75
    assert (folder / "saved").read_text() == "SIGINT"


def test_a_child_that_does_not_stop_is_killed_after_a_second_signal(
    folder: Path, processes: list[subprocess.Popen[str]]
) -> None:
    driver = start(folder, "stubborn", processes, grace=PATIENCE)
    driver.send_signal(signal.SIGTERM)
    assert driver.stdout is not None
    assert "asked to stop" in driver.stdout.readline()
    driver.send_signal(signal.SIGTERM)
    assert driver.communicate(timeout=PATIENCE)[0].splitlines()[-1] == "-9 True True 137"
    assert not is_alive(int((folder / "worker").read_text()))


def test_workers_of_a_killed_child_are_asked_to_save_and_none_is_left(
    folder: Path, processes: list[subprocess.Popen[str]]
) -> None:
    driver = start(folder, "parent", processes)
    os.kill(int((folder / "worker").read_text()), signal.SIGKILL)
    assert driver.communicate(timeout=PATIENCE)[0].splitlines()[-1] == "-9 False False 137"
    assert (folder / "saved").read_text() == "SIGTERM"
    assert not is_alive(int((folder / "child").read_text()))


def test_the_child_learns_of_the_death_of_its_guard(folder: Path, processes: list[subprocess.Popen[str]]) -> None:
    driver = start(folder, "polite", processes)
    driver.kill()
    wait_for(folder / "saved")
    wait_until_gone(int((folder / "worker").read_text()))


def test_a_child_that_waits_though_all_is_done_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchrun waits for another machine to come back, after a stop that was saved."""
    monkeypatch.setattr(supervision, "EXTRA_SECONDS", 0.3)
    told: list[str] = []
    ended = supervision.supervise(
        [sys.executable, str(folder / "worker.py"), str(folder), "polite"],
        cwd=folder,
        environment=own_environment(),
        grace_seconds=20,
        say=told.append,
        is_over=(folder / "ready").exists,
    )
    assert (ended.returncode, ended.asked_to_stop, ended.killed) == (75, False, False)
    assert not told
