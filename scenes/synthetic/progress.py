"""How far the rendering is: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINES = 10
"""Lines printed over a whole run without a terminal."""


class BlockProgress:
    """Counts samples; a context manager that shows nothing when not `enabled`."""

    def __init__(self, total: int, enabled: bool) -> None:
        self._total, self._done, self._started = total, 0, time.monotonic()
        console = Console(stderr=True)
        self._bar: Progress | None = None
        self._lines = enabled and not console.is_terminal
        if enabled and console.is_terminal:
            columns = (TextColumn("rendering synthetic samples"), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
            self._task = self._bar.add_task("samples", total=total)

    def __enter__(self) -> BlockProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, samples: int) -> None:
        """`samples` more are done."""
        before, self._done = self._done, self._done + samples
        if self._bar:
            self._bar.advance(self._task, samples)
        if self._lines and before * LINES // self._total != self._done * LINES // self._total:
            elapsed = time.monotonic() - self._started
            left = elapsed / self._done * (self._total - self._done)
            print(f"synthetic samples {self._done}/{self._total}, {elapsed:.0f} s, about {left:.0f} s left", flush=True)
