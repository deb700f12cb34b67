"""What a run directory tells: recipe, plan, log of metrics, scores, pictures. Read without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from configs import run_directory
from configs.errors import DataError, ExitCode, UsageError
from configs.plan_schema import Plan
from configs.recipes import load_recipe
from configs.schema import Recipe
from evaluation.nuscenes_metrics import DETAILS_FILE, METRICS_FILE, MetricsSummary

PICTURES: Final = (".jpg", ".png")
FILMS: Final = (".mp4",)


@dataclass(frozen=True, slots=True)
class Scores:
    """One evaluation: its summary and the devkit's curves, by `class:distance`."""

    name: str
    summary: MetricsSummary
    details: dict[str, dict[str, list[float]]]


class Outcome(BaseModel):
    """What `outcome.json` tells of the run's last start."""

    exit_code: ExitCode
    error: str = ""

    def __str__(self) -> str:
        return _STATUS[self.exit_code] + (f": {self.error}" if self.error else "")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as its directory describes it; what the run has not reached yet is empty or `None`."""

    directory: Path
    recipe: Recipe
    recipe_text: str
    plan: Plan | None
    outcome: Outcome | None
    training: list[dict[str, Any]]
    """Lines `train` of metrics.jsonl, in the order of their steps."""
    evaluations: list[dict[str, Any]]
    """Lines `evaluate` of metrics.jsonl."""
    scores: list[Scores]
    """Evaluations that left their files in results/, oldest step first."""
    pictures: list[Path]
    films: list[Path]

    def status(self) -> str:
        """How the last start of the run ended, in words."""
        return "running, or ended without a word" if self.outcome is None else str(self.outcome)


_STATUS: Final[dict[ExitCode, str]] = {
    ExitCode.DONE: "finished",
    ExitCode.CRASHED: "crashed",
    ExitCode.BAD_USAGE: "refused to start",
    ExitCode.BAD_DATA: "stopped by bad data",
    ExitCode.PREEMPTED: "preempted and saved; start it again to go on",
    ExitCode.NO_PROGRESS: "gave up after restarts without progress",
    ExitCode.HUNG: "hung",
}


def read_run(directory: Path) -> RunRecord:
    """Read a run directory.

    Raises:
        UsageError: it is not one.
        DataError: a file in it is damaged.
    """
    recipe_path = directory / run_directory.RECIPE
    if not recipe_path.is_file():
        raise UsageError(
            f"{directory} is not a run directory: it has no {run_directory.RECIPE}",
            fix="name a directory that `bevnext-sam2 train` made, such as outputs/<run>",
        )
    plan_path, outcome_path = directory / run_directory.PLAN, directory / run_directory.OUTCOME
    lines = _read_lines(directory / run_directory.METRICS)
    figures = directory / run_directory.FIGURES
    return RunRecord(
        directory=directory,
        recipe=load_recipe(str(recipe_path)),
        recipe_text=recipe_path.read_text(encoding="utf-8"),
        plan=_read_plan(plan_path) if plan_path.is_file() else None,
        outcome=_read_outcome(outcome_path) if outcome_path.is_file() else None,
        training=[line for line in lines if line["event"] == "train"],
        evaluations=[line for line in lines if line["event"] == "evaluate"],
        scores=[_read_scores(path) for path in sorted((directory / run_directory.RESULTS).glob(f"*/{METRICS_FILE}"))],
        pictures=sorted((path for path in figures.glob("*") if path.suffix in PICTURES), key=_picture_order),
        films=sorted(path for path in figures.glob("**/*") if path.suffix in FILMS),
    )


def _picture_order(path: Path) -> tuple[str, bool]:
    """By sample, its cameras before its view from above."""
    sample, _, kind = path.stem.rpartition("_")
    return sample, kind == "bev"


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Records of a JSON-lines file; a last line without its newline was cut off by a crash and is left out."""
    if not path.is_file():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    try:
        return [json.loads(line) for line in whole.splitlines() if line]
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}", fix="move it away; the trainer starts a new one") from error


def _read_scores(path: Path) -> Scores:
    try:
        summary = MetricsSummary.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise _unreadable(path, error, fix="evaluate again") from error
    return Scores(name=path.parent.name, summary=summary, details=_read_json(path.with_name(DETAILS_FILE)))


def _read_plan(path: Path) -> Plan:
    try:
        return Plan.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise _unreadable(path, error, fix="start the run again") from error


def _read_outcome(path: Path) -> Outcome:
    try:
        return Outcome.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise _unreadable(path, error, fix="remove it, or start the run again: each start writes its own") from error


def _unreadable(path: Path, error: ValidationError, fix: str) -> DataError:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) or "the file"
    return DataError(f"{path} cannot be read: {place}: {first['msg']}", fix=fix)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", fix="run the command that wrote it again") from error
