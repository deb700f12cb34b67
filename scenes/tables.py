"""Reads nuScenes tables: small ones whole, the large ones as a stream of Arrow blocks that never holds the file.

A table is a JSON array of flat records. A block of bytes is cut behind a record, its records are put one on a line by
array operations, and Arrow's JSON reader turns them into columns of the schema that the caller asks for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.json as pa_json
from numpy.typing import NDArray

from configs.errors import DataError

T = TypeVar("T")
Progress = Callable[[int], None]

BLOCK_BYTES = 16 << 20
THREADS = 2
_SPACE, _COMMA, _NEWLINE, _OPEN, _CLOSE = (ord(c) for c in " ,\n{}")
_GET_AGAIN = "unpack the nuScenes metadata archive again (`bevnext-sam2 data check` lists every fault)"


def no_progress(size: int) -> None:
    """A progress callback that shows nothing."""


def read_small_table(path: Path, fields: tuple[str, ...]) -> list[dict[str, Any]]:
    """All records of a table of at most some ten thousand; each is checked to have `fields`."""
    try:
        records = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise _missing(path) from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})", fix=_GET_AGAIN) from None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{path}: not a JSON array of records", fix=_GET_AGAIN)
    for number, record in enumerate(records):
        absent = [field for field in fields if record.get(field) is None]
        if absent:
            raise DataError(f"{path}: record {number} lacks the field {absent[0]!r}", fix=_GET_AGAIN)
    return records


def read_large_table(
    path: Path,
    schema: pa.Schema,
    convert: Callable[[pa.Table], T],
    progress: Progress = no_progress,
    complete: bool = True,
) -> list[T]:
    """`convert` applied to each block of the table, in order, on `THREADS` threads; to one empty block for `[]`.

    Blocks have the columns of `schema`; other fields are not read. Without `complete` a field that a record lacks is
    null, with it an error. `progress` is told the bytes done.
    Errors: `DataError` for a file that is missing, cut off, not a JSON array of flat records, or lacks a field.
    """

    def work(block: NDArray[np.uint8], at: int) -> T:
        table = _parse(block, at, path, schema)
        if complete:
            _refuse_nulls(table, at, path)
        return convert(table)

    results: list[T] = []
    waiting: list[tuple[Future[T], int]] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for block, at in _blocks(path):
            waiting.append((pool.submit(work, block, at), len(block)))
            if len(waiting) > THREADS:
                _collect(waiting.pop(0), results, progress)
        for job in waiting:
            _collect(job, results, progress)
    return results or [convert(schema.empty_table())]


def _collect(job: tuple[Future[T], int], results: list[T], progress: Progress) -> None:
    future, size = job
    results.append(future.result())
    progress(size)


def _blocks(path: Path) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Blocks of whole records without the commas between blocks, and the byte at which each begins."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise _missing(path) from None
    with file:
        rest, at, first = b"", 0, True
        while data := file.read(BLOCK_BYTES):
            data = rest + data
            if first:
                data, at, first = _after(data, b"[", path, 0)
            end = data.rfind(b"}") + 1
            if end:
                begin = _record_start(data, path, at)
                yield np.frombuffer(bytearray(data[begin:end]), np.uint8), at + begin
            rest, at = data[end:], at + end
        _check_end(rest, path, at, first)


def _after(data: bytes, sign: bytes, path: Path, at: int) -> tuple[bytes, int, bool]:
    head = data.lstrip()
    if not head.startswith(sign):
        raise DataError(f"{path}: does not begin with '[': not a JSON array of records", fix=_GET_AGAIN)
    skipped = len(data) - len(head) + 1
    return data[skipped:], at + skipped, False


def _record_start(data: bytes, path: Path, at: int) -> int:
    start = data.find(b"{")
    between = data[: max(start, 0)].strip()
    if start < 0 or between not in (b"", b","):
        raise DataError(f"{path}: byte {at}: a record was expected, found {data[:40]!r}", fix=_GET_AGAIN)
    return start


def _check_end(rest: bytes, path: Path, at: int, empty: bool) -> None:
    if empty:
        raise DataError(f"{path}: the file is empty", fix=_GET_AGAIN)
    if rest.strip() != b"]":
        raise DataError(f"{path}: cut off at byte {at + len(rest)}: the closing ']' is missing", fix=_GET_AGAIN)


def _parse(block: NDArray[np.uint8], at: int, path: Path, schema: pa.Schema) -> pa.Table:
    _one_record_per_line(block, at, path)
    try:
        table = pa_json.read_json(
            pa.BufferReader(pa.py_buffer(block)),
            pa_json.ReadOptions(use_threads=False, block_size=len(block)),
            pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: {_first_bad_record(block, at) or error}", fix=_GET_AGAIN) from None
    return table.combine_chunks()


def _first_bad_record(block: NDArray[np.uint8], at: int) -> str:
    """Where JSON breaks in a block, '' when it does not (then a value has the wrong type)."""
    for line in block.tobytes().splitlines(keepends=True):
        try:
            json.loads(line)
        except ValueError as error:
            return f"byte {at}: not valid JSON: {error} in {line[:80].decode(errors='replace')!r}..."
        at += len(line)
    return ""


def _refuse_nulls(table: pa.Table, at: int, path: Path) -> None:
    for name in table.column_names:
        column = table.column(name)
        if column.null_count:
            number = int(np.flatnonzero(column.is_null().to_numpy())[0])
            raise DataError(
                f"{path}: {column.null_count} records of the block at byte {at} lack the field {name!r} "
                f"(the first is its record {number})",
                fix=_GET_AGAIN,
            )


def _one_record_per_line(block: NDArray[np.uint8], at: int, path: Path) -> None:
    """In place: control characters become spaces, and each gap `} , {` between records begins with a newline."""
    np.maximum(block, _SPACE, out=block)
    closes = np.flatnonzero(block == _CLOSE)[:-1] + 1
    opens = np.flatnonzero(block == _OPEN)[1:]
    if len(closes) != len(opens) or not (closes <= opens).all():
        raise DataError(f"{path}: the block at byte {at} is not a list of flat records", fix=_GET_AGAIN)
    gaps = opens - closes
    commas = np.zeros(len(gaps), np.int64)
    others = np.zeros(len(gaps), np.int64)
    for offset in range(int(gaps.max(initial=0))):
        where = np.flatnonzero(gaps > offset)
        places = closes[where] + offset
        commas[where] += block[places] == _COMMA
        others[where] += block[places] > _SPACE
        block[places] = _SPACE if offset else _NEWLINE
    wrong = np.flatnonzero((commas != 1) | (others != 1))
    if len(wrong):
        place = at + int(closes[wrong[0]])
        raise DataError(f"{path}: byte {place}: two records must have one comma between them", fix=_GET_AGAIN)


def _missing(path: Path) -> DataError:
    return DataError(
        f"{path}: the table is missing",
        fix=f"unpack the nuScenes metadata so that {path.parent} holds the tables, or correct --data-root or --version",
    )
