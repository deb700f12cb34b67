"""Which data set a run reads, and what must be made before it can: all from the file system and the index header."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from configs.class_balance import resampled_counts
from configs.errors import DataError, UsageError
from configs.index_location import HEADER, index_directory
from configs.nuscenes import TABLES
from configs.remote_location import MARKER, remote_address
from configs.schema import DataConfig
from configs.synthetic_set import SYNTHETIC_ROOT, SYNTHETIC_SIZE, SYNTHETIC_VERSION

SYNTHETIC_SAMPLES: Final = {"synthetic_train": 256, "synthetic_val": 64}
"""What is in the set that is made on demand: the last fifth of the scenes is held out."""


@dataclass(frozen=True, slots=True)
class DataChoice:
    """A data set; paths are absolute."""

    root: Path
    version: str
    index_dir: Path | None
    origin: str
    """Who chose it."""
    made_on_demand: bool
    """The default synthetic set: missing, it is made."""

    @property
    def is_synthetic(self) -> bool:
        """The data are made by this project, not recorded."""
        return "synthetic" in self.version

    @property
    def header(self) -> Path:
        """Header of its index."""
        return index_directory(self.root, self.version, self.index_dir) / HEADER

    def options(self) -> list[str]:
        """The data set as options of our commands."""
        index = [] if self.index_dir is None else ["--index-dir", str(self.index_dir)]
        return ["--data-root", str(self.root), "--version", self.version, *index]


@dataclass(frozen=True, slots=True)
class Preparation:
    """A command of ours that must run before training."""

    reason: str
    arguments: tuple[str, ...]


def choose_data(root: Path | None, version: str | None, index_dir: Path | None, recipe_version: str) -> DataChoice:
    """The data set of the options; without `--data-root` the synthetic one, whatever the recipe says.

    Raises:
        UsageError: a recorded version without the folder that holds it.
    """
    index = None if index_dir is None else absolute(index_dir)
    if root is None:
        if version not in (None, SYNTHETIC_VERSION):
            raise UsageError(
                f"--version {version}: no --data-root is given, and the default data set is {SYNTHETIC_VERSION}",
                fix=f"name the folder that holds {version} with --data-root",
            )
        origin = "default: no --data-root given"
        return DataChoice(absolute(SYNTHETIC_ROOT), SYNTHETIC_VERSION, index, origin, made_on_demand=True)
    return DataChoice(absolute(root), version or recipe_version, index, "option --data-root", made_on_demand=False)


def absolute(path: Path) -> Path:
    """The path from the root of the file system, symbolic links kept."""
    return Path(os.path.abspath(path))  # noqa: PTH100  Path.absolute keeps "..", Path.resolve follows links


def preparations(data: DataChoice) -> list[Preparation]:
    """What is missing of the data set, in the order in which to make it.

    Raises:
        DataError: the data set is not there, not whole, or of another version.
    """
    index = ("data", "index", *data.options())
    if data.made_on_demand and not (data.root / data.version).is_dir():
        synth = Preparation(
            "the synthetic set is not there", ("data", "synth", "--out", str(data.root), *SYNTHETIC_SIZE)
        )
        return [synth, Preparation("a new set needs an index", index)]
    address = remote_address(data.root)
    if address is not None and not (data.root / MARKER).is_file():
        mirror = Preparation(f"the tables of {address} are not here yet", ("data", "mirror", address))
        return [mirror, Preparation("a new set needs an index", index)]
    problem = index_problem(data)
    if problem is None:
        return []
    _check_tables(data)
    return [Preparation(problem, index)]


def index_problem(data: DataChoice) -> str | None:
    """Why the index must be made (again); `None` when it is that of the tables."""
    if not data.header.is_file():
        return f"there is no index in {data.header.parent}"
    try:
        header = read_header(data)
        stamps = {name: (stamp["bytes"], stamp["mtime_ns"]) for name, stamp in header["fingerprint"].items()}
        header["splits"], header["class_frames"]
    except (DataError, KeyError, TypeError, AttributeError):
        return f"the index in {data.header.parent} is damaged or of an older program"
    for name, stamp in stamps.items():
        table = data.root / data.version / name
        if not table.is_file() or (table.stat().st_size, table.stat().st_mtime_ns) != stamp:
            return f"{table} has changed since the index was made"
    return None


def epoch_samples(data: DataChoice, config: DataConfig) -> int:
    """Samples of one epoch of the training split, after class balancing where the recipe asks for it.

    Raises:
        DataError: the index cannot be read.
        UsageError: the index knows no such split.
    """
    header = read_header(data)
    splits = header["splits"]
    if config.train_split not in splits:
        raise UsageError(
            f"{data.root} ({data.version}) has no split {config.train_split!r}",
            fix=f"set data.train_split to one of {', '.join(splits)}",
        )
    if config.class_balanced:
        return sum(resampled_counts(header["class_frames"][config.train_split]))
    return int(splits[config.train_split])


def read_header(data: DataChoice) -> dict[str, Any]:
    """The index header as plain JSON. Raises `DataError` when it cannot be read."""
    try:
        content = json.loads(data.header.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{data.header}: {error}", fix="make the index again: bevnext-sam2 data index") from error
    if not isinstance(content, dict):
        raise DataError(f"{data.header} is not an index header", fix="make the index again: bevnext-sam2 data index")
    return content


def _check_tables(data: DataChoice) -> None:
    """Raise the `DataError` that fits what is there instead of the tables."""
    folder = data.root / data.version
    if not data.root.is_dir():
        raise DataError(
            f"--data-root {data.root}: no such folder",
            fix="correct the path, or leave --data-root out to work on the synthetic set",
        )
    if not folder.is_dir():
        versions = sorted(path.name for path in data.root.glob("v1.0-*") if path.is_dir())
        raise DataError(
            f"{data.root} holds no {data.version}" + (f", but {', '.join(versions)}" if versions else ""),
            fix=f"use --version {versions[0]}" if versions else "name the folder above `v1.0-...` and `samples`",
        )
    missing = [f"{table}.json" for table in TABLES if not (folder / f"{table}.json").is_file()]
    if missing:
        raise DataError(
            f"{folder} lacks {', '.join(missing)}",
            fix=f"unpack the metadata again; `bevnext-sam2 data check --data-root {data.root}` lists every fault",
        )
