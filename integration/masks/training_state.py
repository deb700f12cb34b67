"""What a training of masks needs to go on bit for bit: weights, optimiser, randomness, and its place in the data."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.optim import Optimizer

from configs.errors import DataError, UsageError
from configs.replaced_file import replacing, unwritable

STATE: Final = "training_state.pt"
WEIGHTS: Final = "sam2.safetensors"
CURVE: Final = "metrics.jsonl"

Options = Mapping[str, str | int | float | bool | None]
"""What decides the weights of a training; one that goes on must have been started with the same."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a training is."""

    step: int = 0
    """Optimiser steps done."""
    drawn: int = 0
    """Examples taken from the data, those without an object too."""
    seconds: float = 0.0
    """Of CPU time."""


def save_state(path: Path, network: nn.Module, optimizer: Optimizer, place: Place, options: Options) -> None:
    """Write everything; a reader sees the old file or the new one. Raises `BevnextError` if it cannot be written."""
    content = {
        "options": dict(options),
        "step": place.step,
        "drawn": place.drawn,
        "seconds": place.seconds,
        "weights": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }
    try:
        with replacing(path) as unfinished:
            torch.save(content, unfinished)
    except OSError as error:
        raise unwritable(path, error) from error


def restore_state(path: Path, network: nn.Module, optimizer: Optimizer, options: Options) -> Place:
    """Bring network, optimiser and randomness to where `save_state` left them.

    Raises:
        DataError: the file is damaged.
        UsageError: it is of a training with other options.
    """
    content = _read(path)
    changed = [
        f"{name} {content['options'].get(name)!r} there, {value!r} now"
        for name, value in options.items()
        if content["options"].get(name) != value
    ]
    if changed:
        raise UsageError(
            f"{path} is of a training with other options: {'; '.join(changed)}",
            fix="give the options it was started with, or start anew with --resume none",
        )
    network.load_state_dict(content["weights"])
    optimizer.load_state_dict(content["optimizer"])
    torch.set_rng_state(content["random"])
    if content["random_cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(content["random_cuda"])
    return Place(content["step"], content["drawn"], content["seconds"])


def find_state(resume: str, folder: Path) -> Path | None:
    """The state to go on from, if any.

    Args:
        resume: `auto` (the one in `folder`, if there is one), `none`, or the path of a state or of its folder.

    Raises:
        UsageError: a path without a state.
    """
    if resume == "none":
        return None
    own = folder / STATE
    if resume == "auto":
        return own if own.is_file() else None
    named = Path(resume) / STATE if Path(resume).is_dir() else Path(resume)
    if not named.is_file():
        raise UsageError(
            f"--resume {resume}: there is no unfinished training",
            fix=f"name the folder of one that was interrupted (it holds {STATE}), or use --resume auto",
        )
    return named


def cut_curve(path: Path, step: int) -> None:
    """Take lines after `step` off a curve: the steps are done again."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    path.write_text("".join(kept), encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is cut off, or something else")  # noqa: TRY301
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or not {"options", "weights", "optimizer"} <= set(content):
            raise ValueError("it holds something else")  # noqa: TRY301
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(
            f"{path} is damaged: {str(error).splitlines()[0]}", fix="start anew with --resume none"
        ) from error
    return content
