"""The run's figures on disk: one JSON object a line in `metrics.jsonl`, and TensorBoard scalars."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from configs import run_directory
from configs.replaced_file import replace_text

SCORES: Final = ("metrics/NDS", "metrics/mAP")
"""Curves that TensorBoard compares runs by."""


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

    def pictures(self, step: int, pictures: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """RGB images `[H, W, 3]` for TensorBoard."""
        for name, picture in pictures.items():
            self._board.add_image(name, picture, step, dataformats="HWC")

    def describe(self, texts: Mapping[str, str], settings: Mapping[str, str | float]) -> None:
        """What the run is: Markdown texts, and settings for TensorBoard's table of runs (HParams)."""
        for name, text in texts.items():
            self._board.add_text(name, text)
        # in the run's own file: add_hparams would open a folder beside it
        experiment, session, _ = hparams(dict(settings), dict.fromkeys(SCORES, 0.0))  # type: ignore[no-untyped-call]
        writer = self._board._get_file_writer()  # type: ignore[no-untyped-call]
        writer.add_summary(experiment)
        writer.add_summary(session)

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
    replace_text(path, "".join(kept))
