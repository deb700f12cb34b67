"""Archives of a data set: what they are called, what they should hold, and unpacking them.

nuScenes hands its archives out after a login, by links that carry a signature and run out. So links come from the user,
each with the MD5 that the publisher's page shows beside it: `https://.../v1.0-mini.tgz?Signature=...#md5=0123...`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from configs.download import ProgressHook
from configs.errors import DataError, UsageError
from configs.replaced_file import replace_text

FOLDER: Final = "archives"
"""In a data root: archives on their way, and what is known about those that are unpacked."""
ENDINGS: Final = (".tgz", ".tar.gz", ".tar")
_DIGEST: Final = re.compile(r"(md5=[0-9a-f]{32}|sha256=[0-9a-f]{64})?")
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Archive:
    """One archive and where it comes from; `digest` is `md5=...`, `sha256=...`, or empty where nobody named one."""

    address: str
    name: str
    digest: str

    @classmethod
    def at(cls, link: str) -> Archive:
        """Read a link. Raises `UsageError` where it names no archive."""
        address, _, digest = link.strip().partition("#")
        parts = urlsplit(address)
        name = unquote(parts.path.rsplit("/", 1)[-1])
        if parts.scheme not in ("http", "https") or not name.endswith(ENDINGS) or "/" in name:
            raise UsageError(
                f"{address.partition('?')[0]!r} is no link to an archive",
                fix=f"copy the link of a {', '.join(ENDINGS)} file from the publisher's page, in quotes",
            )
        if not _DIGEST.fullmatch(digest.lower()):
            raise UsageError(f"{name}: '#{digest}' is no digest", fix="write #md5=... or #sha256=..., or leave it out")
        return cls(address, name, digest.lower())

    def file_in(self, data_root: Path) -> Path:
        """Where it is downloaded to."""
        return data_root / FOLDER / self.name

    def record_in(self, data_root: Path) -> Path:
        """What is written when it is unpacked."""
        return data_root / FOLDER / f"{self.name}.json"


def archives_at(links: Iterable[str]) -> list[Archive]:
    """All of them. Raises `UsageError` where two have one name."""
    archives = [Archive.at(link) for link in links]
    names = [archive.name for archive in archives]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"there are two links to {', '.join(sorted(twice))}", fix="leave one out")
    return archives


def digests(path: Path, on_progress: ProgressHook) -> dict[str, str]:
    """MD5, which publishers name, and SHA-256, in one reading."""
    found = {"md5": hashlib.md5(usedforsecurity=False), "sha256": hashlib.sha256()}
    total, read = path.stat().st_size, 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            for digest in found.values():
                digest.update(piece)
            read += len(piece)
            on_progress(read, total)
    return {name: digest.hexdigest() for name, digest in found.items()}


def check_digest(archive: Archive, path: Path, found: dict[str, str]) -> None:
    """Raises `DataError` where the archive is not the one that was promised."""
    kind, _, wanted = archive.digest.partition("=")
    if wanted and found[kind] != wanted:
        raise DataError(
            f"{path} has {kind} {found[kind]}, promised was {wanted}: it is damaged, or another file",
            fix=f"compare with the publisher's page; rm {path}, then the same command gets it again",
        )


def unpack(path: Path, data_root: Path, on_progress: ProgressHook) -> int:
    """Unpack an archive into a data root and return how many files it held; a file is there whole or not at all.

    Raises:
        DataError: it is cut short or damaged, or holds something that would not land below the data root.
    """
    total, files = path.stat().st_size, 0
    try:
        with path.open("rb") as packed, tarfile.open(fileobj=packed, mode="r|*") as archive:
            for member in archive:
                target = data_root / _inside(member, path)
                if member.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                else:
                    _write(archive, member, target)
                    files += 1
                on_progress(packed.tell(), total)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be unpacked: {error}", fix=f"rm {path}, then the same command gets it again"
        ) from error
    return files


def _inside(member: tarfile.TarInfo, path: Path) -> PurePosixPath:
    """The member's place below the data root."""
    place = PurePosixPath(member.name)
    if place.is_absolute() or ".." in place.parts or not (member.isfile() or member.isdir()):
        raise DataError(
            f"{path} holds {member.name!r}, which is no file or folder below the data root; unpacking stopped there",
            fix="an archive of a data set holds nothing of that kind: get it from its publisher",
        )
    return place


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    content = archive.extractfile(member)
    assert content is not None  # it is a file
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.unfinished")
    with unfinished.open("wb") as file:
        shutil.copyfileobj(content, file, _PIECE)
    unfinished.replace(target)


def keep_record(archive: Archive, data_root: Path, found: dict[str, str], size: int, files: int) -> None:
    """Remember that an archive is unpacked, and which one it was, once all of it is on the disk."""
    os.sync()
    record = {"name": archive.name, "bytes": size, "files": files, **found}
    replace_text(archive.record_in(data_root), json.dumps(record, indent=1) + "\n")


def recorded(archive: Archive, data_root: Path) -> dict[str, str] | None:
    """The digests of an archive unpacked here, else `None`. Raises `DataError` where another is promised now."""
    path = archive.record_in(data_root)
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    found = {kind: str(record[kind]) for kind in ("md5", "sha256")}
    kind, _, wanted = archive.digest.partition("=")
    if wanted and found[kind] != wanted:
        raise DataError(
            f"the {archive.name} that is unpacked in {data_root} had {kind} {found[kind]}, promised is {wanted}",
            fix=f"if it was published anew: rm {path}, then the same command gets it",
        )
    return found
