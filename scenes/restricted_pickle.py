"""Reads pickles of plain containers and NumPy arrays without running anything that they name.

A pickle is a program: it may import and call any function. Here only the few names that rebuild an array are known;
any other makes the file refused, before anything of it is called.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from configs.errors import DataError


def _latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes. The real `_codecs.encode` could import a codec."""
    if encoding != "latin1":
        raise DataError(f"bytes in the encoding {encoding!r} are not read")
    return text.encode("latin1")


_EMPTY: Final = np.empty(0)
_KNOWN: Final[dict[tuple[str, str], Any]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
    # what NumPy itself names in a pickle, under the module names of NumPy 1 and 2
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")
        for module, name, function in (
            ("multiarray", "_reconstruct", _EMPTY.__reduce__()[0]),
            ("multiarray", "scalar", np.float64(0).__reduce__()[0]),
            ("numeric", "_frombuffer", _EMPTY.__reduce_ex__(5)[0]),
        )
    },
}


def read_pickle(path: Path) -> Any:
    """The content of a pickle of dicts, lists, tuples, numbers, texts and arrays.

    Errors: `DataError` for a file that is missing, cut off, or names anything else (which is not run).
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, path).load()
    except FileNotFoundError:
        raise DataError(f"{path}: the file is missing", fix="name an info pickle with --info") from None
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise DataError(f"{path}: not a whole pickle ({error})", fix="copy or make the file again") from None


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """The function of that name if it rebuilds an array."""
        if (module_name, global_name) not in _KNOWN:
            raise DataError(
                f"{self._path}: the pickle asks for {module_name}.{global_name}, which is not run",
                fix="only dicts, lists and NumPy arrays are read; make the info file again without other objects",
            )
        return _KNOWN[module_name, global_name]

    def persistent_load(self, pid: Any) -> Any:
        """No pickle of info files refers to objects outside itself."""
        raise pickle.UnpicklingError(f"persistent id {pid!r}")
