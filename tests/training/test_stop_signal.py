"""The first of the stop signals is remembered; none ends the process."""

from __future__ import annotations

import os
import signal

import pytest

from training.stop_signal import STOP_SIGNALS, StopSignal


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_is_a_wish(number: signal.Signals) -> None:
    stop = StopSignal().listen()
    assert not stop
    os.kill(os.getpid(), number)
    assert stop
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.received is number
