"""Which process of the machine is which rank of a training."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path


def rank_of(pid: int) -> int | None:
    """The rank of a process that torchrun started; `None` for others, and where we may not look."""
    return _rank(pid, _started(pid))


def _started(pid: int) -> str:
    """When the process was started, in the kernel's units: numbers of processes are given again."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


@lru_cache(maxsize=1024)
def _rank(pid: int, started: str) -> int | None:
    if not started:
        return None
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    environment = dict(entry.partition(b"=")[::2] for entry in entries)
    rank = environment.get(b"RANK", b"")
    return int(rank) if b"TORCHELASTIC_RUN_ID" in environment and rank.isdigit() else None
