"""Batches of samples from worker processes, for training and for evaluation."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from configs.errors import DamagedFileError, DataError
from configs.process_death import die_with_parent
from scenes.dataset import SceneDataset
from scenes.order import BatchLayout, SampleKey, TrainingOrder
from scenes.sample import Batch, Sample, collate

_PREFETCH = 2  # batches each worker prepares ahead
_MOST_DAMAGED = 100  # samples passed over for one batch; more of them are no accident


class TrainingSampler(Sampler[list[SampleKey]]):
    """The micro-batches of one rank for optimiser steps `first_step` to `stop_step`, counted over all epochs."""

    def __init__(self, order: TrainingOrder, layout: BatchLayout, first_step: int, stop_step: int) -> None:
        self.order = order
        self.layout = layout
        self.steps = range(first_step, stop_step)

    def __len__(self) -> int:
        return len(self.steps) * self.layout.accumulation

    def __iter__(self) -> Iterator[list[SampleKey]]:
        samples_per_step = self.layout.samples_per_step
        steps_per_epoch = self.order.steps_per_epoch(samples_per_step)
        epochs = groupby(self.steps, lambda step: step // steps_per_epoch)
        for epoch, steps in epochs:
            read = self.order.reads(epoch, samples_per_step)
            for step in steps:
                first = step % steps_per_epoch * samples_per_step
                for pass_number in range(self.layout.accumulation):
                    yield [read(first + offset) for offset in self.layout.offsets(pass_number)]


class EvaluationSampler(Sampler[list[int]]):
    """Positions of a data set in order, whole batches dealt to the ranks in turn: none twice, none left out.

    A batch is then the same batch whatever the number of ranks.
    """

    def __init__(self, samples: int, batch_size: int, rank: int, world: int) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.starts = range(rank * batch_size, samples, world * batch_size)

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[list[int]]:
        for start in self.starts:
            yield list(range(start, min(start + self.batch_size, self.samples)))


def training_batches(
    dataset: SceneDataset,
    order: TrainingOrder,
    layout: BatchLayout,
    *,
    first_step: int,
    stop_step: int,
    workers: int,
    pin_memory: bool = False,
    skip_damaged: bool = False,
) -> BatchLoader:
    """One stream of this rank's micro-batches, `layout.accumulation` of them per optimiser step.

    Steps count over all epochs, so workers go on reading while an epoch ends; to resume, give another `first_step`.
    With `skip_damaged` another sample stands in for one that cannot be read: a pure function of the data, too.
    """
    sampler = TrainingSampler(order, layout, first_step, stop_step)
    return BatchLoader(dataset, sampler, workers, pin_memory, skip_damaged)


def evaluation_batches(
    dataset: SceneDataset,
    *,
    rank: int = 0,
    world: int = 1,
    batch_size: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> BatchLoader:
    """This rank's part of the data set, in order."""
    return BatchLoader(dataset, EvaluationSampler(len(dataset), batch_size, rank, world), workers, pin_memory)


class BatchLoader:
    """Batches in the order of a sampler, read by `workers` processes of one thread each (0: by this process).

    Args:
        batches: lists of what `dataset` is indexed with, one list per batch.
        pin_memory: hand batches over in page-locked memory, for copies to a GPU beside computation.
        skip_damaged: let other samples stand in for those that cannot be read, and name them in `Batch.damaged`.
    """

    def __init__(
        self,
        dataset: SceneDataset,
        batches: Sampler[Any],
        workers: int,
        pin_memory: bool = False,
        skip_damaged: bool = False,
    ) -> None:
        self._loader: DataLoader[Batch | DataError] = DataLoader(
            _BatchReader(dataset, skip_damaged),
            sampler=batches,
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            prefetch_factor=_PREFETCH if workers else None,
            worker_init_fn=_begin_worker,
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        others = set(multiprocessing.active_children())
        with _stop_signals_held():
            batches = iter(self._loader)
        # Python ends its children with SIGTERM at exit and waits for them: these do not listen
        Finalize(None, _kill, args=(set(multiprocessing.active_children()) - others,), exitpriority=0)
        for batch in batches:
            if isinstance(batch, DataError):
                raise batch
            yield batch


class _BatchReader(Dataset[Any]):
    """Reads whole batches. Faults of the data are returned: an exception would arrive here as a worker's traceback."""

    def __init__(self, dataset: SceneDataset, skip_damaged: bool) -> None:
        self.dataset = dataset
        self.skip_damaged = skip_damaged

    def __getitem__(self, keys: list[int] | list[SampleKey]) -> Batch | DataError:
        damaged: list[str] = []
        try:
            return replace(collate([self._read(key, damaged) for key in keys]), damaged=damaged)
        except DataError as error:
            return error

    def _read(self, key: int | SampleKey, damaged: list[str]) -> Sample:
        """The sample, or the first readable one after it; the tokens of those passed over go to `damaged`."""
        try:
            return self.dataset[key]
        except DamagedFileError:
            if not (self.skip_damaged and isinstance(key, SampleKey) and len(damaged) < _MOST_DAMAGED):
                raise
            damaged.append(self.dataset.index.frame(key.row).token)
            return self._read(key._replace(row=self.dataset.row_after(key.row)), damaged)


@contextmanager
def _stop_signals_held() -> Iterator[None]:
    """Workers started here never get these signals, which launchers send to whole process groups.

    The process that reads decides what to do; when it is gone, or done, its workers end by themselves.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(number: int) -> None:
    """Whatever kills the process that reads, even SIGKILL, its workers do not outlive it."""
    del number
    die_with_parent(signal.SIGKILL)


def _kill(workers: set[BaseProcess]) -> None:
    """End what is left of the workers when this process exits."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would complain of their death
    for worker in workers:
        worker.kill()


def _as_it_is(batch: Any) -> Any:
    return batch
