"""The lines of a metrics.jsonl that is being written, each read once."""

from __future__ import annotations

import json
import time
from collections import deque
from pathlib import Path
from typing import Any, Final

KEPT: Final = 600
"""Newest lines that are remembered."""
LARGEST_START: Final = 8 << 20
"""Bytes from the end at which a long file is begun."""

Line = dict[str, Any]


class RunLines:
    """Follows one file. It may be missing, grow, be cut at a line, or be replaced: a run goes back behind steps."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: deque[Line] = deque(maxlen=KEPT)
        self._inode = 0
        self._offset = 0
        self._grown: float | None = None

    def read(self) -> list[Line]:
        """The newest whole lines, oldest first. A line that is no JSON object is passed over."""
        try:
            status = self.path.stat()
        except OSError:
            self._forget(0)
            return []
        if status.st_ino != self._inode or status.st_size < self._offset:
            self._forget(status.st_ino)
            self._offset = max(0, status.st_size - LARGEST_START)
            # how long ago it grew is known by the machine's clock only, and that may have jumped
            self._grown = time.monotonic() - max(0.0, time.time() - status.st_mtime)
        if status.st_size > self._offset:
            self._take()
        return list(self.lines)

    @property
    def idle_seconds(self) -> float | None:
        """Seconds since the file grew; `None` where there is none."""
        return None if self._grown is None else max(0.0, time.monotonic() - self._grown)

    def _take(self) -> None:
        first = not self.lines
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except OSError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        parsed = [_parsed(line) for line in whole.splitlines()]
        self.lines.extend(line for line in parsed if line is not None)
        if whole and not first:
            self._grown = time.monotonic()

    def _forget(self, inode: int) -> None:
        self.lines.clear()
        self._inode, self._offset, self._grown = inode, 0, None


def _parsed(line: bytes) -> Line | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(found, dict) and isinstance(found.get("step"), int) and isinstance(found.get("event"), str)
    return found if whole else None
