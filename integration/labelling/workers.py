"""Scenes shared out to processes. Each computes with one CPU thread, so the labels do not depend on their number."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from threading import Thread
from typing import Any

import torch

from configs.errors import BevnextError
from integration.labelling.options import LabelOptions
from integration.labelling.records import Counts
from integration.labelling.scene_labels import SceneLabeller, SceneTask
from integration.masks.session import chosen_device

Done = tuple[str, Counts]
"""Name of a scene whose file is written, and its counts."""


def label_scenes(options: LabelOptions, tasks: Sequence[SceneTask]) -> Iterator[Done]:
    """Label scenes; yields each when it is done, in any order.

    Raises:
        BevnextError: a process died; what is done stays.
    """
    if options.workers == 1 or len(tasks) <= 1:
        with _one_thread():
            labeller = SceneLabeller(options, _device(options, 0))
            for task in tasks:
                yield task.scene.name, labeller.label(task).counts
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy CUDA's state and torch's locks
    workers = min(options.workers, len(tasks))
    started, ended = context.Value("i", 0), context.Event()
    with ProcessPoolExecutor(workers, context, _start_worker, (options, started, ended)) as pool:
        waiting = [pool.submit(_label_one, task) for task in tasks]
        try:
            for future in as_completed(waiting):
                yield future.result()
        except BrokenProcessPool as error:
            raise BevnextError(
                "a worker process died; memory running out is the usual reason",
                fix="start the same command again: it goes on where it was; fewer --workers take less memory",
            ) from error
        finally:
            ended.set()
            pool.shutdown(wait=False, cancel_futures=True)


_labeller: SceneLabeller | None = None
"""Of this worker process."""
_ended: Any = None
"""Set when another scene has failed: those that wait in the pool's pipe cannot be called back."""


def _start_worker(options: LabelOptions, started: Any, ended: Any) -> None:
    global _labeller, _ended  # noqa: PLW0603  (a pool hands its initialiser's work over in no other way)
    signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))  # the parent says what happened
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    with started.get_lock():
        number = started.value
        started.value += 1
    _ended = ended
    _labeller = SceneLabeller(options, _device(options, number))


def _end_with_parent() -> None:
    """A parent that was killed leaves workers waiting for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _label_one(task: SceneTask) -> Done:
    assert _labeller is not None
    if _ended.is_set():
        return task.scene.name, {}
    return task.scene.name, _labeller.label(task).counts


def _device(options: LabelOptions, number: int) -> torch.device:
    """Of the n-th process: without a number in `--device`, GPUs are shared out in turn."""
    device = chosen_device(options.device)
    if device.type != "cuda":
        return device
    if device.index is None:
        device = torch.device("cuda", number % torch.cuda.device_count())
    torch.cuda.set_device(device)  # SAM 2 puts tables on the current device while it is built
    return device


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
