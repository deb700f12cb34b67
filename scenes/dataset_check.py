"""Finds every fault of a data set in nuScenes format, and says what to download for which recipe.

report = check_dataset("data/nuscenes", "v1.0-trainval", recipe="bevnext/bevnext-stage1")
for fault in report.faults: ...
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from configs.errors import DataError, UsageError
from configs.recipes import SPLITS_OF_VERSION, load_recipe
from configs.schema import Recipe
from scenes.checks.chains import Links, channels_of, check_chains, follow
from scenes.checks.downloads import GROUPS, MAPS, NEEDS, downloads_for, group_of
from scenes.checks.files import FileGroup, GroupFaults, check_files
from scenes.checks.report import CheckReport, FaultBook, RecipeNeed
from scenes.checks.splits import check_splits
from scenes.checks.tables import Table, check_fields, check_foreign_keys, load_tables
from scenes.index_builder import version_directory
from scenes.remote_root import local_root
from scenes.table_schemas import LARGE_TABLES

_THREADS: Final = min(32, 4 * (os.cpu_count() or 1))


def check_dataset(
    dataroot: Path | str,
    version: str,
    *,
    recipe: str | None = None,
    deep: bool = False,
    progress: bool = False,
    threads: int = _THREADS,
) -> CheckReport:
    """Look at the tables, the splits and the files of a data set.

    `recipe` (a name or a YAML file) limits the files to those that its family reads, and asks for its splits. `deep`
    decodes every image and point cloud. Nothing is changed.
    Errors: `UsageError` for a data root that does not exist or an unknown recipe; all else is a fault of the report.
    """
    root = local_root(dataroot)
    if not root.is_dir():
        raise UsageError(f"the data root {root} does not exist", fix="name the folder that holds the data set")
    chosen = load_recipe(recipe) if recipe else None
    book = FaultBook()
    with _bars(progress) as bars:
        tables, links = _check_tables(root / version, book, bars)
        splits = _check_splits(root / version, version, tables, links, chosen, book)
        groups = _file_groups(tables, links, NEEDS[chosen.model.family] if chosen else GROUPS)
        if chosen and tables:
            absent = set(NEEDS[chosen.model.family]) - {group.name for group in groups}
            book.add_any("missing-group", "recipe", "the tables name no such files", sorted(absent))
        task = bars.add_task("files", total=sum(len(group.rows) for group in groups))
        faulty = check_files(root, groups, deep, threads, book, lambda done: bars.advance(task, done))
    return CheckReport(
        dataroot=str(root),
        version=version,
        recipe=recipe,
        deep=deep,
        counts={name: table.rows for name, table in tables.items()},
        splits=splits,
        files_checked=sum(len(group.rows) for group in groups),
        faults=tuple(book.faults),
        needs=tuple(
            _need(family, version, tables, links, groups, faulty)
            for family in ([chosen.model.family] if chosen else NEEDS)
        ),
    )


def _bars(shown: bool) -> Progress:
    columns = (TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not shown)


def _check_tables(directory: Path, book: FaultBook, bars: Progress) -> tuple[dict[str, Table], Links]:
    try:
        version_directory(directory.parent, directory.name)
    except DataError as error:
        book.add("missing-version", directory.name, error.message)
        return {}, {}
    large = [path for name in LARGE_TABLES if (path := directory / f"{name}.json").is_file()]
    total = sum(path.stat().st_size for path in large)
    task = bars.add_task("tables (bytes)", total=total)
    tables = load_tables(directory, book, lambda size: bars.advance(task, size))
    bars.update(task, completed=total)  # the brackets around the records
    check_fields(tables, book)
    links = check_foreign_keys(tables, book)
    check_chains(tables, links, book)
    return tables, links


def _check_splits(
    directory: Path, version: str, tables: dict[str, Table], links: Links, recipe: Recipe | None, book: FaultBook
) -> dict[str, int]:
    if not {"scene", "sample"} <= set(tables):
        return {}
    return check_splits(directory, version, tables, links["sample.scene_token"], _wanted_splits(recipe, version), book)


def _wanted_splits(recipe: Recipe | None, version: str) -> tuple[str, ...]:
    """The splits that training this recipe on this version would read; none for a test set."""
    if recipe is None:
        return ()
    if recipe.data.version == version:
        return recipe.data.train_split, recipe.data.val_split
    return SPLITS_OF_VERSION.get(version, ())


def _file_groups(tables: dict[str, Table], links: Links, wanted: tuple[str, ...]) -> list[FileGroup]:
    """The files of the wanted groups, as far as the tables that name them could be read."""
    groups = []
    if {"sample_data", "calibrated_sensor", "sensor"} <= set(tables):
        data = tables["sample_data"].columns
        sensors, names = channels_of(tables, links)
        key = data["is_key_frame"].astype(bool)
        of_sensor = {state: np.array([group_of(state, name) for name in names] + [""]) for state in (True, False)}
        kinds = np.where(key, of_sensor[True][sensors], of_sensor[False][sensors])
        sizes = np.stack([data["height"], data["width"]], axis=1)
        for name in wanted:
            rows = np.flatnonzero(kinds == name)
            if len(rows):
                groups.append(FileGroup(name, rows, data["filename"].take(pa.array(rows)), sizes[rows]))
    if "map" in tables and MAPS in wanted:
        count = tables["map"].rows
        groups.append(FileGroup(MAPS, np.arange(count), tables["map"].columns["filename"], np.zeros((count, 2), int)))
    return groups


def _need(
    family: str,
    version: str,
    tables: dict[str, Table],
    links: Links,
    groups: list[FileGroup],
    faulty: dict[str, GroupFaults],
) -> RecipeNeed:
    own = [group for group in groups if group.name in NEEDS[family]]
    absent = set(NEEDS[family]) - {group.name for group in own}
    missing = sum(faulty[group.name].counts.get("missing-file", 0) for group in own)
    total = sum(sum(faulty[group.name].counts.values()) for group in own)
    rows = [row for group in own if group.name != MAPS for row in faulty[group.name].rows]
    gaps = absent | {group.name for group in own if faulty[group.name].counts}
    scenes = 0
    if rows and {"sample", "scene"} <= set(tables):
        of_row = follow(links["sample_data.sample_token"][np.array(rows)], links["sample.scene_token"])
        scenes = len(np.unique(of_row))
    return RecipeNeed(
        family=family,
        groups=NEEDS[family],
        absent=tuple(group for group in NEEDS[family] if group in absent),
        missing_files=missing,
        damaged_files=total - missing,
        scenes_with_gaps=scenes,
        get=downloads_for(version, frozenset(gaps), tables_missing=len(tables) < 13),
    )
