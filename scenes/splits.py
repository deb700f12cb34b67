"""Which scenes belong to which split: the official lists of the nuScenes devkit, and a data set's own `splits.json`."""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Final

from configs.errors import BevnextError, DataError

CUSTOM_SPLITS: Final = "splits.json"

PUBLISHED_SAMPLES: Final[dict[str, dict[str, int]]] = {
    "v1.0-mini": {"mini_train": 323, "mini_val": 81},
    "v1.0-trainval": {"train": 28130, "val": 6019},
    "v1.0-test": {"test": 6008},
}
"""Key frames of the official splits, as published for nuScenes v1.0."""

PUBLISHED_SCENES: Final[dict[str, int]] = {"v1.0-mini": 10, "v1.0-trainval": 850, "v1.0-test": 150}

_SPLITS_OF_VERSION: Final[dict[str, tuple[str, ...]]] = {
    "v1.0-mini": ("mini_train", "mini_val"),
    "v1.0-trainval": ("train", "val", "train_detect", "train_track"),
    "v1.0-test": ("test",),
}


def splits_of(version_directory: Path, version: str, scenes: Collection[str]) -> dict[str, list[str]]:
    """Scene names of every split of a data set, restricted to `scenes`, official ones first.

    Errors: `DataError` for a `splits.json` that is not `{split: [scene names]}`.
    """
    known = set(scenes)
    splits = official_splits_of(version) | custom_splits(version_directory)
    return {name: [scene for scene in members if scene in known] for name, members in splits.items()}


def official_splits_of(version: str) -> dict[str, list[str]]:
    """Scene names of the official splits of a version, `{}` for a version that has none."""
    return {name: official_splits()[name] for name in _SPLITS_OF_VERSION.get(version, ())}


def custom_splits(version_directory: Path) -> dict[str, list[str]]:
    """`splits.json` beside the tables (the devkit's form), `{}` when there is none."""
    path = version_directory / CUSTOM_SPLITS
    if not path.exists():
        return {}
    fix = "write it as {split name: [scene names]}, as the nuScenes devkit reads it"
    try:
        splits = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})", fix=fix) from None
    if not isinstance(splits, dict) or not all(
        isinstance(members, list) and all(isinstance(scene, str) for scene in members) for members in splits.values()
    ):
        raise DataError(f"{path}: a split is not a list of scene names", fix=fix)
    return splits


@cache
def official_splits() -> dict[str, list[str]]:
    """`train`, `val`, `test`, `mini_*`, `train_detect` and `train_track`, read from the source of the installed devkit.

    The lists are taken from the file's literals: importing the devkit takes seconds and draws in matplotlib.
    """
    spec = importlib.util.find_spec("nuscenes")
    if spec is None or not spec.submodule_search_locations:
        raise BevnextError("nuscenes-devkit is not installed", fix="./scripts/run.sh sets the environment up")
    source = Path(spec.submodule_search_locations[0]) / "utils" / "splits.py"
    splits: dict[str, list[str]] = {}
    for statement in ast.parse(source.read_text()).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.List):
            target = statement.targets[0]
            if isinstance(target, ast.Name):
                splits[target.id] = ast.literal_eval(statement.value)
    splits["train"] = sorted({*splits["train_detect"], *splits["train_track"]})
    return splits
