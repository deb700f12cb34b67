"""Data sets on an object store: tables are fetched at once, sensor files when they are first read, each only once.

The mirror is an ordinary data root; a file that is missing in it is fetched, retried by s3fs, and put in its place
whole. Credentials and endpoint are those of the AWS tools (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `~/.aws`, ...).
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from configs.errors import DataError, UsageError
from configs.remote_location import MARKER, mirror_folder, remote_address

EAGER: Final = ("v1.0-", "maps")
"""Beginnings of the folders that are fetched at once; so are the files of the root itself."""

Report = Callable[[str], None]


def _silent(name: str) -> None:
    """Tell nobody."""


def local_root(dataroot: Path | str) -> Path:
    """The folder of a data root; for `s3://...` its mirror, with the tables in it.

    Raises:
        UsageError: the extra `s3` is not installed.
        DataError: the store does not answer, or has no tables there.
    """
    address = remote_address(dataroot)
    if address is None:
        return Path(dataroot)
    folder = mirror_folder(address)
    if not (folder / MARKER).is_file():
        fetch_tables(address, folder)
    return folder


def fetch_tables(address: str, folder: Path, report: Report = _silent) -> None:
    """Mirror everything but the sensor files; the marker comes last, so that a mirror without it is begun again."""
    with _explained(address):
        store = _store(os.getpid())
        entries = store.ls(address, detail=True)
        versions = [entry for entry in entries if _name(entry).startswith("v1.0-")]
        if not versions:
            raise DataError(f"{address} holds no tables", fix="name the folder above `v1.0-...` and `samples`")
        for entry in entries:
            if entry["type"] == "file":
                names = [entry["name"]]
            else:
                names = store.find(entry["name"]) if _name(entry).startswith(EAGER) else []
            for name in names:
                inside = name.removeprefix(address.removeprefix("s3://")).lstrip("/")
                report(inside)
                _fetch(store, f"{address}/{inside}", folder / inside)
    (folder / MARKER).write_text(f"{address}\n", encoding="utf-8")


def sensor_bytes(path: Path) -> bytes:
    """The bytes of a file of a data set. Raises `OSError`, and `DataError` where a store does not answer."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return read_missing(path)


def read_missing(path: Path) -> bytes:
    """The bytes of a file that is not here, fetched into the mirror that it belongs to.

    Raises:
        FileNotFoundError: it belongs to none, or the store does not have it either.
        DataError: the store does not answer.
    """
    address = _address_of(path)
    with _explained(address):
        _fetch(_store(os.getpid()), address, path)
    return path.read_bytes()


def remote_size(path: Path) -> int:
    """Bytes of a file that is not here, as the store tells. Raises as `read_missing`."""
    address = _address_of(path)
    with _explained(address):
        return int(_store(os.getpid()).size(address))


def _address_of(path: Path) -> str:
    folder = next((folder for folder in path.parents if (folder / MARKER).is_file()), None)
    if folder is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    address = (folder / MARKER).read_text(encoding="utf-8").strip()
    return f"{address}/{path.relative_to(folder).as_posix()}"


def _name(entry: dict[str, Any]) -> str:
    return str(entry["name"]).rstrip("/").rpartition("/")[2]


def _fetch(store: Any, address: str, path: Path) -> None:
    """Put a file in its place whole, whoever else fetches it meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        store.get_file(address, str(part))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@lru_cache(maxsize=1)
def _store(process: int) -> Any:
    """The client of a process: one that was inherited by a fork cannot be used."""
    del process
    try:
        import s3fs
    except ImportError as error:
        raise UsageError(
            "a data set on S3 needs the extra `s3`", fix="pip install 'bevnext-sam2[s3]', or scripts/set_up.sh"
        ) from error
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return s3fs.S3FileSystem(endpoint_url=endpoint, skip_instance_cache=True)


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """What a store says, as an error for the user; a file that is not there stays a `FileNotFoundError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), address) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{address}: {error}", fix="check the name, AWS_ENDPOINT_URL and the credentials") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("botocore", "aiobotocore", "aiohttp"):
            raise
        raise DataError(f"{address}: {error}", fix="check the name, AWS_ENDPOINT_URL and the credentials") from error
