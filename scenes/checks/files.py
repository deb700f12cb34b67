"""Looks at the files that the tables name: there, whole, and (on request) decodable."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import simplejpeg
from numpy.typing import NDArray

from scenes.checks.report import EXAMPLES, FaultBook
from scenes.remote_root import read_missing, remote_size
from scenes.tables import Progress

POINT_BYTES: Final = 20  # x, y, z, intensity, ring as float32
CHUNK: Final = 2000
_JPEG_START, _JPEG_END, _TAIL = b"\xff\xd8", b"\xff\xd9", 32

MESSAGES: Final = {
    "missing-file": "the file is missing",
    "empty-file": "the file has no bytes",
    "truncated-file": "the file is cut off",
    "unreadable-file": "the file cannot be read",
    "undecodable-file": "the file cannot be decoded",
    "wrong-size": "the image is not of the size in sample_data.json",
}


@dataclass(slots=True)
class GroupFaults:
    """What is wrong with the files of one group."""

    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    rows: list[int] = field(default_factory=list)
    """records with a fault"""

    def add(self, kind: str, name: str, row: int) -> None:
        """One faulty file."""
        self.counts[kind] += 1
        if len(self.examples[kind]) < EXAMPLES:
            self.examples[kind].append(name)
        self.rows.append(row)


@dataclass(frozen=True, slots=True)
class FileGroup:
    """Files of one kind, as a table names them."""

    name: str
    rows: NDArray[np.int64]
    """row of the table for each file"""
    files: pa.StringArray
    """paths below the data root"""
    sizes: NDArray[np.int64]
    """[n, 2] height and width of an image"""


def check_files(
    root: Path, groups: list[FileGroup], deep: bool, threads: int, book: FaultBook, progress: Progress
) -> dict[str, GroupFaults]:
    """Look at every file of `groups`; `progress` is told the number of files done.

    Threads are enough: waiting for the disk and decoding both leave the interpreter to the others.
    """
    found = {group.name: GroupFaults() for group in groups}
    with ThreadPoolExecutor(threads) as pool:
        for group in groups:
            starts = range(0, len(group.rows), CHUNK)
            inspect = partial(_inspect_chunk, root, group, deep)
            for start, faults in zip(starts, pool.map(inspect, starts), strict=True):
                for row, kind, name in faults:
                    found[group.name].add(kind, name, row)
                progress(min(CHUNK, len(group.rows) - start))
    for name, group_faults in found.items():
        for kind, count in group_faults.counts.items():
            book.add(kind, name, MESSAGES[kind], group_faults.examples[kind], count)
    return found


def _inspect_chunk(root: Path, group: FileGroup, deep: bool, start: int) -> list[tuple[int, str, str]]:
    """Row, fault and name of the faulty files among `CHUNK`."""
    chunk = slice(start, start + CHUNK)
    names = group.files[chunk].to_pylist()
    sizes = group.sizes[chunk].tolist()
    return [
        (int(group.rows[start + i]), fault, name)
        for i, (name, size) in enumerate(zip(names, sizes, strict=True))
        if (fault := _fault_of(root / name, size, deep))
    ]


def _fault_of(path: Path, size: list[int], deep: bool) -> str | None:
    try:
        length = path.stat().st_size
        fault = "empty-file" if length == 0 else _shape_fault(path, length)
        return _content_fault(path, size) if deep and fault is None else fault
    except FileNotFoundError:
        return _remote_fault(path, size, deep)
    except OSError:
        return "unreadable-file"


def _remote_fault(path: Path, size: list[int], deep: bool) -> str | None:
    """A file that is not here may be in the store that the data root mirrors; only `deep` fetches it."""
    try:
        if not deep:
            return "empty-file" if remote_size(path) == 0 else None
        length = len(read_missing(path))
    except FileNotFoundError:
        return "missing-file"
    if length == 0:
        return "empty-file"
    return _shape_fault(path, length) or _content_fault(path, size)


def _shape_fault(path: Path, length: int) -> str | None:
    if path.suffix == ".jpg":
        with path.open("rb") as file:
            start = file.read(2)
            file.seek(-min(length, _TAIL), 2)
            end = file.read().rstrip(b"\0")
        whole = start == _JPEG_START and end.endswith(_JPEG_END)
        return None if whole else "truncated-file"
    if path.name.endswith(".pcd.bin") and length % POINT_BYTES:
        return "truncated-file"
    return None


def _content_fault(path: Path, size: list[int]) -> str | None:
    if path.suffix == ".jpg":
        try:
            # 1/8 scale decodes every bit of the stream and skips most of the arithmetic
            data = path.read_bytes()
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
            simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1)
        except ValueError:
            return "undecodable-file"
        return None if [height, width] == size else "wrong-size"
    if path.name.endswith(".pcd.bin") and not np.isfinite(np.fromfile(path, np.float32)).all():
        return "undecodable-file"
    if path.suffix == ".pcd":
        return _radar_fault(path.read_bytes())
    return None


def _radar_fault(data: bytes) -> str | None:
    """A PCD file needs a header and as many bytes as it announces."""
    header, mark, body = data.partition(b"DATA binary\n")
    fields = {words[0]: words[1:] for line in header.splitlines() if (words := line.split())}
    try:
        points = int(fields[b"POINTS"][0])
        sizes = [int(size) * int(count) for size, count in zip(fields[b"SIZE"], fields[b"COUNT"], strict=True)]
    except (KeyError, IndexError, ValueError):
        return "undecodable-file"
    return None if mark and len(body) >= points * sum(sizes) else "undecodable-file"
