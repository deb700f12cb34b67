"""Which sample is read when: a pure function of (seed, epoch, position), whatever the number of processes.

An epoch is one global sequence of positions. Optimiser step `s` of an epoch reads positions `s * n` to `(s + 1) * n`,
`n` samples per step; ranks and micro-batches only share them out. So a run resumes at any step without loader state,
and on another number of ranks or workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from configs.class_balance import resampled_counts
from configs.schema import DataConfig

if TYPE_CHECKING:
    from scenes.index import SceneIndex

IntArray = NDArray[np.int64]

# First word of every seed: keeps the streams apart, also where the numbers that follow are equal.
_CLASS_BALANCE, _SHUFFLE, _AUGMENT = 1, 2, 3


class SampleKey(NamedTuple):
    """One read of a sample: its row in the index, and where in training it happens."""

    row: int
    epoch: int
    position: int


def augmentation_stream(seed: int, epoch: int, position: int) -> np.random.Generator:
    """The random numbers that augment the sample at one position of one epoch."""
    return np.random.default_rng((_AUGMENT, seed, epoch, position))


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """How the samples of an optimiser step are shared out."""

    rank: int
    world: int
    micro_batch: int
    """Samples per forward pass of one rank."""
    accumulation: int
    """Forward passes of one rank per optimiser step."""

    @property
    def samples_per_step(self) -> int:
        """Samples per optimiser step, over all ranks and micro-batches."""
        return self.world * self.micro_batch * self.accumulation

    def offsets(self, pass_number: int) -> range:
        """Offsets within a step of the samples that this rank reads in one of its forward passes."""
        first = (pass_number * self.world + self.rank) * self.micro_batch
        return range(first, first + self.micro_batch)


@dataclass(frozen=True, slots=True, eq=False)
class EpochOrder:
    """The order of every epoch."""

    rows: IntArray
    """int64 `[n]`: the rows of one epoch before shuffling, some of them repeated."""
    seed: int

    def __len__(self) -> int:
        return len(self.rows)

    def steps_per_epoch(self, samples_per_step: int) -> int:
        """Optimiser steps of an epoch; the last one is filled up from the epoch's beginning, as published."""
        return -(-len(self) // samples_per_step)

    def shuffled(self, epoch: int) -> IntArray:
        """int64 `[n]`: the rows of `epoch` by position."""
        return np.random.default_rng((_SHUFFLE, self.seed, epoch)).permutation(self.rows)


def training_order(index: SceneIndex, rows: Sequence[int] | IntArray, config: DataConfig, seed: int) -> EpochOrder:
    """The order of training on `rows`, class-balanced where the recipe says so."""
    chosen = np.asarray(rows, np.int64)
    if config.class_balanced:
        chosen = chosen[class_balanced(index.class_counts(chosen), seed)]
    return EpochOrder(chosen, seed)


def class_balanced(class_counts: IntArray, seed: int) -> IntArray:
    """Class-balanced grouping and sampling (CBGS, arXiv 1908.09492), drawn once from the seed.

    For every class, samples that show it are drawn with replacement until all classes have been given the same share.

    Args:
        class_counts: `[n, classes]`, boxes of each class in each sample.

    Returns:
        int64 positions 0..n of one epoch, class by class.
    """
    rng = np.random.default_rng((_CLASS_BALANCE, seed))
    shown = [np.flatnonzero(column) for column in np.asarray(class_counts).T]
    counts = resampled_counts([len(samples) for samples in shown])
    drawn = [rng.choice(samples, count) for samples, count in zip(shown, counts, strict=True) if count]
    return np.concatenate(drawn).astype(np.int64) if drawn else np.empty(0, np.int64)
