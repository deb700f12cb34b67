"""Which sample is read when: a pure function of (seed, epoch, position), whatever the number of processes.

An epoch is one global sequence of positions. Optimiser step `s` of an epoch reads positions `s * n` to `(s + 1) * n`,
`n` samples per step; ranks and micro-batches only share them out. So a run resumes at any step without loader state,
and on another number of ranks or workers.

Samples are shuffled; or, for training that carries earlier frames on, every slot of a step walks along scenes: the
sample at position `p + n` is then the one that was recorded after the sample at position `p`, until its scene ends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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
_CLASS_BALANCE, _SHUFFLE, _AUGMENT, _WALK = 1, 2, 3, 4


class WalkPlace(NamedTuple):
    """Where on a walk along a scene a sample is read."""

    slot: int
    """Which of the samples of an optimiser step, whatever the ranks and micro-batches."""
    age: int
    """Samples that the walk has read before."""
    begun: int
    """Position of the walk's first sample."""


class SampleKey(NamedTuple):
    """One read of a sample: its row in the index, and where in training it happens."""

    row: int
    epoch: int
    position: int
    walk: WalkPlace | None = None
    """Of training along scenes."""


def augmentation_stream(seed: int, epoch: int, position: int) -> np.random.Generator:
    """The random numbers that augment the sample at one position of one epoch."""
    return np.random.default_rng((_AUGMENT, seed, epoch, position))


def walk_stream(seed: int, epoch: int, begun: int) -> np.random.Generator:
    """The random numbers that augment the BEV frame of all samples of a walk."""
    return np.random.default_rng((_WALK, seed, epoch, begun))


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


class TrainingOrder(ABC):
    """The order of every epoch."""

    @abstractmethod
    def __len__(self) -> int:
        """Samples of an epoch."""

    @abstractmethod
    def reads(self, epoch: int, samples_per_step: int) -> Callable[[int], SampleKey]:
        """The read at each position of `epoch`."""

    def steps_per_epoch(self, samples_per_step: int) -> int:
        """Optimiser steps of an epoch; the last one is filled up from the epoch's beginning, as published."""
        return -(-len(self) // samples_per_step)


@dataclass(frozen=True, eq=False)
class EpochOrder(TrainingOrder):
    """Samples shuffled."""

    rows: IntArray
    """int64 `[n]`: the rows of one epoch before shuffling, some of them repeated."""
    seed: int

    def __len__(self) -> int:
        return len(self.rows)

    def shuffled(self, epoch: int) -> IntArray:
        """int64 `[n]`: the rows of `epoch` by position."""
        return _shuffled(self.rows, self.seed, epoch)

    def reads(self, epoch: int, samples_per_step: int) -> Callable[[int], SampleKey]:
        del samples_per_step
        rows = self.shuffled(epoch)
        return lambda position: SampleKey(int(rows[position % len(rows)]), epoch, position)


@dataclass(frozen=True, eq=False)
class WalkingOrder(TrainingOrder):
    """Along scenes: every slot of a step walks through samples as they were recorded.

    An epoch is one line of all samples: chunks of scenes, shuffled. It is cut into one part of equal length for each
    slot, so an epoch reads every sample once, in as many steps as any other order. A walk begins with a chunk, or
    within it where a slot's part of the line does.
    """

    chunks: tuple[IntArray, ...]
    """int64 rows of samples that follow each other in one scene."""
    seed: int

    def __len__(self) -> int:
        return sum(map(len, self.chunks))

    def reads(self, epoch: int, samples_per_step: int) -> Callable[[int], SampleKey]:
        chunks = [self.chunks[number] for number in _shuffled(np.arange(len(self.chunks)), self.seed, epoch)]
        line = np.concatenate(chunks)
        ahead = np.concatenate([np.arange(len(chunk)) for chunk in chunks])
        steps = self.steps_per_epoch(samples_per_step)

        def read(position: int) -> SampleKey:
            step, slot = divmod(position, samples_per_step)
            place = (slot * steps + step) % len(line)
            age = min(step, int(ahead[place]))
            walk = WalkPlace(slot, age, begun=position - age * samples_per_step)
            return SampleKey(int(line[place]), epoch, position, walk)

        return read


def _shuffled(values: IntArray, seed: int, epoch: int) -> IntArray:
    return np.random.default_rng((_SHUFFLE, seed, epoch)).permutation(values)


def training_order(index: SceneIndex, rows: Sequence[int] | IntArray, config: DataConfig, seed: int) -> TrainingOrder:
    """The order of training on `rows`: along scenes, or class-balanced, where the recipe says so."""
    chosen = np.asarray(rows, np.int64)
    if config.streaming:
        return WalkingOrder(scene_chunks(index, chosen, config.streaming.chunk), seed)
    if config.class_balanced:
        chosen = chosen[class_balanced(index.class_counts(chosen), seed)]
    return EpochOrder(chosen, seed)


def scene_chunks(index: SceneIndex, rows: IntArray, longest: int) -> tuple[IntArray, ...]:
    """Rows cut where a scene ends or a sample between them is missing, and evenly into at most `longest` each."""
    ordered = np.unique(rows)
    scenes = np.array([index.scene_of(int(row)).first_row for row in ordered])
    ends = np.flatnonzero((np.diff(ordered) != 1) | (np.diff(scenes) != 0)) + 1
    stretches = np.split(ordered, ends)
    return tuple(chunk for stretch in stretches for chunk in np.array_split(stretch, -(-len(stretch) // longest)))


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
