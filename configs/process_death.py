"""A process that does not outlive its parent, whatever kills the parent (Linux; elsewhere nothing is promised)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1


def die_with_parent(number: signal.Signals, parent: int | None = None) -> None:
    """Let the kernel send this process a signal when its parent dies.

    Args:
        parent: process id of the parent as the caller knows it; if it has died before this call, the signal is sent
            at once.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), number)
