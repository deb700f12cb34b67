"""Figures that earlier runs left behind: how fast such a device trains, and how long a checkpoint takes.

They are read from the `metrics.jsonl` of the run itself where it has been started before, else of the newest run beside
it with the same network, images and device.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

from pydantic import ValidationError

from configs import run_directory
from configs.errors import UsageError
from configs.plan_schema import DeviceFacts, Measured, Plan
from configs.recipes import load_recipe
from configs.schema import Recipe

TAIL_BYTES: Final = 1 << 18
"""Of `metrics.jsonl`: the newest lines are enough, and a long run has many."""
RUNS_LOOKED_AT: Final = 20
"""Newest runs beside this one; a plan is to be there at once."""
FIRST_LINES: Final = 1
"""Of a start's rates: the first step opens files and warms up."""


def measured_before(recipe: Recipe, devices: DeviceFacts, run_dir: Path) -> Measured | None:
    """What the newest comparable run tells; `None` where there is none."""
    for place in (run_dir, *_newest_runs(run_dir.parent)):
        plan = _comparable_plan(place, recipe, devices)
        found = None if plan is None else _figures(place, plan)
        if found is not None:
            return found
    return None


def _newest_runs(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    plans = [path for path in folder.glob(f"*/{run_directory.PLAN}") if path.is_file()]
    plans.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    yield from (path.parent for path in plans[:RUNS_LOOKED_AT])


def _comparable_plan(run_dir: Path, recipe: Recipe, devices: DeviceFacts) -> Plan | None:
    """The plan of a run, if its steps cost what those of `recipe` on `devices` cost."""
    try:
        plan = Plan.model_validate_json((run_dir / run_directory.PLAN).read_bytes())
        if (plan.recipe, plan.device_kind, plan.device_names[0]) != (recipe.name, devices.kind, devices.names[0]):
            return None
        saved = load_recipe(str(run_dir / run_directory.RECIPE))
    except (OSError, ValidationError, UsageError):
        return None  # of an older program, or not a run: it tells nothing
    same_images = (saved.data.image_size, saved.data.frames_read, saved.data.cameras) == (
        recipe.data.image_size,
        recipe.data.frames_read,
        recipe.data.cameras,
    )
    return plan if same_images and saved.model == recipe.model else None


def _figures(run_dir: Path, plan: Plan) -> Measured | None:
    """Rates of the latest start, and the longest of the latest checkpoints."""
    begun = (run_dir / run_directory.PLAN).stat().st_mtime - 1.0
    events = [event for event in latest_events(run_dir / run_directory.METRICS) if event["time"] >= begun]
    rates = [event["samples_per_second"] / plan.devices for event in events if event["event"] == "train"][FIRST_LINES:]
    saves = [event["seconds"] for event in events if event["event"] == "checkpoint"]
    if not rates and not saves:
        return None
    return Measured(
        source=f"timed in {run_dir} ({plan.devices} x {plan.device_batch} x {plan.accumulation}, {plan.precision})",
        samples_per_second=median(rates) if rates else None,
        slowest_samples_per_second=min(rates) if rates else None,
        checkpoint_seconds=max(saves) if saves else None,
    )


def latest_events(path: Path) -> list[dict[str, Any]]:
    """The newest lines of a `metrics.jsonl`; none where it is not there."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().splitlines()
    return [event for line in lines if (event := _event(line))]


def _event(line: bytes) -> dict[str, Any] | None:
    """One line; `None` for one that was cut, at the beginning of the tail or by a crash."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
