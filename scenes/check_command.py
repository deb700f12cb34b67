"""`bevnext-sam2 data check`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from scenes.checks.report import CheckReport, RecipeNeed
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
        _show(report)
    context.exit(report.exit_code)


def _show(report: CheckReport) -> None:
    console = Console()
    if report.faults:
        console.print(_faults(report))
        for line in _examples(report):
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    console.print(_needs(report))
    how = "read and decoded" if report.deep else "looked at"
    records = f"{sum(report.counts.values()):,} records in {len(report.counts)} tables"
    faults = sum(fault.count for fault in report.faults)
    verdict = f"{faults:,} faults of {len(report.faults)} kinds" if faults else "no fault found"
    click.echo(f"{report.dataroot} {report.version}: {verdict}; {records}, {report.files_checked:,} files {how}")


def _faults(report: CheckReport) -> Table:
    table = Table(title="faults", title_justify="left")
    table.add_column("fault")
    table.add_column("where", overflow="fold")
    table.add_column("count", justify="right")
    table.add_column("what", overflow="fold")
    for fault in report.faults:
        table.add_row(fault.kind, fault.where, f"{fault.count:,}", fault.message)
    return table


def _examples(report: CheckReport) -> Iterator[str]:
    """The first few of each fault, a line each, never wrapped: they are there to be copied."""
    for fault in report.faults:
        if fault.examples:
            yield f"{fault.kind} in {fault.where}:"
            yield from (f"    {example}" for example in fault.examples)
            if fault.count > len(fault.examples):
                yield f"    ... and {fault.count - len(fault.examples):,} more"
            yield ""


def _needs(report: CheckReport) -> Table:
    table = Table(title="what the recipes need", title_justify="left", show_lines=True)
    for name in ("family", "state", "get"):
        table.add_column(name, overflow="fold")
    for need in report.needs:
        table.add_row(need.family, "\n".join(_gaps(need)) or "complete", "\n".join(need.get) or "-")
    return table


def _gaps(need: RecipeNeed) -> Iterator[str]:
    if need.absent:
        yield f"not in the tables: {', '.join(need.absent)}"
    if need.missing_files or need.damaged_files:
        yield f"{need.missing_files:,} files missing, {need.damaged_files:,} damaged, in {need.scenes_with_gaps} scenes"
