"""Reads the 13 tables with every field, and reports what is missing, malformed, repeated or dangling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from configs.errors import DataError
from configs.nuscenes import TABLES
from scenes.checks.report import EXAMPLES, FaultBook
from scenes.sensor_tables import column
from scenes.table_schemas import FOREIGN_KEYS, LARGE_TABLES, SCHEMAS, ForeignKey
from scenes.tables import Progress, read_large_table, read_small_table
from scenes.tokens import TokenArray, TokenMap, as_texts, is_none, try_tokens

_WIDTHS: Final = {"translation": 3, "size": 3, "rotation": 4}
_KEPT_TEXTS: Final = ("filename", "name", "channel")
_WORDS: Final = ("visibility_token",)  # tokens that are words; so are those of the table `visibility`
_UNIT_TOLERANCE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Table:
    """A table with everything that the checks look at."""

    name: str
    rows: int
    columns: dict[str, Any]
    """tokens `[n, 2]`, numbers `[n]`, texts; for a list of tokens `field` (flat) and `field:owner` (row of each)"""
    wrong: dict[str, NDArray[np.bool_]]
    """`missing field` and `malformed field` -> mask of records"""
    map: TokenMap | None

    def token(self, row: int) -> str:
        """The token of a record, for messages."""
        tokens = self.columns["token"]
        return str(tokens[row].as_py() if isinstance(tokens, pa.Array) else as_texts(tokens[row : row + 1])[0])

    def examples(self, rows: NDArray[np.int64]) -> list[str]:
        """Tokens of the first few records."""
        return [self.token(int(row)) for row in rows[:EXAMPLES]]


def load_tables(directory: Path, book: FaultBook, progress: Progress) -> dict[str, Table]:
    """Every table that can be read; the others become faults."""
    tables: dict[str, Table] = {}
    for name in TABLES:
        path = directory / f"{name}.json"
        if not path.is_file():
            book.add("missing-table", f"{name}.json", f"{path} is missing")
            continue
        try:
            tables[name] = _load(path, name, progress)
        except DataError as error:
            book.add("unreadable-table", f"{name}.json", error.message)
    return tables


def check_fields(tables: dict[str, Table], book: FaultBook) -> None:
    """Missing fields, malformed values, empty and repeated tokens."""
    for table in tables.values():
        for name, mask in table.wrong.items():
            rows = np.flatnonzero(mask)
            if len(rows):
                kind, field = name.split()
                message = {"missing": "the field is absent", "malformed": _malformed(field)}[kind]
                where = f"{table.name}.{field}"
                book.add(f"{kind}-field", where, message, table.examples(rows), len(rows))
        if table.map is not None:
            rows = table.map.duplicates()
            if len(rows):
                book.add("repeated-token", table.name, "the token names two records", table.examples(rows), len(rows))


def check_foreign_keys(tables: dict[str, Table], book: FaultBook) -> dict[str, NDArray[np.int64]]:
    """Dangling tokens. Returns `table.field` -> row in the target table, -1 for none."""
    links = {}
    for key in FOREIGN_KEYS:
        if key.table in tables and key.target in tables:
            links[f"{key.table}.{key.field}"] = _follow(key, tables, book)
    _check_visibility(tables, book)
    return links


def _follow(key: ForeignKey, tables: dict[str, Table], book: FaultBook) -> NDArray[np.int64]:
    source, target = tables[key.table], tables[key.target]
    assert target.map is not None  # only `visibility` has none, and no key leads there
    tokens: TokenArray = source.columns[key.field]
    owners = source.columns.get(f"{key.field}:owner", np.arange(len(tokens)))
    rows = target.map.rows(tokens)
    dangling = rows < 0
    if key.optional:
        dangling &= ~is_none(tokens)
    malformed = source.wrong.get(f"malformed {key.field}")
    if malformed is not None:
        dangling &= ~malformed[owners]
    bad = np.flatnonzero(dangling)
    if len(bad):
        examples = [
            f"{source.token(int(owners[i]))} -> {as_texts(tokens[i : i + 1])[0] or 'empty'}" for i in bad[:EXAMPLES]
        ]
        book.add("dangling-token", f"{key.table}.{key.field}", f"not in {key.target}.json", examples, len(bad))
    return rows


def _check_visibility(tables: dict[str, Table], book: FaultBook) -> None:
    if not {"visibility", "sample_annotation"} <= set(tables):
        return
    known = {*tables["visibility"].columns["token"].to_pylist(), ""}
    source = tables["sample_annotation"]
    words = source.columns["visibility_token"].dictionary_encode()
    unknown = [i for i, word in enumerate(words.dictionary.to_pylist()) if word not in known]
    rows = np.flatnonzero(np.isin(words.indices.to_numpy(), unknown))
    if len(rows):
        where = "sample_annotation.visibility_token"
        book.add("dangling-token", where, "not in visibility.json", source.examples(rows), len(rows))


def _load(path: Path, name: str, progress: Progress) -> Table:
    schema = SCHEMAS[name]
    if name in LARGE_TABLES:
        blocks = read_large_table(path, schema, lambda block: _convert(block, name), progress, complete=False)
    else:
        try:
            blocks = [_convert(pa.Table.from_pylist(read_small_table(path, ()), schema), name)]
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"{path}: {error}") from None
    columns, wrong, rows = _join(blocks)
    tokens = columns["token"]
    return Table(name, rows, columns, wrong, None if isinstance(tokens, pa.Array) else TokenMap(tokens))


_Block = tuple[dict[str, Any], dict[str, NDArray[np.bool_]], int]


def _join(blocks: Sequence[_Block]) -> _Block:
    columns: dict[str, Any] = {}
    starts = np.cumsum([0, *(rows for _, _, rows in blocks)])
    for name, first in blocks[0][0].items():
        parts = [block[0][name] for block in blocks]
        if name.endswith(":owner"):
            parts = [part + start for part, start in zip(parts, starts, strict=False)]
        columns[name] = pa.concat_arrays(parts) if isinstance(first, pa.Array) else np.concatenate(parts)
    wrong = {name: np.concatenate([block[1][name] for block in blocks]) for name in blocks[0][1]}
    return columns, wrong, int(starts[-1])


def _convert(block: pa.Table, table: str) -> _Block:
    columns: dict[str, Any] = {}
    wrong: dict[str, NDArray[np.bool_]] = {}
    for field in SCHEMAS[table]:
        values, name = column(block, field.name), field.name
        absent = values.is_null().to_numpy(zero_copy_only=False)
        wrong[f"missing {name}"] = absent
        if name in _WORDS or (table == "visibility" and name == "token"):
            columns[name] = values.fill_null("")
        elif name.endswith("tokens"):
            columns[name], columns[f"{name}:owner"], wrong[f"malformed {name}"] = _token_lists(values)
        elif name in ("token", "prev", "next") or name.endswith("_token"):
            columns[name], malformed = try_tokens(values.fill_null(""))
            wrong[f"malformed {name}"] = malformed & ~absent
        elif name in _WIDTHS:
            wrong[f"malformed {name}"] = _malformed_vectors(values, name) & ~absent
        elif name == "camera_intrinsic":
            columns[name] = np.array([_is_intrinsic(value) for value in values.to_pylist()], bool)
        elif name in _KEPT_TEXTS:
            columns[name] = values.fill_null("")
        elif not pa.types.is_string(field.type):
            columns[name] = values.fill_null(False if pa.types.is_boolean(field.type) else 0).to_numpy(
                zero_copy_only=False
            )
    return columns, wrong, block.num_rows


def _token_lists(lists: pa.ListArray) -> tuple[TokenArray, NDArray[np.int64], NDArray[np.bool_]]:
    """Flat tokens, the record that each belongs to, and the records with a malformed one."""
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    owners = np.repeat(np.arange(len(lists)), lengths)
    tokens, bad = try_tokens(lists.flatten().fill_null(""))
    malformed = np.zeros(len(lists), bool)
    malformed[owners[bad]] = True
    return tokens, owners, malformed


def _malformed_vectors(lists: pa.ListArray, name: str) -> NDArray[np.bool_]:
    """Not the right number of finite numbers, not a unit quaternion, or a size that is not positive."""
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    good = lengths == _WIDTHS[name]
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(float)
    vectors = values[np.repeat(good, lengths)].reshape(-1, _WIDTHS[name])
    right = np.isfinite(vectors).all(axis=1)
    if name == "rotation":
        right &= np.abs(np.linalg.norm(vectors, axis=1) - 1) < _UNIT_TOLERANCE
    if name == "size":
        right &= (vectors > 0).all(axis=1)
    malformed: NDArray[np.bool_] = ~good
    malformed[np.flatnonzero(good)[~right]] = True
    return malformed


def _is_intrinsic(value: Any) -> bool:
    return isinstance(value, list) and [len(row) for row in value] == [3, 3, 3]


def _malformed(field: str) -> str:
    return {
        "rotation": "not a unit quaternion of 4 numbers",
        "size": "not 3 positive numbers",
        "translation": "not 3 finite numbers",
    }.get(field, "not a token of 32 hexadecimal digits")
