"""nuScenes tokens as numbers: 32 hexadecimal digits are one `[2]` uint64 (high, low), so that joins are sorts.

The all-zero token stands for "none" (the empty string in the tables).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from configs.errors import DataError

TokenArray = NDArray[np.uint64]

_DIGITS = 32
_BAD = 255
_NIBBLES = np.full(256, _BAD, np.uint8)
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_NIBBLES[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)


def decode_tokens(texts: pa.StringArray, where: str) -> TokenArray:
    """Strings of 32 hexadecimal digits, or empty, -> `[n, 2]`. `where` names table and field in the `DataError`."""
    tokens, wrong = try_tokens(texts)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{where}: {texts[row].as_py()!r} is not a token of 32 hexadecimal digits",
            fix="get the nuScenes tables again; other token forms are not supported",
        )
    return tokens


def try_tokens(texts: pa.StringArray) -> tuple[TokenArray, NDArray[np.bool_]]:
    """Tokens `[n, 2]`, and a mask of the strings that are none: those become the empty token."""
    tokens = np.zeros((len(texts), 2), np.uint64)
    if not len(texts):
        return tokens, np.zeros(0, bool)
    ends = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    lengths = np.diff(ends)
    wrong = (lengths != _DIGITS) & (lengths != 0)
    rows = np.flatnonzero(lengths == _DIGITS)
    if len(rows):
        data = np.frombuffer(texts.buffers()[2], np.uint8)[ends[0] : ends[-1]]
        if wrong.any():
            data = data[np.repeat(lengths == _DIGITS, lengths)]
        nibbles = _NIBBLES[data.reshape(-1, _DIGITS)]
        bad = (nibbles == _BAD).any(axis=1)
        wrong[rows[bad]] = True
        packed = (nibbles[:, 0::2] << 4) | nibbles[:, 1::2]
        tokens[rows] = packed.view(">u8")
        tokens[rows[bad]] = 0
    return tokens, wrong


def token_of(text: str) -> TokenArray | None:
    """One token as `[2]`, None when it is not one."""
    if len(text) != _DIGITS or any(_NIBBLES[ord(c) & 255] == _BAD for c in text):
        return None
    return np.frombuffer(bytes.fromhex(text), ">u8").astype(np.uint64)


def as_texts(tokens: TokenArray) -> NDArray[np.str_]:
    """`[n, 2]` -> `[n]` strings; '' for none."""
    digits = tokens.astype(">u8").tobytes().hex()
    texts = np.array([digits[i : i + _DIGITS] for i in range(0, len(digits), _DIGITS)], dtype=f"<U{_DIGITS}")
    texts[is_none(tokens)] = ""
    return texts


def is_none(tokens: TokenArray) -> NDArray[np.bool_]:
    """`[n]`: True for the empty token."""
    none: NDArray[np.bool_] = ~tokens.any(axis=1)
    return none


class TokenMap:
    """Finds the row of a token among `[n, 2]` by binary search."""

    def __init__(self, tokens: TokenArray) -> None:
        self.order = np.lexsort((tokens[:, 1], tokens[:, 0]))
        self._sorted = tokens[self.order]

    def rows(self, wanted: TokenArray) -> NDArray[np.int64]:
        """int64 `[m]` rows of `wanted` `[m, 2]`, -1 where there is none."""
        found = np.full(len(wanted), -1, np.int64)
        at = np.searchsorted(self._sorted[:, 0], wanted[:, 0])
        pending = np.arange(len(wanted))
        while len(pending):  # once, unless two tokens share their first half
            position = at[pending]
            inside = position < len(self._sorted)
            pending, position = pending[inside], position[inside]
            same_high = self._sorted[position, 0] == wanted[pending, 0]
            pending, position = pending[same_high], position[same_high]
            same = self._sorted[position, 1] == wanted[pending, 1]
            found[pending[same]] = self.order[position[same]]
            pending = pending[~same]
            at[pending] += 1
        return found

    def duplicates(self) -> NDArray[np.int64]:
        """Rows whose token stands at another row before."""
        equal = (self._sorted[1:] == self._sorted[:-1]).all(axis=1)
        repeated: NDArray[np.int64] = self.order[1:][equal]
        return repeated
