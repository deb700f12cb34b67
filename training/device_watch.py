"""The sampler beside a training: a thread of rank 0 that looks at its machine every few seconds."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Final

from monitoring.sampler import Sampler
from monitoring.samples import MachineSample
from monitoring.window import Hardware

EVERY: Final = 2.0
LINE_EVERY: Final = 10.0
"""Seconds between two lines in the log, at least: a run of weeks must not fill the disk."""


class DeviceWatch:
    """Begins to look at once.

    Args:
        run_dir: where the run is written; its disk is watched.
        every: seconds between looks.
        line_every: least seconds between two answers of `take`.
    """

    def __init__(self, run_dir: Path, every: float = EVERY, line_every: float = LINE_EVERY) -> None:
        self.run_dir = run_dir
        self.every = every
        self.line_every = line_every
        self._taken = float("-inf")
        self._samples: list[MachineSample] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="device watch", daemon=True)
        self._thread.start()

    def take(self) -> Hardware | None:
        """What was seen since the last answer; `None` where nothing was, or where it is too early for the next."""
        now = time.monotonic()
        if now - self._taken < self.line_every:
            return None
        with self._lock:
            taken, self._samples = self._samples, []
        if not taken:
            return None
        self._taken = now
        return Hardware(tuple(taken))

    def close(self) -> None:
        """No more looks."""
        self._closed.set()
        self._thread.join(timeout=self.every)

    def _watch(self) -> None:
        with Sampler(disk=self.run_dir) as sampler:
            sampler.sample()  # rates need a look before
            while not self._closed.wait(self.every):
                sample = sampler.sample()
                with self._lock:
                    self._samples.append(sample)
