"""`bevnext-sam2 bench index`: tables of trainval's size -> index; time, memory, opening, and what a worker costs.

The baseline is the nuScenes devkit reading the same tables, as loaders do that keep its dictionaries.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.machine import measured_on
from benchmarks.nuscenes_tables import trainval_sizes, write_tables
from benchmarks.result_file import out_option, write_result
from scenes.index import SceneIndex, build_index, open_index

VERSION: Final = "v1.0-trainval"
FRAMES: Final = 4000
MEGA: Final = 1e6


@click.command()
@click.option("--scenes", type=click.IntRange(1, 850), default=850, show_default=True, help="Scenes of the tables.")
@click.option("--cores", type=click.IntRange(min=1), default=2, show_default=True, help="Cores to use.")
@click.option("--workers", type=click.IntRange(min=2), default=4, show_default=True, help="Loader workers at once.")
@click.option("--devkit", is_flag=True, help="Also read the tables with the nuScenes devkit (needs about 12 GB).")
@click.option(
    "--work-dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where the tables go meanwhile (3.2 GB with the index). Default: the system's temporary folder.",
)
@out_option
def index(scenes: int, cores: int, workers: int, devkit: bool, work_dir: Path | None, out: Path | None) -> None:
    """Build and open the index of tables of the size of nuScenes trainval.

    The tables are generated, with the true number and layout of records; they lie in the page cache when they are
    read. Memory of the build is the peak of its only process. A worker's cost is its private memory (USS) beyond that
    of a worker without index, after it has read 4,000 random key frames with their LiDAR sweeps.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    with tempfile.TemporaryDirectory(dir=work_dir) as folder:
        result = measured_on("numpy", "pyarrow", "nuscenes-devkit") | _measure(Path(folder), scenes, workers, devkit)
    Console().print(_table(result))
    write_result(result, out)


def _measure(root: Path, scenes: int, workers: int, devkit: bool) -> dict[str, Any]:
    click.echo(f"writing the tables of {scenes} scenes", err=True)
    directory = write_tables(root, VERSION, trainval_sizes()[:scenes], workers=len(os.sched_getaffinity(0)))
    size = sum(path.stat().st_size for path in directory.iterdir())
    click.echo("building the index", err=True)
    built = _in_fresh_process(_build, root)
    click.echo("opening it", err=True)
    opened = _in_fresh_process(_open, root)
    result = {
        "benchmark": "index",
        "tables": opened.pop("counts") | {"mb": round(size / MEGA, 1)},
        "build": built,
        "open": opened,
        "workers": [_workers(root, start, workers) for start in ("fork", "spawn")],
    }
    if devkit:
        click.echo("reading the tables with the devkit", err=True)
        baseline = _in_fresh_process(_read_with_devkit, root)
        result["baseline"] = {"name": "NuScenes() of the nuScenes devkit, in every process"} | baseline
        result["ratio"] = {
            "build_seconds": round(baseline["seconds"] / built["seconds"], 2),
            "open_seconds": round(baseline["seconds"] / opened["seconds"]),
        }
    return result


# --- what is measured ----------------------------------------------------------------------------------------------


def _build(root: Path) -> dict[str, Any]:
    start, busy = time.perf_counter(), time.process_time()
    directory = build_index(root, VERSION, progress=False)
    times = _times(start, busy)
    size = sum(path.stat().st_size for path in directory.iterdir())
    return times | {"peak_mb": _peak_mb(), "index_mb": round(size / MEGA, 1)}


def _open(root: Path) -> dict[str, Any]:
    start = time.perf_counter()
    opened = open_index(root, VERSION)
    seconds = time.perf_counter() - start
    rows = np.random.default_rng(0).integers(0, len(opened), 1000)
    start = time.perf_counter()
    _read(opened, rows)
    per_frame = (time.perf_counter() - start) / len(rows)
    return {
        "seconds": round(seconds, 4),
        "milliseconds_per_frame": round(1e3 * per_frame, 3),
        "counts": opened.header.counts.model_dump(),
    }


def _read_with_devkit(root: Path) -> dict[str, Any]:
    from nuscenes.nuscenes import NuScenes

    (root / "maps").mkdir()
    (root / "maps" / "map.png").touch()
    start, busy = time.perf_counter(), time.process_time()
    NuScenes(VERSION, str(root), verbose=False)
    return _times(start, busy) | {"peak_mb": _peak_mb()}


def _times(start: float, busy: float) -> dict[str, float]:
    """Seconds on the clock, and of the processors: they differ by what other programs took."""
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(time.process_time() - busy, 2),
    }


def _workers(root: Path, start: str, count: int) -> dict[str, Any]:
    """Private memory of `count` workers that live at once, with and without the index."""
    click.echo(f"{count} workers by {start}", err=True)
    bare = _private_mb(start, count, None)
    with_index = _private_mb(start, count, open_index(root, VERSION))
    return {
        "start": start,
        "workers": count,
        "uss_mb": with_index,
        "uss_without_index_mb": bare,
        "extra_mb": round(max(with_index) - min(bare), 1),
    }


def _private_mb(start: str, count: int, opened: SceneIndex | None) -> list[float]:
    context: Any = multiprocessing.get_context(start)
    ready, stop = context.Semaphore(0), context.Event()
    workers = [context.Process(target=_work, args=(seed, opened, ready, stop)) for seed in range(count)]
    for worker in workers:
        worker.start()
    for _ in workers:
        ready.acquire()
    private = [round(psutil.Process(worker.pid).memory_full_info().uss / MEGA, 1) for worker in workers]
    stop.set()
    for worker in workers:
        worker.join()
    return private


def _work(seed: int, opened: SceneIndex | None, ready: Any, stop: Any) -> None:
    if opened is not None:
        _read(opened, np.random.default_rng(seed).integers(0, len(opened), FRAMES))
    ready.release()
    stop.wait()


def _read(opened: SceneIndex, rows: Any) -> None:
    for row in rows.tolist():
        opened.frame(row)
        opened.lidar_sweeps(row, 9)


def _in_fresh_process(function: Callable[[Path], dict[str, Any]], root: Path) -> dict[str, Any]:
    """Run in a process of its own, so that its peak of memory is that of the function."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, (root,))


def _peak_mb() -> float:
    """Largest resident set of this process so far, as the kernel counted it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / MEGA, 1)
    raise RuntimeError("this kernel does not count VmHWM")


def _table(result: dict[str, Any]) -> Table:
    counts, build, opened = result["tables"], result["build"], result["open"]
    table = Table(title="index", title_justify="left")
    table.add_column("")
    table.add_column("measured", justify="right")
    table.add_row(
        "tables", f"{counts['samples']:,} samples, {counts['sample_data']:,} sample_data, {counts['mb']:,} MB"
    )
    table.add_row("build", f"{build['seconds']} s, peak {build['peak_mb']:,} MB, index {build['index_mb']:,} MB")
    table.add_row("open", f"{1e3 * opened['seconds']:.1f} ms")
    table.add_row("a key frame with its sweeps", f"{opened['milliseconds_per_frame']} ms")
    for row in result["workers"]:
        table.add_row(f"an extra worker ({row['start']})", f"{row['extra_mb']} MB private")
    if "baseline" in result:
        baseline = result["baseline"]
        table.add_row("the devkit, each process", f"{baseline['seconds']} s, peak {baseline['peak_mb']:,} MB")
    return table
