"""Whether this start of a run was made by torchrun or the launcher after a failure, and whether that leads anywhere.

`starts.json` in the run directory names the launch (all starts that one command makes), the newest checkpoint that its
last start found, and how many restarts in a row before that one had not come past it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from configs import run_directory
from configs.errors import BevnextError, ExitCode
from configs.launch import FRUITLESS_RESTARTS, LAUNCH_VARIABLE
from configs.replaced_file import replace_text

_UNNAMED: Final = ("", "none")


class NoProgressError(BevnextError):
    """The run fails again and again before it reaches another checkpoint (exit code 76)."""

    exit_code = ExitCode.NO_PROGRESS


class Launch:
    """The command that this process belongs to, as the run directory remembers it."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / run_directory.STARTS
        names = (os.environ.get(LAUNCH_VARIABLE, ""), os.environ.get("TORCHELASTIC_RUN_ID", ""))
        self.name = next((name for name in names if name not in _UNNAMED), "")
        try:
            self._before = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            self._before = {}

    @property
    def is_restart(self) -> bool:
        """An earlier start of the same command has trained already: the run goes on, whatever `--resume` said."""
        return bool(self.name) and self._before.get("launch") == self.name

    def note_start(self, step: int) -> None:
        """Remember a start that goes on after `step`.

        Raises:
            NoProgressError: too many restarts in a row have not reached another checkpoint.
        """
        fruitless = 0
        if self.is_restart and step <= self._before["step"]:
            fruitless = self._before["fruitless"] + int(self._before["restart"])
        if fruitless >= FRUITLESS_RESTARTS:
            raise NoProgressError(
                f"{FRUITLESS_RESTARTS} restarts in a row have not come past step {step}",
                fix="the logs of the starts say why they ended; starting again will not help",
            )
        content = {"launch": self.name, "step": step, "restart": self.is_restart, "fruitless": fruitless}
        replace_text(self.path, json.dumps(content))
