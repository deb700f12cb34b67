"""How long a step takes, for looking ahead."""

from __future__ import annotations

from collections import deque
from typing import Final

LINES: Final = 20
"""Newest lines of the log that count: one alone may hold a hiccup, and the first hours are soon history."""


class Pace:
    """Mean over the newest lines, with what evaluations and checkpoints have cost on average since the start."""

    def __init__(self) -> None:
        self.aside = 0.0
        """Seconds that evaluations and checkpoints have taken since the start."""
        self._lines: deque[tuple[int, float]] = deque(maxlen=LINES)
        self._told = 0
        self._steps = 0

    def of_step(self, steps: int, seconds: float) -> float:
        """Seconds of one step, as of a new line about `steps` steps in `seconds`."""
        if self._told == 1:  # the first line is all beginnings: it counts only while there is no other
            self._lines.clear()
        self._lines.append((steps, seconds))
        self._told += 1
        self._steps += steps
        return sum(line[1] for line in self._lines) / sum(line[0] for line in self._lines) + self.aside / self._steps
