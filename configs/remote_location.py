"""Where a data set on an object store lies on this machine: a mirror that fills as files are read. No network here.

`s3://bucket/folder` is mirrored in `<cache>/s3/bucket/folder`; the cache is `data/remote`, or what the environment
variable `BEVNEXT_SAM2_REMOTE_CACHE` says. `scenes.remote_root` fills it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Final

import click

from configs.errors import UsageError

CACHE_VARIABLE: Final = "BEVNEXT_SAM2_REMOTE_CACHE"
DEFAULT_CACHE: Final = Path("data/remote")
MARKER: Final = "mirror_of.txt"
"""In a mirror whose tables are there; holds the address."""
_ADDRESS: Final = re.compile(r"s3:/{1,2}(?P<path>[^/]+(/.+?)?)/*")
"""One slash where a `Path` has swallowed the other."""


def mirror_cache() -> Path:
    """The folder of all mirrors, absolute."""
    return Path(os.path.abspath(os.environ.get(CACHE_VARIABLE) or DEFAULT_CACHE)) / "s3"  # noqa: PTH100  keeps links


def remote_address(root: Path | str) -> str | None:
    """The address `s3://...` that a data root names or mirrors; `None` for a folder of this machine.

    Raises:
        UsageError: an address without a bucket.
    """
    text = str(root)
    if not text.startswith("s3:"):
        inside = Path(text).is_relative_to(mirror_cache())
        return f"s3://{Path(text).relative_to(mirror_cache()).as_posix()}" if inside else None
    found = _ADDRESS.fullmatch(text)
    if found is None or ".." in found["path"].split("/"):
        raise UsageError(f"{text!r} is no place on S3", fix="write s3://BUCKET/FOLDER")
    return f"s3://{found['path']}"


def mirror_folder(address: str) -> Path:
    """Where the data set at `s3://...` lies on this machine."""
    return mirror_cache() / address.removeprefix("s3://")


class DataRoot(click.Path):
    """An option for a data root: a folder, or `s3://BUCKET/FOLDER`, which becomes the folder of its mirror."""

    name = "data root"

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The folder."""
        address = remote_address(value) if str(value).startswith("s3:") else None
        return super().convert(value, param, ctx) if address is None else mirror_folder(address)
