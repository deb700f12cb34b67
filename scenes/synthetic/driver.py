"""Makes a synthetic set: plans it, renders its blocks in parallel, writes the tables, puts it in place at once."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import groupby
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import psutil

from configs.errors import BevnextError, UsageError
from configs.nuscenes import CAMERAS, LIDAR
from configs.process_death import die_with_parent
from scenes.synthetic.labels import LABELS
from scenes.synthetic.options import STAMP, VERSION, SyntheticOptions, SyntheticSummary
from scenes.synthetic.progress import BlockProgress
from scenes.synthetic.render import RenderedBlock, blocks, quiet_worker, render_block
from scenes.synthetic.schedule import schedule
from scenes.synthetic.tables import Tables

PARTIAL = ".partial-"
Piece = list[tuple[int, int]]
Rendered = dict[int, list[RenderedBlock]]

SWEEP_BYTES = 650_000
"""Typical size of a LiDAR file; images are taken at a third of a byte per pixel, masks included."""


def make(
    root: Path, options: SyntheticOptions, workers: int | None, overwrite: bool, progress: bool
) -> SyntheticSummary:
    """Make the set unless `root` holds it already. See `scenes.synthetic.make_synthetic`."""
    started = time.monotonic()
    root = root.resolve()
    if _holds_set(root, options, overwrite):
        return _summary(root, options, started, reused=True)
    _check_space(root.parent, options)
    with _scratch(root) as scratch:
        _make_folders(scratch)
        rendered = _render(scratch, options, workers or _cores(), progress)
        tables = Tables(options)
        for done in rendered.values():
            tables.add_scene(done[0].plan, [sighting for block in done for sighting in block.sightings], scratch)
        tables.write(scratch)
        (scratch / STAMP).write_text(json.dumps(options.stamp(), indent=1))
        _put_in_place(scratch, root)
    return _summary(root, options, started, reused=False)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _holds_set(root: Path, options: SyntheticOptions, overwrite: bool) -> bool:
    """Whether `root` is a complete set with these options; raises if it holds something that must not be replaced."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    stamp = root / STAMP
    if not stamp.is_file():
        fix = "choose another --out, or remove what is there yourself"
        raise UsageError(f"--out {root} exists and is not a synthetic set of this project", fix=fix)
    found = json.loads(stamp.read_text())
    if overwrite:
        return False
    if found == options.stamp():
        return True
    wanted = options.stamp()
    changed = ", ".join(f"{key} {found.get(key)} -> {wanted[key]}" for key in wanted if found.get(key) != wanted[key])
    fix = "add --overwrite to replace it, or choose another --out"
    raise UsageError(f"--out {root} holds a synthetic set made with other options ({changed})", fix=fix)


def _check_space(folder: Path, options: SyntheticOptions) -> None:
    while not folder.exists():
        folder = folder.parent
    shots = schedule(options, 0).shots
    images = sum(shot.channel != LIDAR for shot in shots)
    height, width = options.image_size
    need = options.scenes * (images * height * width // 3 + (len(shots) - images) * SWEEP_BYTES)
    free = shutil.disk_usage(folder).free
    if free < need:
        fix = "free space, choose --out on another disk, or ask for fewer --scenes or --samples"
        raise UsageError(f"{folder} has {free / 1e9:.1f} GB free, the set needs about {need / 1e9:.1f} GB", fix=fix)


@contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    """A hidden folder beside `root` that is gone afterwards, whatever happens."""
    scratch = root.parent / f".{root.name}{PARTIAL}{os.getpid()}"
    _sweep_up(root)
    try:
        scratch.mkdir(parents=True)
        yield scratch
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise UsageError(f"--out {root} cannot be written: {error}", fix="choose another --out") from error
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        fix = "free space or choose --out on another disk; nothing was left behind"
        raise BevnextError(f"the disk filled up while writing beside {root}", fix=fix) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _sweep_up(root: Path) -> None:
    """Remove what killed processes left beside `root`."""
    for left in root.parent.glob(f".{root.name}{PARTIAL}*"):
        owner = left.name.rpartition("-")[2]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def _make_folders(root: Path) -> None:
    for kind in ("samples", "sweeps"):
        for channel in (*CAMERAS, LIDAR):
            (root / kind / channel).mkdir(parents=True)
            (root / LABELS / kind / channel).mkdir(parents=True)
    for name in ("maps", VERSION):
        (root / name).mkdir()


def _put_in_place(scratch: Path, root: Path) -> None:
    """Swap the finished set in; an older one makes way only now."""
    old = root.parent / f".{root.name}.old-{os.getpid()}"
    if root.exists():
        root.rename(old)
    scratch.rename(root)
    shutil.rmtree(old, ignore_errors=True)


def _render(root: Path, options: SyntheticOptions, workers: int, progress: bool) -> Rendered:
    """Render all blocks; the blocks of each scene in their order."""
    rendered: Rendered = {scene: [] for scene in range(options.scenes)}
    pieces = _share_out(options, workers)
    with BlockProgress(options.scenes * options.samples_per_scene, progress) as display:
        results = _in_parallel(root, options, pieces, workers) if workers > 1 else _one_by_one(root, options, pieces)
        for scene, done in results:
            rendered[scene] += done
            display.advance(sum(len(block.sightings) for block in done))
    for done in rendered.values():
        done.sort(key=lambda block: block.sightings[0].sample)
    return rendered


def _share_out(options: SyntheticOptions, workers: int) -> list[Piece]:
    """Pieces of work: whole scenes where there are enough, as a scene is laid out once per worker that touches it."""
    work = blocks(options)
    if options.scenes < 4 * workers:
        return [[block] for block in work]
    return [list(members) for _, members in groupby(work, key=lambda block: block[0])]


def _one_by_one(
    root: Path, options: SyntheticOptions, pieces: list[Piece]
) -> Iterator[tuple[int, list[RenderedBlock]]]:
    quiet_worker()
    for piece in pieces:
        yield _work(options, root, piece)


_stop: Event | None = None


def _begin_worker(stop: Event, parent: int) -> None:
    """Runs in each worker: the parent handles Ctrl-C and says when to stop; a parent that is killed takes it along."""
    global _stop  # noqa: PLW0603 - the only way to hand an event to a pool's workers
    _stop = stop
    die_with_parent(signal.SIGKILL, parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet_worker()


def _work(options: SyntheticOptions, root: Path, piece: Piece) -> tuple[int, list[RenderedBlock]]:
    """Render the blocks of one piece, all of one scene."""
    stop = _stop
    done = []
    for scene, first in piece:
        done.append(render_block(options, root, scene, first, lambda: stop is not None and stop.is_set()))
    return piece[0][0], done


def _in_parallel(
    root: Path, options: SyntheticOptions, pieces: list[Piece], workers: int
) -> Iterator[tuple[int, list[RenderedBlock]]]:
    context = get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(
        min(workers, len(pieces)), mp_context=context, initializer=_begin_worker, initargs=(stop, os.getpid())
    )
    try:
        with _one_thread_each():
            futures = [pool.submit(_work, options, root, piece) for piece in pieces]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        fix = "the machine may have run out of memory: try fewer --workers"
        raise BevnextError("a rendering process was killed", fix=fix) from error
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started here do linear algebra on one thread: the processes are the parallelism."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _summary(root: Path, options: SyntheticOptions, started: float, reused: bool) -> SyntheticSummary:
    shots = schedule(options, 0).shots
    annotations = len(json.loads((root / VERSION / "sample_annotation.json").read_text()))
    return SyntheticSummary(
        root=root,
        version=VERSION,
        scenes=options.scenes,
        samples=options.scenes * options.samples_per_scene,
        images=options.scenes * sum(shot.channel != LIDAR for shot in shots),
        annotations=annotations,
        splits=options.splits(),
        seconds=time.monotonic() - started,
        reused=reused,
    )
