"""`bevnext-sam2 checkpoints`: published weights, from their publisher to a file that a recipe can name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from configs.download import download, progress_bar
from configs.errors import DataError, UsageError
from configs.published_weights import (
    FOLDER_VARIABLE,
    PublishedFile,
    converted_file,
    published_file,
    published_files,
    record_file,
    verify,
    weights_folder,
)

Command = Callable[..., Any]

FETCHED: Final = "fetched"
CONVERTED: Final = "ready"
ABSENT: Final = "not here"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one entry of the zoo lies."""

    name: str
    file: PublishedFile
    original: Path
    converted: Path

    def state(self) -> str:
        """How far it has come."""
        if self.converted.is_file():
            return CONVERTED
        return FETCHED if self.original.is_file() else ABSENT


def place_of(name: str, folder: Path | None) -> Place:
    """Raises `UsageError` for a name that is not in the zoo."""
    file = published_file(name)
    return Place(name, file, weights_folder(folder) / file.file_name, converted_file(name, folder))


def folder_option(command: Command) -> Command:
    """`--folder`."""
    return click.option(
        "--folder",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help=f"Where weights lie. Default: ${FOLDER_VARIABLE}, else ./checkpoints.",
    )(command)


@click.group()
def checkpoints() -> None:
    """Published weights: list, fetch, convert, check.

    Recipes and options take their names, such as `--checkpoint bevnext-stage2`. Exit codes: 0 done, 1 the download
    failed (the same command goes on with it), 2 unknown name or weights that do not fit, 3 a damaged file.
    """


@checkpoints.command("list")
@folder_option
@click.option("--json", "as_json", is_flag=True, help="Print addresses, pages and licences as well, as JSON.")
def list_command(folder: Path | None, as_json: bool) -> None:
    """What is known, what is here, and what was published about it."""
    places = [place_of(name, folder) for name in published_files()]
    if as_json:
        rows = [{"name": p.name, "state": p.state(), **p.file.model_dump(exclude_none=True)} for p in places]
        click.echo(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_lines=True)
    table.add_column("name", no_wrap=True)
    for column in ("what", "published", "state"):
        table.add_column(column, overflow="fold")
    for place in places:
        figures = "\n".join(f"{name} {value:g}" for name, value in place.file.metrics.items())
        table.add_row(place.name, place.file.summary, figures or "-", place.state())
    Console().print(table)


@checkpoints.command("fetch")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@folder_option
@click.option("--address", metavar="URL", help="Get it from here instead, such as a mirror; for one NAME.")
def fetch_command(names: tuple[str, ...], folder: Path | None, address: str | None) -> None:
    """Download, verify, convert to safetensors, and check that it fits its recipe.

    A file that is here already is used. A download that was cut short goes on where it stopped. The SHA-256 is recorded
    with the first fetch, and compared with the publisher's where there is one; later it must be the same.
    """
    if address is not None and len(names) > 1:
        raise UsageError("--address is the address of one file", fix="fetch one NAME at a time")
    for place in [place_of(name, folder) for name in names]:
        if place.original.is_file() or place.converted.is_file():
            click.echo(f"{place.name}: {place.original if place.original.is_file() else place.converted} is here")
        else:
            click.echo(f"{place.name}: {place.file.summary}\n  licence: {place.file.licence}")
            with progress_bar(place.file.file_name) as on_progress:
                download(address or place.file.address, place.original, on_progress)
        make_ready(place)


@checkpoints.command("convert")
@click.argument("name")
@folder_option
def convert_command(name: str, folder: Path | None) -> None:
    """Convert a file that was put into the folder by hand, under its published name, to safetensors."""
    place = place_of(name, folder)
    if place.state() == ABSENT:
        raise UsageError(
            f"{place.original} is not there", fix=f"bevnext-sam2 checkpoints fetch {name}, or put the file there"
        )
    make_ready(place)


@checkpoints.command("check")
@click.argument("weights", metavar="NAME|FILE")
@folder_option
@click.option("--config", metavar="RECIPE", help="The recipe whose network it should fit. Default: that of NAME.")
@click.option("--backbone", is_flag=True, help="Look at the image backbone alone.")
def check_command(weights: str, folder: Path | None, config: str | None, backbone: bool) -> None:
    """Verify the SHA-256, and compare names and shapes with the network of a recipe."""
    from checkpoints.conversion import check_fit

    path, recipe = Path(weights), config
    if not path.is_file() or weights in published_files():
        place = place_of(weights, folder)
        if place.state() == ABSENT:
            raise UsageError(f"{weights} is not in {weights_folder(folder)}", fix=f"checkpoints fetch {weights}")
        path, recipe = _verified(place), config or place.file.recipe
        backbone = backbone or place.file.fits == "backbone"
    if recipe is None:
        raise UsageError(f"{path}: the network that it should fit is not named", fix="give --config RECIPE")
    fit = check_fit(path, recipe, backbone)
    click.echo(f"{path} fits {'the image backbone' if backbone else 'the network'} of {recipe}: {fit.entries} entries")


def make_ready(place: Place) -> None:
    """Verify what is here, convert it unless that was done, and check that it fits."""
    from checkpoints.conversion import check_fit, convert

    path = _verified(place)
    fit = check_fit(path, place.file.recipe, backbone_only=place.file.fits == "backbone")
    if fit.entries != place.file.entries:
        raise UsageError(
            f"{place.file.recipe} takes {fit.entries} entries, the zoo says {place.file.entries}",
            fix="the recipe of that name was changed; use the project's own",
        )
    if not place.converted.is_file():
        convert(fit.file, place.converted)
    beside = f" (left aside: {', '.join(fit.file.beside)})" if fit.file.beside else ""
    click.echo(f"  fits {place.file.recipe}: {fit.entries} entries{beside}\n  ready: {place.converted}")


def _verified(place: Place) -> Path:
    """The original where it is here, else the converted file; as it was recorded, or recorded now."""
    found = None
    for path in (place.converted, place.original):
        if path.is_file():
            found, first = path, not record_file(path).is_file()
            known = verify(path)
            if path == place.original:
                _compare(place, known)
                click.echo(f"  SHA-256 {known} ({'recorded' if first else 'as recorded'})")
    assert found is not None
    return found


def _compare(place: Place, known: str) -> None:
    wanted = place.file.sha256_prefix
    if wanted is not None and not known.startswith(wanted):
        raise DataError(
            f"{place.original} has SHA-256 {known[:16]}..., its publisher's begins with {wanted}",
            fix=f"remove it with {record_file(place.original).name} and fetch it again",
        )
