"""Rates from counters, with a clock that does not jump."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from monitoring.samples import NEEDS_TWO, Missing


@dataclass(slots=True)
class Rates:
    """Remembers the last state of each counter."""

    _last: dict[Hashable, tuple[float, float]] = field(default_factory=dict)

    def of(self, key: Hashable, count: float | Missing, now: float) -> float | Missing:
        """Units per second since the last call with this key.

        Args:
            now: `time.monotonic()`.
        """
        if isinstance(count, Missing):
            self._last.pop(key, None)
            return count
        before = self._last.get(key)
        self._last[key] = (count, now)
        if before is None or now <= before[1]:
            return NEEDS_TWO
        if count < before[0]:
            return Missing("the counter began anew")
        return (count - before[0]) / (now - before[1])
