"""What launcher and trainer agree on about starting a run again."""

from __future__ import annotations

from typing import Final

FRUITLESS_RESTARTS: Final = 3
"""Restarts in a row without a newer checkpoint after which another one is pointless."""
LAUNCH_VARIABLE: Final = "BEVNEXT_SAM2_LAUNCH"
"""Set by the launcher: the same for the processes of all starts of one command: they go on with what it saved."""
