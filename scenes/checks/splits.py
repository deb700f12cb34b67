"""Checks the splits of a data set, and its size against what nuScenes published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from scenes.checks.report import FaultBook
from scenes.checks.tables import Table
from scenes.splits import CUSTOM_SPLITS, PUBLISHED_SAMPLES, PUBLISHED_SCENES, custom_splits, official_splits_of


def check_splits(
    directory: Path,
    version: str,
    tables: dict[str, Table],
    scene_of_sample: NDArray[np.int64],
    wanted: tuple[str, ...],
    book: FaultBook,
) -> dict[str, int]:
    """Samples per split. `wanted` are the splits of the recipe; `scene_of_sample` is -1 where unknown."""
    try:
        splits = official_splits_of(version) | custom_splits(directory)
    except DataError as error:
        book.add("bad-splits", CUSTOM_SPLITS, error.message)
        splits = official_splits_of(version)
    if not splits:
        book.add(
            "missing-splits",
            version,
            f"{version} has no official splits and there is no {CUSTOM_SPLITS} beside its tables",
        )
    book.add_any("missing-splits", "recipe", "the recipe's split is unknown", [s for s in wanted if s not in splits])
    names = tables["scene"].columns["name"].to_pylist()
    for split, members in splits.items():
        absent = sorted(set(members) - set(names))
        book.add_any("missing-scene", f"split {split}", "the scene is not in scene.json", absent)
    unused = sorted(set(names) - {scene for members in splits.values() for scene in members})
    if splits:
        book.add_any("unused-scene", "scene.json", "the scene is in no split", unused)
    per_scene = np.bincount(scene_of_sample[scene_of_sample >= 0], minlength=len(names))
    sizes = {
        split: int(per_scene[[i for i, name in enumerate(names) if name in set(members)]].sum())
        for split, members in splits.items()
    }
    _check_published(version, len(names), sizes, book)
    return sizes


def _check_published(version: str, scenes: int, sizes: dict[str, int], book: FaultBook) -> None:
    published = PUBLISHED_SCENES.get(version, scenes)
    if scenes != published:
        book.add("wrong-count", "scene.json", f"{scenes} scenes, {version} was published with {published}")
    for split, samples in PUBLISHED_SAMPLES.get(version, {}).items():
        if sizes[split] != samples:
            book.add("wrong-count", f"split {split}", f"{sizes[split]} samples, {samples} were published")
