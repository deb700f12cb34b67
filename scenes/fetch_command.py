"""`bevnext-sam2 data fetch`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from configs.download import ProgressHook, download, progress_bar
from configs.errors import BevnextError, UsageError
from scenes.archives import Archive, archives_at, check_digest, digests, keep_record, recorded, unpack
from scenes.checks.downloads import NEEDS, PUBLISHED, archives_of

PAGE: Final = "https://www.nuscenes.org/nuscenes#download"
TERMS: Final = "https://www.nuscenes.org/terms-of-use"


@click.command()
@click.argument("links", nargs=-1, metavar="LINK...")
@click.option(
    "--list",
    "list_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Links, one a line; keeps them out of the shell's history.",
)
@click.option("--mirror", metavar="URL", help="Get the archives of --version and --family by their names from here.")
@click.option("--version", type=click.Choice(PUBLISHED), default="v1.0-trainval", show_default=True)
@click.option("--family", type=click.Choice(list(NEEDS)), help="Name the archives that these recipes read.")
@click.option(
    "--data-root",
    "--data-path",
    "data_root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data/nuscenes"),
    show_default=True,
    metavar="DIR",
    help="Where the data set is unpacked.",
)
@click.option("--accept-licence", is_flag=True, help=f"You have accepted the terms of the data set ({TERMS}).")
@click.option("--keep-archives", is_flag=True, help="Keep an archive once it is unpacked.")
def fetch(
    links: tuple[str, ...],
    list_file: Path | None,
    mirror: str | None,
    version: str,
    family: str | None,
    data_root: Path,
    accept_licence: bool,
    keep_archives: bool,
) -> None:
    """Get archives of a data set, verify them, unpack them into the data root, and remove them.

    nuScenes shows its links and the MD5 of each archive after a login; add it as LINK#md5=... (or #sha256=...). Both
    digests are recorded in <data root>/archives. What was cut short goes on where it stopped, also with a new link of
    the same archive; what is unpacked is not fetched again.

    With --family and neither links nor --mirror, the names of the archives are shown, and nothing is fetched.

    Exit codes: 0 done, 1 the download failed or there is no room (the same command goes on), 2 wrong option or link,
    3 a damaged archive, or not the one that was promised.
    """
    wanted = [*links, *_listed(list_file), *_named(mirror, version, family)]
    if not wanted and family:
        _show_names(version, family, data_root)
        return
    if not wanted:
        raise UsageError(
            "no link is given", fix=f"copy links from {PAGE} (after a login), or give --family to see which are needed"
        )
    archives = archives_at(wanted)
    if not accept_licence:
        raise UsageError(
            "the data set has a licence of its own (nuScenes: not for commercial use)",
            fix=f"read {TERMS}, then add --accept-licence",
        )
    for archive in archives:
        _get(archive, data_root, keep_archives)


def _listed(path: Path | None) -> Iterator[str]:
    """The lines of a file; empty ones and those that begin with # do not count."""
    for line in path.read_text(encoding="utf-8").splitlines() if path else ():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


def _named(mirror: str | None, version: str, family: str | None) -> Iterator[str]:
    if mirror is None:
        return
    if family is None:
        raise UsageError("--mirror needs --family", fix=f"add --family {'|'.join(NEEDS)}")
    for name in archives_of(version, family):
        yield f"{mirror.rstrip('/')}/{name}"


def _show_names(version: str, family: str, data_root: Path) -> None:
    for name in archives_of(version, family):
        here = Archive("", name, "").record_in(data_root).is_file()
        click.echo(f"{name}  {'unpacked' if here else 'not here'}")
    click.echo(f"links: {PAGE}, after a login; `data fetch LINK... --data-root {data_root}` gets them", err=True)


def _get(archive: Archive, data_root: Path, keep: bool) -> None:
    if recorded(archive, data_root):
        click.echo(f"{archive.name}: unpacked before")
        return
    path = archive.file_in(data_root)
    if not path.is_file():
        with progress_bar(archive.name) as on_progress:
            download(archive.address, path, _with_room(path, on_progress))
    with progress_bar(f"{archive.name}: verify") as on_progress:
        found = digests(path, on_progress)
    check_digest(archive, path, found)
    promised = "as promised" if archive.digest else "recorded; nobody has promised one"
    click.echo(f"{archive.name}: md5 {found['md5']}, sha256 {found['sha256']} ({promised})")
    with progress_bar(f"{archive.name}: unpack") as on_progress:
        files = unpack(path, data_root, on_progress)
    keep_record(archive, data_root, found, path.stat().st_size, files)
    if not keep:
        path.unlink()
    click.echo(f"{archive.name}: {files:,} files in {data_root}")


def _with_room(path: Path, on_progress: ProgressHook) -> ProgressHook:
    """Refuse what will not fit before it is fetched: images and point clouds take as much room as their archive."""
    asked = False

    def look(here: int, total: int | None) -> None:
        nonlocal asked
        if total is not None and not asked:
            asked, needed, free = True, 2 * total - here, shutil.disk_usage(path.parent).free
            if needed > free:
                raise BevnextError(
                    f"{path.name} and what it holds need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
                    fix=f"make room in {path.parent.parent}, or give another --data-root",
                )
        on_progress(here, total)

    return look
