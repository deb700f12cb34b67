"""The run's figures on disk: one JSON object a line in `metrics.jsonl`, and TensorBoard scalars."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from configs import run_directory


class MetricsLog:
    """Appends events. Lines of steps that the run goes back behind are dropped, so curves never double back."""

    def __init__(self, run_dir: Path, first_step: int) -> None:
        self.path = run_dir / run_directory.METRICS
        _drop_after(self.path, first_step)
        self._file = self.path.open("a", encoding="utf-8", buffering=1)
        self._board = SummaryWriter(str(run_dir / run_directory.TENSORBOARD), purge_step=first_step + 1)

    def write(self, event: str, step: int, scalars: dict[str, float], **more: Any) -> None:
        """Record an event: `scalars` (nested dicts of `more` too) go to both, the rest to the JSON line alone."""
        line = {"event": event, "time": time.time(), "step": step, **scalars, **more}
        self._file.write(json.dumps(line) + "\n")
        for name, value in scalars.items():
            self._board.add_scalar(f"{event}/{name}", value, step)
        for group, values in more.items():
            if isinstance(values, dict):
                for name, value in values.items():
                    self._board.add_scalar(f"{group}/{name}", value, step)

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars for TensorBoard alone."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush both."""
        self._file.close()
        self._board.close()


def _drop_after(path: Path, step: int) -> None:
    """Remove the lines of later steps, and a last line that was cut short."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.write_text("".join(kept), encoding="utf-8")
    unfinished.replace(path)
