"""Checkpoints beside the training: a step waits for the copy to main memory, a thread does the writing."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .checkpoints import CheckpointFolder, RunManifest
from .reporter import SilentReporter
from .state import TrainingState


@dataclass(frozen=True, slots=True)
class _Pending:
    step: int
    place: Future[Path]
    begun: float
    stalled: float
    """Seconds that training waited for the copy."""


class CheckpointWriter:
    """Writes one checkpoint at a time; leaving the context waits for the last one.

    Args:
        beside: write in a thread, while training goes on.
    """

    def __init__(self, folder: CheckpointFolder, reporter: SilentReporter, beside: bool) -> None:
        self.folder = folder
        self.reporter = reporter
        self.beside = beside
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending: _Pending | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self._pool.shutdown()

    def write(self, manifest: RunManifest, state: TrainingState, carried: dict[str, Tensor] | None = None) -> None:
        """Begin to write a checkpoint of the step just done; wait for the one before, and for this one if not beside.

        Args:
            carried: what the detectors of all ranks remember, in main memory.

        Raises:
            BevnextError: this one or the one before cannot be written.
        """
        self.finish()
        begun = time.perf_counter()
        snapshot = state.snapshot(self.beside, carried)
        if self.beside:
            place = self._pool.submit(self.folder.write, manifest, snapshot.payloads())
        else:
            place = Future()
            place.set_result(self.folder.write(manifest, snapshot.payloads()))
        self._pending = _Pending(manifest.step, place, begun, time.perf_counter() - begun)
        self.reporter.stalled(self._pending.stalled)
        self.collect()

    def collect(self) -> None:
        """Report the checkpoint that is being written, if it is done. Raises as `write`."""
        if self._pending is not None and self._pending.place.done():
            self.finish()

    def finish(self) -> None:
        """Wait until the checkpoint that is being written is on disk. Raises as `write`."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        begun = time.perf_counter()
        place = pending.place.result()
        waited = time.perf_counter() - begun
        self.reporter.stalled(waited)
        self.reporter.checkpoint(pending.step, place, time.perf_counter() - pending.begun, pending.stalled + waited)
