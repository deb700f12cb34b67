"""`bevnext-sam2 data check`."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console, Group
from rich.table import Table

from scenes.checks.report import CheckReport
from scenes.command_options import data_set_options, say_if_synthetic
from scenes.dataset_check import check_dataset


@click.command()
@data_set_options
@click.option("--recipe", metavar="RECIPE", help="Look only at what this recipe reads, such as bevnext/bevnext-stage1.")
@click.option("--deep", is_flag=True, help="Decode every image and point cloud (hours on the full set).")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def check(context: click.Context, data_root: Path, version: str, recipe: str | None, deep: bool, as_json: bool) -> None:
    """Find every fault of a data set, and say which archives to get for which recipe.

    Tables: missing, unreadable or cut off, missing fields, malformed values, dangling and repeated tokens, broken
    chains, wrong counts. Splits: unknown scenes, sizes other than published. Files: missing, empty, cut off; with
    --deep also what cannot be decoded. Nothing is changed.

    Exit codes: 0 no fault, 1 faults were found, 2 wrong option or no such data root.
    """
    say_if_synthetic(version)
    report = check_dataset(data_root, version, recipe=recipe, deep=deep, progress=True)
    if as_json:
        click.echo(report.model_dump_json(indent=1))
    else:
        Console().print(_tables(report))
    context.exit(report.exit_code)


def _tables(report: CheckReport) -> Group:
    parts = [_faults(report)] if report.faults else []
    how = "read and decoded" if report.deep else "looked at"
    records = f"{sum(report.counts.values()):,} records in {len(report.counts)} tables"
    faults = sum(fault.count for fault in report.faults)
    verdict = f"{faults:,} faults of {len(report.faults)} kinds" if faults else "no fault found"
    summary = f"{report.dataroot} {report.version}: {verdict}; {records}, {report.files_checked:,} files {how}"
    return Group(*parts, _needs(report), summary)


def _faults(report: CheckReport) -> Table:
    table = Table(title="faults", title_justify="left", show_lines=True)
    table.add_column("fault", no_wrap=True)
    table.add_column("where", overflow="fold")
    table.add_column("count", justify="right")
    table.add_column("what, and the first examples", overflow="fold")
    for fault in report.faults:
        more = ["..."] if fault.count > len(fault.examples) > 0 else []
        table.add_row(fault.kind, fault.where, f"{fault.count:,}", "\n".join([fault.message, *fault.examples, *more]))
    return table


def _needs(report: CheckReport) -> Table:
    table = Table(title="what the recipes need", title_justify="left", show_lines=True)
    for name in ("family", "reads", "state", "get"):
        table.add_column(name, overflow="fold")
    for need in report.needs:
        gaps = (
            f"{need.missing_files:,} files missing, {need.damaged_files:,} damaged, in {need.scenes_with_gaps} scenes"
        )
        table.add_row(need.family, "\n".join(need.groups), gaps if need.get else "complete", "\n".join(need.get) or "-")
    return table
