"""Examples for training without end, in an order that depends on the seed and the place in it alone.

So a training can go on at any place with any number of loader processes.
"""

from __future__ import annotations

import hashlib
import itertools
import signal
from collections.abc import Generator, Iterator
from typing import cast

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from configs.errors import DataError
from configs.process_death import die_with_parent
from configs.stop_signal import STOP_SIGNALS
from integration.masks.examples import MaskData, MaskExample


def batches_from(
    data: MaskData, start: int, images: int, workers: int, seed: int
) -> Generator[tuple[list[MaskExample], int], None, None]:
    """Batches of `images` examples that show an object, and the place of the next example.

    Args:
        start: place of the first example; all data come once in each len(`data`) places.
        workers: processes that read.

    Raises:
        DataError: there are no data, or no object in any of them.
    """
    if len(data) == 0:
        raise DataError("the training data hold no image", fix="give other data")
    loader: DataLoader[MaskExample] = DataLoader(
        cast(Dataset[MaskExample], data),
        batch_size=None,
        sampler=_Order(len(data), start, seed),
        num_workers=workers,
        worker_init_fn=_begin_worker,
    )
    batch: list[MaskExample] = []
    empty = 0
    for place, example in enumerate(loader, start=start):
        if len(example.boxes) == 0:
            empty += 1
            if empty == len(data):
                raise DataError("no image of the training data shows an object", fix="give other data")
            continue
        empty = 0
        batch.append(data.varied(example, generator_of(seed, "variation", place)))
        if len(batch) == images:
            yield batch, place + 1
            batch = []


def generator_of(seed: int, what: str, number: int) -> torch.Generator:
    """A generator that nothing but its arguments decides."""
    digest = hashlib.sha256(f"{seed}/{what}/{number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class _Order(Sampler[int]):
    """Positions from a place on: each round of the data in an order of its own."""

    def __init__(self, count: int, start: int, seed: int) -> None:
        self.count, self.start, self.seed = count, start, seed

    def __iter__(self) -> Iterator[int]:
        first, skipped = divmod(self.start, self.count)
        for number in itertools.count(first):
            order = torch.randperm(self.count, generator=generator_of(self.seed, "round", number)).tolist()
            yield from order[skipped if number == first else 0 :]


def _begin_worker(number: int) -> None:
    """A stop signal is for the parent, which still needs the batches of its last step."""
    del number
    for stop in STOP_SIGNALS:
        signal.signal(stop, signal.SIG_IGN)
    die_with_parent(signal.SIGKILL)
