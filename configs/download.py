"""Getting a file over HTTP: taken up where it stopped, complete or not there.

What has arrived lies in `<file>.part`, and beside it the mark (ETag or date) by which the server tells that its file is
still the same; only then is the rest asked for (RFC 9110, ranges and If-Range).
"""

from __future__ import annotations

import errno
import fcntl
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NoReturn
from urllib.parse import urlsplit

from configs.errors import BevnextError, UsageError

ProgressHook = Callable[[int, int | None], None]
"""Called with the bytes that are here and those that there are; `None` where the server does not say."""

ATTEMPTS: Final = 5
PAUSE: Final = 1.0
"""Seconds before the second attempt; twice as long before each further one."""
SILENCE: Final = 60.0
"""Seconds without a byte after which a connection is given up."""
_PIECE: Final = 1 << 18
_GOING_AWAY: Final = (408, 425, 429, 500, 502, 503, 504)
_NO_SUCH_RANGE: Final = 416
_OF_THE_DISK: Final = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO)


class _CutShortError(Exception):
    """The connection ended, or could not be made; asking again may help."""


def download(address: str, target: Path, on_progress: ProgressHook, pause: float = PAUSE) -> None:
    """Get `address` into `target`, going on with what an earlier call left.

    Raises:
        UsageError: not an address.
        BevnextError: the server refuses, cannot be reached, or another process gets the same file; what has arrived is
            kept.
    """
    _require_address(address)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with _alone(part):
        for attempt in range(ATTEMPTS):
            try:
                _get(address, part, on_progress)
                break
            except _CutShortError as error:
                if attempt == ATTEMPTS - 1:
                    raise BevnextError(
                        f"{shown(address)}: {error}, {ATTEMPTS} times; {part.stat().st_size:,} bytes are in {part}",
                        fix="the same command goes on from there, also with another address of the same file; one that "
                        f"was got in another way may be put to {target}",
                    ) from error
                time.sleep(pause * 2**attempt)
        part.replace(target)
        _mark_of(part).unlink(missing_ok=True)


def shown(address: str) -> str:
    """The address without what may be a signature or a password."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


@contextmanager
def progress_bar(name: str) -> Iterator[ProgressHook]:
    """A bar on a terminal; elsewhere nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None)
        yield lambda here, total: progress.update(task, completed=here, total=total)


def _require_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        usable = parts.scheme == "file" or (parts.scheme in ("http", "https") and bool(parts.hostname))
    except ValueError:  # such as a bracket that is not closed
        usable = False
    if not usable:
        raise UsageError(
            f"{address!r} is not an address that a file can be got from",
            fix="give one that begins with https://, http:// or file:///",
        )


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Keep other processes from the same file."""
    another = BevnextError(f"another process is getting {part}", fix="wait for it")
    with part.open("ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise another from error
        if not part.exists() or not os.path.samestat(
            part.stat(), os.fstat(held.fileno())
        ):  # that process has just given it its name
            raise another
        yield


def _get(address: str, part: Path, on_progress: ProgressHook) -> None:
    """One attempt."""
    have, mark = part.stat().st_size, _mark_of(part)
    headers = {"User-Agent": "bevnext-sam2", "Accept-Encoding": "identity"}
    if have and mark.is_file():
        headers |= {"Range": f"bytes={have}-", "If-Range": mark.read_text(encoding="utf-8")}
    else:
        have = 0
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=SILENCE) as response:
            first, total = _range_of(response, have)
            _keep_mark(response, mark)
            with part.open("r+b") as file:
                file.seek(first)
                file.truncate()
                _copy(response, file, first, total, on_progress)
    except urllib.error.HTTPError as error:
        _explain(error, address, part)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
            raise
        raise _CutShortError(str(error) or type(error).__name__) from error


def _copy(
    response: http.client.HTTPResponse, file: BinaryIO, first: int, total: int | None, on_progress: ProgressHook
) -> None:
    arrived = first
    on_progress(arrived, total)
    while piece := response.read(_PIECE):
        file.write(piece)
        arrived += len(piece)
        on_progress(arrived, total)
    file.flush()
    os.fsync(file.fileno())
    if total is not None and arrived != total:
        raise _CutShortError(f"the connection ended after {arrived:,} of {total:,} bytes")


def _range_of(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """The first byte that is coming, and how many there are in all."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status == http.client.PARTIAL_CONTENT and found and int(found[1]) == have:
        return have, None if found[2] == "*" else int(found[2])
    if response.status == http.client.PARTIAL_CONTENT:
        raise _CutShortError(f"the server sent another range: {response.headers.get('Content-Range')}")
    length = response.headers.get("Content-Length")
    return 0, int(length) if length else None


def _keep_mark(response: http.client.HTTPResponse, mark: Path) -> None:
    """Remember which file this is; weak marks do not promise the same bytes."""
    etag = response.headers.get("ETag", "")
    found = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
    if found:
        mark.write_text(found, encoding="utf-8")
    else:
        mark.unlink(missing_ok=True)


def _explain(error: urllib.error.HTTPError, address: str, part: Path) -> NoReturn:
    if error.code == _NO_SUCH_RANGE:  # more is here than there is: begin again
        _mark_of(part).unlink(missing_ok=True)
        raise _CutShortError("the file there is shorter than what is here") from error
    if error.code in _GOING_AWAY:
        raise _CutShortError(f"the server answers {error.code} {error.reason}") from error
    raise BevnextError(
        f"{shown(address)}: the server answers {error.code} {error.reason}",
        fix="take the address from the publisher's page once more (links that are signed run out after some hours), or "
        "give that of a mirror",
    ) from error


def _mark_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.mark")
