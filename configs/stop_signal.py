"""SIGTERM, SIGINT and SIGUSR1 as a wish to stop: the step is finished, what was learnt is saved."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopSignal:
    """Set by the first of the signals. Later ones change nothing: a terminal and torchrun may both send one."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._when = float("inf")

    def listen(self) -> StopSignal:
        """Take over the signals of this process."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._receive)
        return self

    def __bool__(self) -> bool:
        return self.received is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is None:
            self.received, self._when = signal.Signals(number), time.monotonic()

    def seconds_ago(self) -> float:
        """Time since the first signal; negative infinity before it."""
        return time.monotonic() - self._when
