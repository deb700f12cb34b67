"""`doctor`: the diagnosis as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from launcher.doctor.finding import Finding

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option("--quick", is_flag=True, help="Leave out what takes seconds: torch and Docker.")
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
@click.option("--data-root", "--data-path", type=FOLDER, metavar="DIR", help="Data set. Default: data/synthetic.")
@click.option(
    "--version", metavar="NAME", help="Its version. Default: v1.0-trainval, or v1.0-synthetic without a root."
)
@click.option("--index-dir", type=FOLDER, metavar="DIR", help="Where indexes lie. Default: <data root>/index.")
@click.option("--output-dir", type=FOLDER, default=Path("outputs"), show_default=True, metavar="DIR")
def doctor(
    quick: bool, as_json: bool, data_root: Path | None, version: str | None, index_dir: Path | None, output_dir: Path
) -> int:
    """Look at this machine: driver, GPUs, torch, memory, disks, packages, data, Docker. Each problem with its fix.

    Nothing is changed. Exit codes: 0 nothing fails (warnings are allowed), 1 something fails.
    """
    from launcher.dataset import absolute, choose_data
    from launcher.doctor.diagnosis import diagnose
    from launcher.doctor.finding import Level

    data = choose_data(data_root, version, index_dir, _only_version(data_root) or "v1.0-trainval")
    findings = list(diagnose(data, absolute(output_dir), quick=quick))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _show(findings)
    return 1 if any(finding.level is Level.FAIL for finding in findings) else 0


def _only_version(root: Path | None) -> str | None:
    versions = [] if root is None else [path.name for path in root.glob("v1.0-*") if path.is_dir()]
    return versions[0] if len(versions) == 1 else None


def _show(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    table = Table(box=None, pad_edge=False, header_style="bold underline")
    for name in ("check", "", "found"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        text = Text(finding.detail)
        if finding.fix:
            text.append(f"\nfix: {finding.fix}", style="bold")
        table.add_row(Text(finding.check), Text(finding.level.value, style=colours[finding.level.value]), text)
    Console(emoji=False, highlight=False).print(table)
    counts = {level: sum(finding.level.value == level for finding in findings) for level in colours}
    click.echo(", ".join(f"{count} {level}" for level, count in counts.items()))
