"""Options that the `data` commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from configs.remote_location import DataRoot

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_ROOT: Final = Path("data/synthetic")
DEFAULT_VERSION: Final = "v1.0-synthetic"
SYNTHETIC_NOTICE: Final = "note: this is the synthetic driving set, not nuScenes"


def data_set_options(command: Command) -> Command:
    """`--data-root` and `--version`."""
    command = click.option(
        "--version",
        default=DEFAULT_VERSION,
        show_default=True,
        help="Version of the data set: the name of the folder with its tables.",
    )(command)
    return click.option(
        "--data-root",
        "--data-path",
        "data_root",
        type=DataRoot(),
        default=DEFAULT_ROOT,
        show_default=True,
        metavar="DIR|s3://...",
        help="Root of a data set in nuScenes format.",
    )(command)


def index_dir_option(command: Command) -> Command:
    """`--index-dir`."""
    return click.option(
        "--index-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Parent of the index, for data that cannot be written to. Default: BEVNEXT_SAM2_INDEX_DIR, "
        "or <data root>/index.",
    )(command)


def say_if_synthetic(version: str) -> None:
    """Tell the user, on standard error, that these data are not real."""
    if version == DEFAULT_VERSION:
        click.echo(SYNTHETIC_NOTICE, err=True)
