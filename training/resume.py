"""Which checkpoint a run goes on from, and whether it belongs to the recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs import run_directory
from configs.errors import UsageError
from configs.plan import Plan
from configs.schema import Recipe, Sam2Config, Section
from evaluation.checkpoint_files import MANIFEST, find_checkpoint, read_manifest

from .checkpoints import CheckpointFolder, RunManifest
from .world import World


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run goes on from."""

    place: Path | None
    """Verified checkpoint directory; `None` starts at the beginning."""
    passed_over: list[str]
    """Why newer checkpoints are not used."""


def agree_on_start(run_dir: Path, folder: CheckpointFolder, resume: str, world: World) -> Start:
    """`find_start`, done by rank 0 for all processes; what is chosen becomes the run's latest checkpoint."""
    found = find_start(run_dir, folder, resume) if world.is_main else Start(None, [])
    if found.place:
        folder.make_latest(found.place)
    place = world.text_from_main(str(found.place or ""))
    return Start(Path(place) if place else None, found.passed_over)


def find_start(run_dir: Path, folder: CheckpointFolder, resume: str) -> Start:
    """The checkpoint to start from.

    Args:
        resume: `auto` (the newest valid one of the run), `none`, or the path of a run or of a checkpoint directory.

    Raises:
        UsageError: `none` where the run has checkpoints already, or a path without any.
        DataError: the checkpoint that was named is damaged.
    """
    if resume == "auto":
        return Start(*folder.newest_valid())
    if resume == "none":
        if folder.has_any():
            raise UsageError(
                f"--resume none: {run_dir} holds checkpoints of an earlier run",
                fix="use --resume auto to go on with it, or another --run-dir",
            )
        return Start(None, [])
    place = Path(resume)
    if not (place / MANIFEST).is_file():
        if not (place / run_directory.CHECKPOINTS).is_dir():
            raise UsageError(
                f"--resume {resume}: no checkpoint there (no {MANIFEST})",
                fix="name a directory such as outputs/<run>/checkpoints/step_00001234, or use --resume auto",
            )
        place = find_checkpoint(place)
    read_manifest(place)
    return Start(place.resolve(), [])


def step_to_go_on_from(place: Path, recipe: Recipe, plan: Plan) -> int:
    """The optimiser steps of this plan that a checkpoint stands for.

    Raises:
        UsageError: a model of another recipe, or a position within an epoch that this plan's steps do not meet.
    """
    manifest = RunManifest.model_validate_json((place / MANIFEST).read_bytes())
    sam2 = recipe.sam2.model_dump(mode="json") if recipe.sam2 else None
    sections = (
        ("model", _completed(manifest.model, type(recipe.model)), recipe.model.model_dump(mode="json")),
        ("sam2", _without_place(manifest.sam2), _without_place(sam2)),
    )
    for section, theirs, ours in sections:
        if theirs != ours:
            raise UsageError(
                f"{place} is a checkpoint of another recipe ({manifest.recipe}): {_difference(theirs, ours, section)}",
                fix="use the recipe it was trained with, or another --run-dir",
            )
    if (manifest.effective_batch, manifest.steps_per_epoch) == (plan.effective_batch, plan.steps_per_epoch):
        return manifest.step
    epochs, within = divmod(manifest.step, manifest.steps_per_epoch)
    if within:
        raise UsageError(
            f"{place} was saved within an epoch of {manifest.steps_per_epoch} steps of {manifest.effective_batch} "
            f"samples; this plan has {plan.steps_per_epoch} steps of {plan.effective_batch}",
            fix=f"use --effective-batch {manifest.effective_batch} on the same data, or a checkpoint at an epoch's end",
        )
    return epochs * plan.steps_per_epoch


def _completed(model: dict[str, Any], schema: type[Section]) -> dict[str, Any]:
    """A saved model section with the defaults of what the schema has gained since, if it still fits the schema."""
    try:
        return schema.model_validate(model).model_dump(mode="json")
    except ValidationError:
        return model


def _without_place(sam2: dict[str, Any] | None) -> dict[str, Any]:
    """The section `sam2` but for where the weights are: a checkpoint knows them by their digest."""
    return _completed(sam2 | {"weights": None}, Sam2Config) if sam2 else {}


def _difference(theirs: dict[str, Any], ours: dict[str, Any], prefix: str) -> str:
    """The first value that differs, with its place."""
    key = next(key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key))
    there, here = theirs.get(key), ours.get(key)
    if isinstance(there, dict) and isinstance(here, dict):
        return _difference(there, here, f"{prefix}.{key}")
    return f"{prefix}.{key} is {there!r} there and {here!r} here"
