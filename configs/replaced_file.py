"""Writing small text files: a reader sees the old one or the new one, whoever else writes it at the same time."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8. Several machines may do so at once: the last one wins."""
    unfinished = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.new")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
