"""What lies behind an error that torch or the system raised."""

from __future__ import annotations

import errno
from typing import Final

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def explain(error: Exception) -> tuple[str, str]:
    """The error in one line, and what to do about it where that is known."""
    if isinstance(error, OSError) and error.errno in _FULL:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}", "make room, then start again with --resume auto"
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return (
            f"a process that reads samples was ended: {error}",
            "main memory or /dev/shm is full more often than not (`dmesg` knows): fewer --workers, or a container "
            "with a larger shm_size; then start again with --resume auto",
        )
    return repr(error), ""
