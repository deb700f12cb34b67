"""The files of an index: Arrow IPC tables that are memory-mapped, and `header.json` that names them.

Tables of a build carry its id in their names, and the header is renamed into place last: a reader sees the old index
or the new one, never a mixture, and a build that fails leaves the old one whole.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from configs.errors import BevnextError, DataError
from configs.index_location import HEADER

SCHEMA_VERSION: Final = 1


class FileStamp(BaseModel):
    """Size and time of a table file: what tells whether an index is still that of its tables."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    mtime_ns: int


class TableFile(BaseModel):
    """One Arrow file of the index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    bytes: int


class Counts(BaseModel):
    """Records of the data set; `sample_data` counts every sensor, also those that the index leaves out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scenes: int
    samples: int
    sample_data: int
    annotations: int


class IndexFacts(BaseModel):
    """What an index was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    version: str
    source: str
    """`tables`, or the names of the info files."""
    counts: Counts
    splits: dict[str, int]
    """Number of samples of each split."""
    class_frames: dict[str, list[int]]
    """For each split and class, the samples with at least one training box: what class-balanced epochs follow from."""
    categories: list[str]
    attributes: list[str]
    fingerprint: dict[str, FileStamp]
    """Table files that the index was made from; empty for an import."""


class IndexHeader(IndexFacts):
    """`header.json`."""

    files: dict[str, TableFile]


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of one mapped table: arrays that look into the file, `[rows, ...]`, and texts."""

    arrays: Mapping[str, NDArray[Any]]
    texts: Mapping[str, pa.StringArray]
    rows: int


def write_index(directory: Path, facts: IndexFacts, tables: Mapping[str, pa.Table]) -> IndexHeader:
    """Write `tables` and then the header; earlier files go away once the new header stands.

    Errors: `BevnextError` when the disk is full or not writable; the earlier index is untouched then.
    """
    with _explained(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with _only_builder(directory):
            return _replace_index(directory, facts, tables)


def _replace_index(directory: Path, facts: IndexFacts, tables: Mapping[str, pa.Table]) -> IndexHeader:
    build = uuid.uuid4().hex[:8]
    temporary = directory / f"{HEADER}.{build}"
    files: dict[str, TableFile] = {}
    try:
        for name, table in tables.items():
            path = directory / f"{name}-{build}.arrow"
            files[name] = TableFile(name=path.name, bytes=0)
            files[name] = TableFile(name=path.name, bytes=_write_table(path, table))
        header = IndexHeader(**facts.model_dump(), files=files)
        _write_synced(temporary, header.model_dump_json(indent=1).encode())
        temporary.replace(directory / HEADER)
    except BaseException:
        for path in (*(directory / file.name for file in files.values()), temporary):
            path.unlink(missing_ok=True)
        raise
    _sync_directory(directory)
    for path in directory.glob("*.arrow"):
        if path.name not in {file.name for file in files.values()}:
            path.unlink()
    return header


def _write_table(path: Path, table: pa.Table) -> int:
    with path.open("wb") as file:
        with pa.ipc.new_file(file, table.schema) as writer:
            # one batch, so that every column is one array in the file
            writer.write_table(table.combine_chunks(), max_chunksize=max(table.num_rows, 1))
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _only_builder(directory: Path) -> Iterator[None]:
    """Two builds of the same index at once: the second waits for the first."""
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        existing = next(path for path in (directory, *directory.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        raise BevnextError(
            f"cannot write the index to {directory}: {error.strerror or error} ({free / 1e6:,.0f} MB free); "
            "an earlier index is untouched",
            fix="make room there, or choose another place with --index-dir or BEVNEXT_SAM2_INDEX_DIR",
        ) from error


def read_header(directory: Path, rebuild: str) -> IndexHeader:
    """The header of a whole index of this schema; `rebuild` is the command that makes it.

    Errors: `DataError` when it is absent, damaged, of another schema, or a file of it is gone or cut.
    """
    path = directory / HEADER
    try:
        text = path.read_bytes()
        content = json.loads(text)
        found = content["schema_version"]
        if found != SCHEMA_VERSION:
            raise DataError(f"{path}: index schema {found}, this program reads {SCHEMA_VERSION}", fix=rebuild)
        header = IndexHeader.model_validate(content)
    except FileNotFoundError:
        raise DataError(f"there is no index in {directory}", fix=rebuild) from None
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise DataError(f"{path}: damaged index header ({error})", fix=rebuild) from None
    for file in header.files.values():
        part = directory / file.name
        if not part.is_file() or part.stat().st_size != file.bytes:
            if path.read_bytes() != text:  # another build has replaced it since
                return read_header(directory, rebuild)
            raise DataError(f"{part}: this file of the index is missing or cut off", fix=rebuild)
    return header


def map_columns(path: Path) -> Columns:
    """Map a table; nothing is read until it is looked at."""
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    arrays: dict[str, NDArray[Any]] = {}
    texts: dict[str, pa.StringArray] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        array = column.chunk(0) if column.num_chunks else pa.array([], column.type)
        if pa.types.is_string(array.type):
            texts[name] = array
        elif pa.types.is_fixed_size_list(array.type):
            arrays[name] = array.flatten().to_numpy().reshape(-1, array.type.list_size)
        else:
            arrays[name] = array.to_numpy()
    return Columns(arrays=arrays, texts=texts, rows=table.num_rows)


def stamps_of(version_directory: Path, names: tuple[str, ...]) -> dict[str, FileStamp]:
    """Size and time of those files that exist."""
    found = {}
    for name in names:
        path = version_directory / name
        if path.is_file():
            stat = path.stat()
            found[name] = FileStamp(bytes=stat.st_size, mtime_ns=stat.st_mtime_ns)
    return found
