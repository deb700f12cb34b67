"""`bevnext-sam2 data index`."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from scenes.command_options import data_set_options, index_dir_option, say_if_synthetic
from scenes.index import SceneIndex, build_index, open_index


@click.command()
@data_set_options
@index_dir_option
def index(data_root: Path, version: str, index_dir: Path | None) -> None:
    """Build the index that loading reads, from the nuScenes tables.

    An earlier index stays in place until the new one is whole. Exit codes: 0 done, 1 it could not be written,
    3 the tables are missing or damaged.
    """
    say_if_synthetic(version)
    directory = build_index(data_root, version, index_dir)
    show_index(open_index(data_root, version, index_dir), directory)


def show_index(built: SceneIndex, directory: Path) -> None:
    """What an index holds, and where it is."""
    header = built.header
    table = Table(title=f"index of {built.version}", title_justify="left")
    table.add_column("")
    table.add_column("records", justify="right")
    for name, count in header.counts.model_dump().items():
        table.add_row(name, f"{count:,}")
    for split, samples in header.splits.items():
        table.add_row(f"split {split}", f"{samples:,} samples")
    size = sum(file.bytes for file in header.files.values())
    table.add_row("size", f"{size / 1e6:,.1f} MB")
    Console().print(table)
    click.echo(f"written to {directory}")
