"""A process that makes no progress ends, and says where it was.

A thread of every process looks at the clock. When nothing has happened for too long, the first one to notice lets all
processes of its machine write their stacks (in C, so that a process that is stuck does it, too), ends them, and ends
itself with code 77. If the interpreter itself is stuck, faulthandler's own timer does it, two to four times as late.

A stop signal that the main thread cannot act upon is acted upon here: while a checkpoint is evaluated there is nothing
to lose, and when another process has failed there is nothing left to wait for.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch

from configs import run_directory
from configs.errors import ExitCode

from .outcome import failed_elsewhere, record_outcome
from .stop_signal import StopSignal
from .world import TIMEOUT, World

POLL_SECONDS: Final = 0.5
START_FACTOR: Final = 2
"""The first step takes longer: kernels are chosen and compiled."""
DUMP_SECONDS: Final = 2.0
"""Time for all processes to write their stacks."""
PATIENCE_WHEN_SAVED: Final = 1.0
PATIENCE_WHEN_LOST: Final = 5.0
_CALL: Final = re.compile(r'File "(?P<file>.+?)", line (?P<line>\d+) in (?P<name>\S+)')


class Watchdog:
    """Expects a sign of life every `seconds` (`None`: never), from `__enter__` to `__exit__`."""

    def __init__(self, run_dir: Path, world: World, stop: StopSignal, seconds: float | None) -> None:
        self.run_dir = run_dir
        self.folder = run_dir / run_directory.STACKS
        self.world = world
        self.stop = stop
        self.seconds = seconds
        self.what = "starting"
        self._deadline = float("inf")
        self._armed_until = 0.0
        self._nothing_to_lose = False
        self._closed = threading.Event()
        self._judging = threading.Lock()
        here = socket.gethostname()
        places = [text.rsplit(" ", 1) for text in world.all_texts(f"{here} {os.getpid()}")]
        self._neighbours = [int(pid) for host, pid in places if host == here]

    def __enter__(self) -> Watchdog:
        self.folder.mkdir(exist_ok=True)
        self._stacks = self._stack_file(self.world.rank).open("w", encoding="utf-8")
        faulthandler.register(signal.SIGUSR2, file=self._stacks, all_threads=True, chain=False)
        self.expect("the first step", (self.seconds or 0) * START_FACTOR)
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._judging:
            self._closed.set()
            self._deadline = float("inf")
        faulthandler.cancel_dump_traceback_later()
        faulthandler.unregister(signal.SIGUSR2)
        self._stacks.close()
        if not self._stack_file(self.world.rank).stat().st_size:
            self._stack_file(self.world.rank).unlink()

    def beat(self, what: str) -> None:
        """There is progress; `what` comes next."""
        self.expect(what, self.seconds or 0)

    def expect(self, what: str, seconds: float) -> None:
        """As `beat`, where the next one may take another time than a step."""
        if self.seconds is None:
            return
        with self._judging:  # for ever, if this process comes back to life while it is being ended
            self.what = what
            now = time.monotonic()
            self._deadline = now + seconds
        if not self.seconds <= self._armed_until - self._deadline <= 3 * self.seconds:  # not at every step
            self._armed_until = self._deadline + 2 * self.seconds
            faulthandler.dump_traceback_later(self._armed_until - now, exit=True, file=self._stacks)

    @contextmanager
    def nothing_to_lose(self) -> Iterator[None]:
        """In here everything is saved: a stop signal may end the process at any time."""
        self._nothing_to_lose = True
        self.expect("evaluation", self.long)
        try:
            yield
        finally:
            self._nothing_to_lose = False
            self.beat("the next step")

    @property
    def long(self) -> float:
        """For what may take as long as processes wait for each other: scoring, writing a checkpoint."""
        return TIMEOUT.total_seconds() + (self.seconds or 0)

    # --- in the thread -------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._closed.wait(POLL_SECONDS):
            looked, before = time.monotonic(), looked
            asked = self.stop.seconds_ago()
            if self._nothing_to_lose and asked > PATIENCE_WHEN_SAVED:
                record_outcome(self.run_dir, ExitCode.PREEMPTED, self.world.rank)
                os._exit(ExitCode.PREEMPTED)
            if asked > PATIENCE_WHEN_LOST and failed_elsewhere(self.run_dir, self.world.rank):
                os._exit(ExitCode.CRASHED)
            with self._judging:
                self._deadline += looked - before - POLL_SECONDS  # stopped itself: not the one to judge
                if time.monotonic() > self._deadline:
                    self._end_all()

    def _end_all(self) -> None:
        """Let all processes of this machine write their stacks, end them, and leave with code 77."""
        self._write_collectives()
        for pid in self._neighbours:
            _send(pid, signal.SIGUSR2)
            _send(pid, signal.SIGCONT)  # one that is stopped can write as well
        time.sleep(DUMP_SECONDS)
        message = f"rank {self.world.rank} waited too long for {self.what}; {self._where_they_were()}"
        fix = (
            f"the stacks in {self.folder} show what each process was doing; --resume auto goes on; "
            f"--set engine.guards.hang_seconds={10 * (self.seconds or 0):g} waits longer"
        )
        if record_outcome(self.run_dir, ExitCode.HUNG, self.world.rank, message, fix):
            for pid in self._neighbours:
                if pid != os.getpid():
                    _send(pid, signal.SIGKILL)
        os._exit(ExitCode.HUNG)

    def _write_collectives(self) -> None:
        """NCCL's flight recorder, for `torchfrtrace`."""
        dump = getattr(torch._C._distributed_c10d, "_dump_nccl_trace", None)
        if self.world.device.type == "cuda" and self.world.size > 1 and dump is not None:
            (self.folder / f"nccl_rank_{self.world.rank}").write_bytes(dump())

    def _where_they_were(self) -> str:
        """`rank 1 in read (loader.py:12)`: the innermost call of each main thread."""
        found = []
        for path in sorted(self.folder.glob("rank_*.txt")):
            main_thread = path.read_text(encoding="utf-8").rpartition("(most recent call first):")[2]
            call = _CALL.search(main_thread)
            where = f"in {call['name']} ({Path(call['file']).name}:{call['line']})" if call else "silent"
            found.append(f"{path.stem.replace('_', ' ')} {where}")
        return ", ".join(found)

    def _stack_file(self, rank: int) -> Path:
        return self.folder / f"rank_{rank}.txt"


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it has ended by itself
