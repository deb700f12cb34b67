"""What a checkpoint directory holds, and how to find and verify one. The trainer writes them, evaluation reads them.

`<run>/checkpoints/step_00001234/` holds `model.safetensors` (the detector's state dict), `ema.safetensors` (its
moving average, when the recipe has one), the trainer's own files, and `manifest.json` with the SHA-256 of each.
`latest` and `best` are relative symbolic links to such a directory. No torch at import.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from configs import run_directory
from configs.errors import DataError, UsageError

MANIFEST: Final = "manifest.json"
WEIGHTS: Final = "model.safetensors"
EMA_WEIGHTS: Final = "ema.safetensors"
LATEST: Final = "latest"
BEST: Final = "best"
SCHEMA_VERSION: Final = 1


class FileEntry(BaseModel):
    """Size and digest of one file of a checkpoint."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    bytes: int


class Manifest(BaseModel):
    """`manifest.json`; the trainer may add fields of its own."""

    model_config = ConfigDict(frozen=True, extra="allow")

    schema_version: int = SCHEMA_VERSION
    step: int
    epoch: int
    recipe: str
    """Name of the recipe the weights belong to."""
    created: str
    """UTC, ISO 8601."""
    files: dict[str, FileEntry]
    metrics: dict[str, float] = {}


def step_directory_name(step: int) -> str:
    """`1234` -> `step_00001234`."""
    return f"step_{step:08d}"


def file_entry(path: Path) -> FileEntry:
    """Size and SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
            size += len(piece)
    return FileEntry(sha256=digest.hexdigest(), bytes=size)


def read_manifest(directory: Path, verify: bool = True) -> Manifest:
    """The manifest of a checkpoint directory.

    With `verify`, every file it names is read and compared with its size and SHA-256.

    Raises:
        DataError: no manifest, an unreadable one, one of another schema, or a file that differs from it.
    """
    path = directory / MANIFEST
    other = "use another checkpoint of the run (`--checkpoint step_XXXXXXXX`), or train again with `--resume auto`"
    if not path.is_file():
        raise DataError(f"{directory} is not a finished checkpoint: it has no {MANIFEST}", fix=other)
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(f"{path} cannot be read: {error.errors()[0]['msg']}", fix=other) from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema version {manifest.schema_version}, this program reads {SCHEMA_VERSION}",
            fix="use the version of the program that wrote it",
        )
    if verify:
        for name, entry in manifest.files.items():
            _verify(directory / name, entry, other)
    return manifest


def find_checkpoint(run: Path, which: str = LATEST) -> Path:
    """Directory of a checkpoint of the run directory `run`: `latest`, `best` or the name of a step directory.

    Raises:
        UsageError: `run` is not a run directory, or has no such checkpoint (those it has are named).
    """
    folder = run / run_directory.CHECKPOINTS
    if not folder.is_dir():
        raise UsageError(
            f"{run} is not a run directory: it has no {run_directory.CHECKPOINTS}/",
            fix="name a directory that `bevnext-sam2 train` made, such as outputs/<run>",
        )
    path = folder / which
    if not path.is_dir():
        finished = sorted(entry.parent.name for entry in folder.glob(f"step_*/{MANIFEST}"))
        known = ", ".join(finished) or "none yet"
        raise UsageError(f"{folder} has no checkpoint {which!r}", fix=f"choose one of: {known}")
    return path.resolve()


def _verify(path: Path, entry: FileEntry, fix: str) -> None:
    if not path.is_file():
        raise DataError(f"checkpoint file {path} is missing", fix=fix)
    found = file_entry(path)
    if found.bytes != entry.bytes:
        raise DataError(f"{path} has {found.bytes} bytes, its manifest says {entry.bytes}", fix=fix)
    if found.sha256 != entry.sha256:
        raise DataError(f"{path} is damaged: its SHA-256 is not the one in the manifest", fix=fix)
