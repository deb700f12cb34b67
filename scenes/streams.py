"""Samples on the way along scenes: each frame's images are read once, and remembered by who evaluates.

A sample of several frames shares all but one with the sample before it. Whoever keeps what it made of a frame needs the
key frame's images alone, in the order of the scene; a run that begins within a scene is led in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from scenes.dataset import SceneDataset
from scenes.order import SampleKey


@dataclass(frozen=True, slots=True)
class Stretch:
    """The samples of one batch."""

    frames: tuple[tuple[int, ...], ...]
    """Per sample the rows of its frames, the key frame first."""
    wanted: bool
    """Whether results are asked for, or their key frames alone, for samples that follow."""

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows of the samples."""
        return tuple(own[0] for own in self.frames)


def along_scenes(
    dataset: SceneDataset, rows: Sequence[int] | NDArray[np.int64], batch_size: int, rank: int = 0, world: int = 1
) -> list[Stretch]:
    """The batches of one rank: whole scenes are dealt to the ranks in turn, so a batch is the same for any number.

    After the samples of a wanted stretch, the frames of exactly those samples need be remembered.
    """
    ordered = sorted({int(row) for row in rows})
    scenes = [list(own) for _, own in groupby(ordered, lambda row: dataset.index.scene_of(row).first_row)]
    return [stretch for own in scenes[rank::world] for stretch in _along(dataset, own, batch_size)]


def _along(dataset: SceneDataset, rows: list[int], batch_size: int) -> Iterator[Stretch]:
    remembered: set[int] = set()
    for wanted in _chunks(rows, batch_size):
        used = {frame for row in wanted for frame in dataset.frame_rows(row)}
        for lead_in in _chunks(sorted(used - remembered - set(wanted)), batch_size):
            yield _stretch(dataset, lead_in, wanted=False)
        yield _stretch(dataset, wanted, wanted=True)
        remembered = used


def _stretch(dataset: SceneDataset, rows: list[int], wanted: bool) -> Stretch:
    return Stretch(tuple(tuple(dataset.frame_rows(row)) for row in rows), wanted)


def _chunks(rows: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


class StreamSampler(Sampler[list[SampleKey]]):
    """The batches of stretches."""

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        self.stretches = stretches

    def __len__(self) -> int:
        return len(self.stretches)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for stretch in self.stretches:
            yield [SampleKey(row, 0, 0) for row in stretch.rows]
