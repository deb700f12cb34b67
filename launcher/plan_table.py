"""The plan for a reader: every value with where it comes from, and the exact command line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from configs.plan import Plan, size_text
from launcher.own_process import shell_line, shown
from launcher.planning import PlannedRun

FILE_WIDTH: Final = 160
"""Columns where the output is no terminal."""
Line = tuple[str, str, str]
"""Name, value, origin."""


def show_plan(run: PlannedRun, *, as_json: bool, job: Mapping[str, str] | None = None) -> None:
    """Print the plan on standard output.

    Args:
        job: the files of a job for a cluster, to show instead of the command line of this machine.
    """
    if as_json:
        content = run.as_json() if job is None else {**run.as_json(), "command": None, "environment": {}, "job": job}
        click.echo(json.dumps(content, indent=2))
        return
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    data = run.choices.data
    if data.is_synthetic:
        console.print(f"[bold yellow]Synthetic data:[/] {data.version}, made by this project, not recorded.")
    console.print(_table(run))
    for warning in run.plan.warnings:
        console.print("[bold yellow]warning:[/]", warning, soft_wrap=True)
    for step in run.first:
        click.echo(f"first: {shown(step.arguments)}    ({step.reason})")
    if job is None:
        click.echo(f"command:\n{shell_line(run.command, run.environment)}")
    for name, text in (job or {}).items():
        click.echo(f"\n--- {name}\n{text}")


def _table(run: PlannedRun) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold underline")
    table.add_column("plan", style="bold", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("from", style="dim", overflow="fold")
    for section in (_what(run), _devices(run), _step(run.plan), _length(run), _machine(run.plan)):
        for line in section:
            table.add_row(*map(Text, line))
        table.add_row()
    return table


def _what(run: PlannedRun) -> Iterator[Line]:
    plan, choices = run.plan, run.choices
    origin = plan.origins
    yield "recipe", plan.recipe, origin["recipe"]
    yield "data", f"{choices.data.root} ({choices.data.version})", choices.data.origin
    yield "samples per epoch", f"{plan.epoch_samples}" if run.samples_known else "unknown", origin["epoch_samples"]
    yield "run directory", str(choices.run_dir), f"--resume {choices.resume}"


def _devices(run: PlannedRun) -> Iterator[Line]:
    plan, origin = run.plan, run.plan.origins
    yield "device", run.choices.devices_text, origin["device_kind"]
    if plan.nodes > 1:
        count = f"{plan.node_shares[0].nodes} to {plan.nodes}" if plan.node_shares else f"{plan.nodes}"
        yield "nodes", count, origin["nodes"]
    yield "processes", f"{plan.devices}", origin["devices"]
    asked = run.choices.options.distributed
    yield "distributed", "ddp, one process per device", f"option --distributed {asked}" if asked else "default"
    if plan.device_kind != "cpu":
        yield "devices", ", ".join(map(str, plan.device_ids[: plan.devices_per_node])), origin["device_ids"]


def _step(plan: Plan) -> Iterator[Line]:
    origin = plan.origins
    batch = f"{plan.device_batch}"
    if plan.batch_candidates:
        batch = f"the largest of {_abridged(plan.batch_candidates)} that fits; the plan below is for {batch}"
    yield "batch per device", batch, origin["device_batch"]
    yield "accumulation", f"{plan.accumulation}", origin["accumulation"]
    product = f"{plan.devices} x {plan.device_batch} x {plan.accumulation}"
    yield "effective batch", f"{plan.effective_batch} = {product}", origin["effective_batch"]
    for share in plan.node_shares:
        product = f"{share.nodes * plan.devices_per_node} x {share.device_batch} x {share.accumulation}"
        yield f"  on {share.nodes} node(s)", f"{plan.effective_batch} = {product}", "derived: the same step"
    yield "recipe's batch", f"{plan.reference_batch}", origin["reference_batch"]
    yield "recipe's rate", f"{plan.base_learning_rate:g}", origin["base_learning_rate"]
    yield "scaling rule", plan.lr_rule, origin["lr_rule"]
    yield "scaling factor", f"{plan.lr_factor:g}", origin["lr_factor"]
    yield "learning rate", f"{plan.learning_rate:g}", origin["learning_rate"]
    yield "precision", plan.precision, origin["precision"]


def _length(run: PlannedRun) -> Iterator[Line]:
    plan, origin = run.plan, run.plan.origins
    yield "warm-up", f"{plan.warmup_steps} steps", origin["warmup_steps"]
    yield "epochs", f"{plan.epochs}", origin["epochs"]
    if run.samples_known:
        yield "steps per epoch", f"{plan.steps_per_epoch}", origin["steps_per_epoch"]
        yield "steps", f"{plan.total_steps}", origin["total_steps"]


def _machine(plan: Plan) -> Iterator[Line]:
    origin = plan.origins
    yield "loader workers", f"{plan.workers} per process", origin["workers"]
    yield "threads", f"{plan.threads} per process", origin["threads"]
    yield "images per sample", f"{plan.images_per_sample}", origin["images_per_sample"]
    if plan.samples_per_second is not None and plan.images_per_second is not None:
        yield "training speed", f"{plan.samples_per_second:.3g} samples/s", origin["samples_per_second"]
        yield "loader demand", f"{plan.images_per_second:.3g} images/s", origin["images_per_second"]
    else:
        yield "loader demand", "unknown", origin["images_per_second"]
    yield "shared memory", size_text(plan.shared_memory_bytes), origin["shared_memory_bytes"]
    yield "grace period", f"{plan.grace_seconds} s", origin["grace_seconds"]


def _abridged(numbers: Sequence[int]) -> str:
    """`1, 2, 4, 8`, or `1, 2, 3, ... 256` where there are many."""
    few = [*numbers] if len(numbers) <= 8 else [*numbers[:3], "...", numbers[-1]]
    return ", ".join(map(str, few))
