"""Tables of the nuImages schema v1.0: images, the masks of their objects, and amodal 2D boxes.

nuImages itself, and what `sam2 label` writes, which makes labels of one SAM 2 the training data of another. Tables are
read record by record and kept as flat arrays, so that loader processes share them.

Shape legend: M images, K objects with a mask, H W image.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco
from torch import Tensor

from configs.errors import DataError, UsageError
from configs.nuscenes import CLASS_OF_CATEGORY, CLASSES

OBJECTS: Final = "object_ann.json"
_FIX: Final = "unpack the tables again (nuImages), or make them again (`bevnext-sam2 sam2 label`)"


@dataclass(frozen=True, slots=True)
class ImageObjects:
    """The k objects of one image that have a mask."""

    path: Path
    size: tuple[int, int]
    """Height, width."""
    masks: Tensor
    """bool `[k, H, W]`: visible pixels."""
    boxes: Tensor
    """float32 `[k, 4]`: left, top, right, bottom of the whole object, hidden parts included."""
    labels: Tensor
    """int64 `[k]`: index into `configs.nuscenes.CLASSES`, -1 for categories outside the detection task."""


class NuImages:
    """The key frames of one set of tables.

    Args:
        root: holds the tables' folder and the images.
        version: name of the tables' folder, as `v1.0-train`.

    Raises:
        DataError: tables that are missing, damaged, or do not fit together.
    """

    def __init__(self, root: Path, version: str) -> None:
        self.root = root
        folder = root / version
        images = [record for record in _records(folder / "sample_data.json") if _field(record, "is_key_frame", folder)]
        self._names = [str(_field(record, "filename", folder)) for record in images]
        self._sizes = np.array([[record["height"], record["width"]] for record in images], np.int64).reshape(-1, 2)
        place = {record["token"]: number for number, record in enumerate(images)}
        names = {record["token"]: record["name"] for record in _records(folder / "category.json")}
        labels = {token: _label(name) for token, name in names.items()}
        rows = [_object(record, place, labels, folder) for record in _records(folder / OBJECTS) if record.get("mask")]
        order = np.argsort([row.image for row in rows], kind="stable")
        rows = [rows[number] for number in order]
        self._first = np.searchsorted([row.image for row in rows], np.arange(len(images) + 1))
        self._labels = np.array([row.label for row in rows], np.int64)
        self._boxes = np.array([row.box for row in rows], np.float32).reshape(-1, 4)
        self._mask_sizes = np.array([row.size for row in rows], np.int64).reshape(-1, 2)
        ends = np.cumsum([0, *(len(row.counts) for row in rows)])
        self._runs, self._run_ends = np.frombuffer(b"".join(row.counts for row in rows), np.uint8), ends

    def __len__(self) -> int:
        """M"""
        return len(self._names)

    def __getitem__(self, number: int) -> ImageObjects:
        """One image's objects. Raises `DataError` for masks that are damaged or of another size than the image."""
        chosen = slice(*self._first[number : number + 2].tolist())
        size = tuple(self._sizes[number].tolist())
        path = self.root / self._names[number]
        if (self._mask_sizes[chosen] != self._sizes[number]).any():
            raise DataError(f"{OBJECTS}: a mask of {path} is not of the image's size {size}", fix=_FIX)
        masks = [self._mask(place, path) for place in range(chosen.start, chosen.stop)]
        stacked = np.stack(masks) if masks else np.zeros((0, *size), np.bool_)
        return ImageObjects(
            path=path,
            size=size,
            masks=torch.from_numpy(stacked),
            boxes=torch.from_numpy(self._boxes[chosen].copy()),
            labels=torch.from_numpy(self._labels[chosen].copy()),
        )

    def _mask(self, place: int, path: Path) -> NDArray[np.bool_]:
        counts = self._runs[self._run_ends[place] : self._run_ends[place + 1]].tobytes()
        try:
            found = coco.decode({"size": self._mask_sizes[place].tolist(), "counts": counts})
        except ValueError as error:
            raise DataError(f"{OBJECTS}: a mask of {path} is damaged ({error})", fix=_FIX) from error
        return np.asarray(found, np.bool_)


def find_tables(root: Path, version: str | None, usual: str) -> str:
    """The folder of nuImages tables to read.

    Args:
        version: as asked for; `None` takes `usual` if it is there, else the only one there is.

    Raises:
        UsageError: it is not there, or several are.
    """
    there = sorted(path.parent.name for path in root.glob(f"*/{OBJECTS}"))
    if not there:
        raise UsageError(
            f"{root} holds no nuImages tables (no */{OBJECTS})",
            fix="unpack nuImages there, or give the `nuimages` folder of what `sam2 label` wrote",
        )
    wanted = version or (usual if usual in there else there[0] if len(there) == 1 else None)
    if wanted not in there:
        fault = "holds several sets of tables" if wanted is None else f"holds no tables {wanted}"
        raise UsageError(f"{root} {fault}", fix=f"name one with --version: {', '.join(there)}")
    return wanted


@dataclass(frozen=True, slots=True)
class _ObjectRow:
    image: int
    label: int
    box: list[float]
    size: list[int]
    counts: bytes


def _object(record: Mapping[str, Any], place: Mapping[str, int], labels: Mapping[str, int], folder: Path) -> _ObjectRow:
    try:
        return _ObjectRow(
            image=place[record["sample_data_token"]],
            label=labels[record["category_token"]],
            box=[float(value) for value in record["bbox"]],
            size=[int(length) for length in record["mask"]["size"]],
            counts=base64.b64decode(record["mask"]["counts"], validate=True),
        )
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        token = record.get("token")
        raise DataError(f"{folder / OBJECTS}: record {token!r} does not fit the schema: {error!r}", fix=_FIX) from error


def _label(category: str) -> int:
    name = CLASS_OF_CATEGORY.get(category)
    return -1 if name is None else CLASSES.index(name)


def _field(record: Mapping[str, Any], name: str, folder: Path) -> Any:
    if name not in record:
        raise DataError(f"{folder / 'sample_data.json'}: a record lacks the field {name!r}", fix=_FIX)
    return record[name]


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a JSON array, one by one: the text of a large table stands in memory, its records do not."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"table {path} is missing", fix=_FIX) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error})", fix=_FIX) from None
    decoder, at = json.JSONDecoder(), _after_space(text, 0)
    if text[at : at + 1] != "[":
        raise DataError(f"{path}: not a JSON array of records", fix=_FIX)
    at = _after_space(text, at + 1)
    while text[at : at + 1] != "]":
        try:
            record, at = decoder.raw_decode(text, at)
        except ValueError as error:
            raise DataError(f"{path}: not valid JSON ({error})", fix=_FIX) from None
        if not isinstance(record, dict):
            raise DataError(f"{path}: not a JSON array of records", fix=_FIX)
        yield record
        at = _after_space(text, at)
        if text[at : at + 1] == ",":
            at = _after_space(text, at + 1)


def _after_space(text: str, at: int) -> int:
    while text[at : at + 1].isspace():
        at += 1
    return at
