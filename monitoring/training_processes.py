"""Which process of the machine is which rank of a training."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Final

from monitoring.samples import Missing

OWN_NAMESPACE: Final = Path("/proc/self/ns/pid")
OF_THE_MACHINE: Final = "pid:[4026531836]"
"""The namespace of process ids that the machine starts with: its number is fixed in the kernel's headers."""


def foreign_ids() -> Missing | None:
    """Why the process ids that a driver tells cannot be mapped to ranks; `None` where they can.

    A driver may count as the machine does, and in a container that counts for itself another process has that number.
    """
    try:
        namespace = str(OWN_NAMESPACE.readlink())
    except OSError as error:
        return Missing(f"not available: whose process ids the driver tells is not known ({error.strerror})")
    if namespace == OF_THE_MACHINE:
        return None
    return Missing(
        "not available: process ids are of the host, and this container has its own (--pid=host shares them)"
    )


def rank_of(pid: int) -> int | None:
    """The rank of a process that torchrun started, by the id that a driver tells.

    `None` for others, where we may not look, and where the id means another process here (`foreign_ids`).
    """
    return _rank(pid, _started(pid)) if foreign_ids() is None else None


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
