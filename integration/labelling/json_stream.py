"""JSON files of any length, written record by record: all of a large data set never stands in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from configs.replaced_file import replacing


def write_table(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """`[record, ...]`, one record a line; a reader sees all of it or none."""
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        _write_list(file, records)
        file.write("\n")


def write_lists(path: Path, lists: Mapping[str, Mapping[str, Any] | Iterable[Mapping[str, Any]]]) -> None:
    """`{name: [record, ...], ...}`; a mapping instead of records is written as it is."""
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        for number, (name, content) in enumerate(lists.items()):
            file.write(f"{',' if number else '{'}\n{json.dumps(name)}: ")
            if isinstance(content, Mapping):
                file.write(json.dumps(content, allow_nan=False))
            else:
                _write_list(file, content)
        file.write("\n}\n")


def _write_list(file: TextIO, records: Iterable[Mapping[str, Any]]) -> None:
    file.write("[")
    for number, record in enumerate(records):
        file.write(",\n" if number else "\n")
        file.write(json.dumps(record, allow_nan=False))
    file.write("]")
