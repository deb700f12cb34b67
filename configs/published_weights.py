"""The published weights that the project knows by name (`checkpoints/zoo.yaml`), and where they lie. No torch.

A folder holds, for each file, the original as it was published, the same converted to safetensors, and beside each its
SHA-256 as it was seen first, in the format of `sha256sum`.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

import yaml
from pydantic import Field, ValidationError

from configs.errors import DataError, UsageError
from configs.schema import Section

ZOO: Final = Path(__file__).resolve().parents[1] / "checkpoints" / "zoo.yaml"
FOLDER_VARIABLE: Final = "BEVNEXT_SAM2_CHECKPOINTS"
_PIECE: Final = 1 << 20


class PublishedFile(Section):
    """One entry of `zoo.yaml`. What its publisher does not state is absent."""

    summary: str
    address: str
    page: str
    """Where the publisher names the address."""
    licence: str
    fits: Literal["detector", "backbone", "segmenter"]
    """The network that the file holds: a whole detector, an image backbone among other things, or a SAM 2."""
    recipe: str
    """The recipe whose network it fits; for a SAM 2 its configuration, behind `sam2/`."""
    entries: int
    """Entries that this network takes from it."""
    metrics: dict[str, float] = Field({})
    """Published figures, such as NDS and mAP on the validation split."""
    sha256_prefix: str | None = None
    """First digits of the file's SHA-256, where the publisher put them into its name."""

    @property
    def file_name(self) -> str:
        """The name under which it is published, and kept."""
        return unquote(urlsplit(self.address).path.rsplit("/", 1)[-1])


@cache
def published_files() -> dict[str, PublishedFile]:
    """All entries by name. Raises `UsageError` that names what is wrong in `zoo.yaml`."""
    try:
        content = yaml.safe_load(ZOO.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UsageError(f"{ZOO} is not YAML: {error}", fix="correct the file") from error
    if not isinstance(content, dict):
        raise UsageError(f"{ZOO} holds no entries", fix="write NAME: and under it the fields of the file")
    return {str(name): _entry(str(name), fields) for name, fields in content.items()}


def _entry(name: str, fields: object) -> PublishedFile:
    try:
        return PublishedFile.model_validate(fields)
    except ValidationError as error:
        mistakes = [".".join([name, *map(str, one["loc"])]) + f": {one['msg']}" for one in error.errors()]
        known = ", ".join(PublishedFile.model_fields)
        raise UsageError(f"{ZOO}: {'; '.join(mistakes)}", fix=f"correct the entry; its fields are {known}") from error


def published_file(name: str) -> PublishedFile:
    """The entry of that name. Raises `UsageError` that names the closest one."""
    files = published_files()
    if name in files:
        return files[name]
    close = difflib.get_close_matches(name, files, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UsageError(f"no published weights are known as {name!r}", fix=f"{hint}known: {', '.join(files)}")


def weights_folder(folder: Path | None = None) -> Path:
    """`folder`, else the environment variable `BEVNEXT_SAM2_CHECKPOINTS`, else `checkpoints`."""
    return folder or Path(os.environ.get(FOLDER_VARIABLE) or "checkpoints")


def converted_file(name: str, folder: Path | None = None) -> Path:
    """Where the safetensors of published weights lie."""
    return weights_folder(folder) / f"{name}.safetensors"


def weights_path(name_or_file: str | Path) -> Path:
    """The file that a recipe or an option names: a published name, or a path.

    Raises:
        UsageError: neither; or published weights that were not fetched yet.
        DataError: the file is not the one that was fetched.
    """
    path = Path(name_or_file)
    if path.is_file():
        return path
    if str(name_or_file) not in published_files():
        raise UsageError(
            f"weights file not found: {path}",
            fix=f"check the path, or use a name of `bevnext-sam2 checkpoints list` ({', '.join(published_files())})",
        )
    name = str(name_or_file)
    converted = converted_file(name)
    if not converted.is_file():
        raise UsageError(
            f"the published weights {name} are not in {converted.parent}",
            fix=f"bevnext-sam2 checkpoints fetch {name}",
        )
    verify(converted)
    return converted


# --- digests -------------------------------------------------------------------------------------------------------


def digest(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.hexdigest()


def record_file(path: Path) -> Path:
    """Where the SHA-256 of `path` is kept."""
    return path.with_name(f"{path.name}.sha256")


def record(path: Path) -> str:
    """Keep the SHA-256 of `path` as it is now."""
    found = digest(path)
    record_file(path).write_text(f"{found}  {path.name}\n", encoding="utf-8")
    return found


def recorded(path: Path) -> str | None:
    """The SHA-256 that was kept, if any."""
    kept = record_file(path)
    return kept.read_text(encoding="utf-8").split()[0] if kept.is_file() else None


def verify(path: Path) -> str:
    """The SHA-256 of `path`, which is the one that was kept; one without is kept from now on.

    Raises:
        DataError: the file has changed since.
    """
    kept = recorded(path)
    if kept is None:
        return record(path)
    found = digest(path)
    if found != kept:
        raise DataError(
            f"{path} has SHA-256 {found[:16]}..., recorded was {kept[:16]}...: it is damaged or was replaced",
            fix=f"remove it and fetch it again; to accept it as it is, remove {record_file(path)}",
        )
    return found
