"""The wish to stop (`configs.stop_signal`), and who does not wait for it."""

from __future__ import annotations

import signal

from configs.stop_signal import STOP_SIGNALS, StopSignal

__all__ = ["STOP_SIGNALS", "StopSignal", "end_at_once"]


def end_at_once() -> None:
    """Let the signals end this process, wherever it waits: while processes meet there is nothing to save."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
