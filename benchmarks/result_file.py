"""`--out` of the benchmarks: the file that a result is written to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from configs.replaced_file import replace_text

out_option: Final = click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the result to this JSON file."
)


def write_result(result: Mapping[str, Any], out: Path | None) -> None:
    """Write a result and say where, if a file was asked for."""
    if out is not None:
        replace_text(out, json.dumps(result, indent=1) + "\n")
        click.echo(f"written to {out}")
