"""Writing a file so that readers see the old one or the new one, never half of either."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from configs.errors import BevnextError


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Write `content` (text as UTF-8) to a temporary file beside `path`, sync it, and rename it to `path`.

    Raises:
        BevnextError: the directory cannot be written or the disk is full; an earlier `path` is left as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _write_error(path, error) from error
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _write_error(path, error) from error
    return path


def _write_error(path: Path, error: OSError) -> BevnextError:
    return BevnextError(
        f"cannot write {path}: {error.strerror}", fix="free some space or name another directory with `--out`"
    )
