"""Standard streams whose reader may go away, as a closed terminal does, or `tee` at Ctrl-C: the work goes on without.

A training has to save what it has learnt whoever listens; what it says is in its files, too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast


def outlive_reader(stream: TextIO) -> TextIO:
    """The stream, but for errors: it leads nowhere from the moment on when its reader has gone.

    Where a process was started without the stream (`>&-`), Python has `None` for it, and so has the caller.
    """
    return cast(TextIO, _Outlived(stream)) if stream else stream


@contextmanager
def readers_outlived() -> Iterator[None]:
    """Standard output and error are such streams meanwhile."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = outlive_reader(sys.stdout), outlive_reader(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def lead_nowhere(stream: TextIO) -> None:
    """Let /dev/null take what is written to the stream, and what it still holds: its end would complain once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class _Outlived:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            lead_nowhere(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            lead_nowhere(self._stream)
