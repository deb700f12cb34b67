"""Trained detectors: from a run directory, or from a weights file and the recipe it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from configs import run_directory
from configs.errors import UsageError
from configs.recipes import load_recipe
from configs.schema import Recipe
from detectors import load_published
from detectors.interface import Detector
from evaluation.checkpoint_files import EMA_WEIGHTS, LATEST, WEIGHTS, find_checkpoint, read_manifest
from evaluation.options import ModelChoice
from integration.sam_enhanced import build_recipe_detector


@dataclass(frozen=True, slots=True)
class Trained:
    """A detector in eval mode with its recipe, and where its weights came from."""

    detector: Detector
    recipe: Recipe
    weights: Path


def load_chosen(model: ModelChoice, device: torch.device) -> Trained:
    """The detector that the options of a command name (and that they name one was checked)."""
    if model.run is not None:
        return load_trained(model.run, model.checkpoint or LATEST, averaged=model.averaged, device=device)
    assert model.config is not None
    assert model.checkpoint is not None
    return load_weights(model.config, model.checkpoint, model.overrides, device)


def load_trained(
    run: Path | str, checkpoint: str = LATEST, *, averaged: bool | None = None, device: torch.device | str = "cpu"
) -> Trained:
    """The detector of a run directory.

    Args:
        checkpoint: `latest`, `best`, or the name of a step directory.
        averaged: take the moving average of the weights (True) or the weights themselves (False); by default the
            average when the recipe keeps one.

    Raises:
        UsageError: not a run directory, no such checkpoint, no average in it, or weights of another recipe.
        DataError: the checkpoint is incomplete or damaged.
    """
    run = Path(run)
    directory = find_checkpoint(run, checkpoint)
    recipe = load_recipe(str(run / run_directory.RECIPE))
    manifest = read_manifest(directory)
    wants_average = recipe.engine.ema is not None if averaged is None else averaged
    name = EMA_WEIGHTS if wants_average else WEIGHTS
    if name not in manifest.files:
        raise UsageError(f"{directory} holds no {name}", fix="use `--no-ema`" if wants_average else "use `--ema`")
    return _load(recipe, directory / name, device)


def load_weights(
    recipe: str, weights: Path | str, overrides: Sequence[str] = (), device: torch.device | str = "cpu"
) -> Trained:
    """The detector of a recipe (name or path) with a weights file: `.safetensors` of ours or a published `.pth`.

    Raises:
        UsageError: unknown recipe, unreadable file, or weights that do not fit the recipe.
    """
    return _load(load_recipe(recipe, overrides), Path(weights), device)


def _load(recipe: Recipe, weights: Path, device: torch.device | str) -> Trained:
    detector = build_recipe_detector(recipe)
    load_published(detector, weights)
    return Trained(detector.to(device).eval(), recipe, weights)
