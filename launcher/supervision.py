"""A child process under guard: signals reach it, it has the time to save, and nothing of it is left behind.

The child leads a session of its own, so Ctrl-C in a terminal reaches this process alone, which passes it on. This
process adopts whatever the child leaves behind (Linux: child subreaper) and ends it. If this process is killed, the
kernel tells the child to stop (Linux: parent death signal).
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Final

import psutil

PASSED_ON: Final = {
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGINT: signal.SIGINT,
    signal.SIGUSR1: signal.SIGUSR1,
    signal.SIGHUP: signal.SIGTERM,
}
"""Signals to this process, and what the child gets; a lost terminal is a wish to stop."""
EXTRA_SECONDS: Final = 10.0
"""Beyond the grace period, for the child's own clean-up."""
POLL_SECONDS: Final = 0.2
PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child process ended."""

    returncode: int
    """As `subprocess.Popen.returncode`: negative for a signal."""
    asked_to_stop: bool
    """A signal was passed on."""
    started: float
    """Seconds since the epoch."""
    killed: bool
    """It did not stop in time, or a second signal cut the time short."""

    @property
    def exit_code(self) -> int:
        """As a shell reports it: 128 + signal for a process that a signal ended."""
        return self.returncode if self.returncode >= 0 else 128 - self.returncode


class Guard:
    """Passes signals on to one child process, and ends it when its time is up."""

    def __init__(
        self, grace_seconds: float, say: Callable[[str], None], is_over: Callable[[], bool] = lambda: False
    ) -> None:
        self.grace_seconds = grace_seconds
        self.say = say
        self.is_over = is_over
        self.over_since: float | None = None
        self.others = {process.pid for process in psutil.Process().children(recursive=True)}
        """Processes below this one that are none of the guard's business."""
        self.child: subprocess.Popen[bytes] | None = None
        self.received: signal.Signals | None = None
        self.deadline = float("inf")

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: the first signal goes to the child, a second one ends the grace period."""
        del frame
        if self.received is not None:
            self.say(f"{signal.Signals(number).name} again: ending it now")
            self.deadline = 0.0
            return
        self.received = signal.Signals(number)
        self.deadline = time.monotonic() + self.grace_seconds + EXTRA_SECONDS
        self.say(f"{self.received.name}: asked to stop within {self.grace_seconds:g} s (once more: at once)")
        if self.child is not None:
            self._pass_on(self.child, self.received)

    def run(self, start: Callable[[], subprocess.Popen[bytes]]) -> Ended:
        """Start the child, wait for it, and end what it left behind."""
        started = time.time()
        self.child = start()
        if self.received is not None:  # while it was being started
            self._pass_on(self.child, self.received)
        killed = not self._waited(self.child)
        if killed:
            self.child.kill()
            self.child.wait()
        # a child that was killed may have left workers that can still save
        seconds = 0.0 if killed else self.grace_seconds if self.child.returncode < 0 else EXTRA_SECONDS
        self._end_rest(seconds)
        return Ended(self.child.returncode, asked_to_stop=self.received is not None, started=started, killed=killed)

    def _waited(self, child: subprocess.Popen[bytes]) -> bool:
        """Wait for the child; false if its time is up."""
        while time.monotonic() < self.deadline:
            try:
                child.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                self._end_if_over(child)
                continue
            return True
        return False

    def _end_if_over(self, child: subprocess.Popen[bytes]) -> None:
        """End a child that goes on waiting for others although there is nothing left to do."""
        if self.over_since is None:
            self.over_since = time.monotonic() if self.is_over() else None
        elif self.deadline == float("inf") and time.monotonic() > self.over_since + EXTRA_SECONDS:
            self.deadline = time.monotonic() + self.grace_seconds + EXTRA_SECONDS
            child.terminate()

    def _end_rest(self, grace_seconds: float) -> None:
        """Ask what the child left behind to end, wait, and kill what is still there."""
        rest = [process for process in psutil.Process().children(recursive=True) if process.pid not in self.others]
        for process in rest:
            _signal(process, signal.SIGTERM)
        _, rest = psutil.wait_procs(rest, timeout=grace_seconds)
        for process in rest:
            _signal(process, signal.SIGKILL)
        psutil.wait_procs(rest, timeout=EXTRA_SECONDS)

    def _pass_on(self, child: subprocess.Popen[bytes], received: signal.Signals) -> None:
        if child.poll() is None:
            child.send_signal(PASSED_ON[received])


def supervise(
    command: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    grace_seconds: float,
    say: Callable[[str], None],
    stdout: IO[bytes] | IO[str] | None = None,
    stderr: IO[bytes] | IO[str] | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> Ended:
    """Run `command` to its end, passing signals on; afterwards none of its processes is left.

    Args:
        environment: the whole environment of the child.
        grace_seconds: time between a signal and the kill.
        say: told in one line what happens to signals.
        is_over: true once the work is done for good; a child that does not end by itself then is asked to.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def die_with_parent() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509  no thread runs here
        )

    guard = Guard(grace_seconds, say, is_over)
    with handling(guard.handle):
        return guard.run(start)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return  # it has ended by itself in the meantime


@contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """The signals of `PASSED_ON` go to `handler` meanwhile; behind `nohup` a lost terminal is no wish to stop."""
    survives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    handled = [number for number in PASSED_ON if not (survives and number is signal.SIGHUP)]
    before = {number: signal.signal(number, handler) for number in handled}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
