"""nuScenes tables -> index. What loading needs is kept: key frames, camera and LiDAR records with poses, boxes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from configs.errors import DataError
from configs.index_location import index_directory
from configs.nuscenes import TABLES
from scenes.annotation_tables import read_annotations
from scenes.index_files import stamps_of, write_index
from scenes.index_layout import Records, assemble, facts_of
from scenes.remote_root import local_root
from scenes.sensor_tables import read_samples, read_scenes, read_sensors
from scenes.splits import CUSTOM_SPLITS, splits_of
from scenes.table_schemas import LARGE_TABLES
from scenes.tables import Progress as Report
from scenes.tables import no_progress

STAMPED_FILES: Final = (*(f"{name}.json" for name in TABLES), CUSTOM_SPLITS)


def build_index(dataroot: Path | str, version: str, index_dir: Path | str | None = None, progress: bool = True) -> Path:
    """Build the index of a data set from its tables; the earlier one stays until the new one is whole.

    Returns the directory of the index. Errors: `DataError` naming the table, record and field that is missing, damaged
    or dangling; `BevnextError` when the index cannot be written.
    """
    dataroot = local_root(dataroot)
    source = version_directory(dataroot, version)
    with _progress_bar(source, progress) as report:
        # stamped first: tables that change during the build make the index stale, not wrong
        stamps = stamps_of(source, STAMPED_FILES)
        records = _read_records(source, version, report)
    directory = index_directory(dataroot, version, index_dir)
    write_index(directory, facts_of(records, version, "tables", stamps), assemble(records))
    return directory


def _read_records(source: Path, version: str, report: Report) -> Records:
    scenes = read_scenes(source)
    samples = read_samples(source, scenes, report)
    if not len(samples.tokens):
        raise DataError(f"{source / 'sample.json'}: there are no samples", fix="get the metadata again")
    sensors, calibrations, sample_data = read_sensors(source, samples, report)
    annotations, categories, attributes = read_annotations(source, samples, report)
    return Records(
        scenes=scenes,
        samples=samples,
        calibrations=calibrations,
        sensors=sensors,
        annotations=annotations,
        splits=splits_of(source, version, scenes.names),
        categories=categories,
        attributes=attributes,
        sample_data=sample_data,
    )


def version_directory(dataroot: Path, version: str) -> Path:
    """`<dataroot>/<version>`. Errors: `DataError` that says which versions are there instead."""
    directory = dataroot / version
    if directory.is_dir():
        return directory
    if not dataroot.is_dir():
        raise DataError(
            f"the data root {dataroot} does not exist",
            fix="name the folder that holds samples/ and v1.0-*/ with --data-root, or make a synthetic set: "
            "`bevnext-sam2 data synth`",
        )
    others = sorted(path.parent.name for path in dataroot.glob("*/sample.json"))
    raise DataError(
        f"{dataroot} holds no tables of version {version!r}; versions there: {', '.join(others) or 'none'}",
        fix=f"use --version {others[0]}" if others else "unpack the nuScenes metadata archive there",
    )


@contextmanager
def _progress_bar(source: Path, wanted: bool) -> Iterator[Report]:
    if not wanted:
        yield no_progress
        return
    total = sum(path.stat().st_size for name in LARGE_TABLES if (path := source / f"{name}.json").is_file())
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"indexing {source}", total=total)
        yield lambda size: bar.advance(task, size)
        bar.update(task, completed=total)  # the brackets around the records
