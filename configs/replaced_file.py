"""Writing files: a reader sees the old one or the new one, never half of either, whoever else writes it meanwhile.

Several processes on several machines may write the same file: the last one wins.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.errors import BevnextError


def replace_text(path: Path, text: str) -> Path:
    """Write `text` to `path` in UTF-8; folders are made.

    Raises:
        BevnextError: it cannot be written, or the disk is full; an earlier `path` is left as it was.
    """
    return replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> Path:
    """As `replace_text`, for any content."""
    try:
        with replacing(path) as unfinished:
            unfinished.write_bytes(content)
    except OSError as error:
        raise unwritable(path, error) from error
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` for a file that somebody else writes.

    After the block it is on the disk and takes the place of `path`; a block that fails leaves nothing behind.

    Raises:
        OSError: as the file system tells it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{uuid.uuid4().hex}.unfinished")
    try:
        unfinished.touch()
        usual = unfinished.stat().st_mode
        yield unfinished
        unfinished.chmod(usual)  # some libraries make files that only their owner can read
        _sync(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> BevnextError:
    """The words for a file that cannot be written."""
    return BevnextError(f"cannot write {path}: {error.strerror}", fix="free some space, or name another folder")


def _sync(path: Path) -> None:
    """Wait until the content is on the disk: after a power cut, a name without content would be worse than none."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
