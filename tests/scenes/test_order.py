"""The order of training: the same samples at the same steps, however many processes share them."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from configs.schema import DataConfig
from scenes.loader import EvaluationSampler, TrainingSampler
from scenes.order import BatchLayout, EpochOrder, SampleKey, augmentation_stream, class_balanced, training_order

ROWS = np.arange(100, 145)


def keys(world: int, micro_batch: int, accumulation: int, first_step: int, stop_step: int) -> list[set[SampleKey]]:
    """The samples of each optimiser step, over all ranks and micro-batches."""
    order = EpochOrder(ROWS, seed=3)
    steps: list[set[SampleKey]] = [set() for _ in range(first_step, stop_step)]
    for rank in range(world):
        sampler = TrainingSampler(order, BatchLayout(rank, world, micro_batch, accumulation), first_step, stop_step)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        for number, batch in enumerate(batches):
            assert len(batch) == micro_batch
            assert not steps[number // accumulation] & set(batch)
            steps[number // accumulation] |= set(batch)
    return steps


@pytest.mark.parametrize("world, micro_batch, accumulation", [(1, 1, 8), (8, 1, 1), (2, 2, 2), (4, 2, 1), (2, 4, 1)])
def test_a_step_reads_the_same_samples_in_every_layout(world, micro_batch, accumulation):
    assert keys(world, micro_batch, accumulation, 0, 13) == keys(1, 8, 1, 0, 13)


def test_a_run_resumes_at_any_step():
    assert keys(2, 2, 2, 7, 13) == keys(1, 8, 1, 0, 13)[7:]


def test_an_epoch_reads_every_row_and_fills_up_its_last_step():
    steps = keys(1, 8, 1, 0, 12)
    for epoch in (0, 1):
        read = sorted(chain.from_iterable(steps[epoch * 6 : epoch * 6 + 6]), key=lambda key: key.position)
        assert [key.position for key in read] == list(range(48))
        assert {key.epoch for key in read} == {epoch}
        assert sorted(key.row for key in read[:45]) == ROWS.tolist()
        assert [key.row for key in read[45:]] == [key.row for key in read[:3]]


def test_epochs_and_seeds_differ_and_repeat():
    order = EpochOrder(ROWS, seed=3)
    assert order.shuffled(0).tolist() == EpochOrder(ROWS, seed=3).shuffled(0).tolist()
    assert order.shuffled(0).tolist() != order.shuffled(1).tolist()
    assert order.shuffled(0).tolist() != EpochOrder(ROWS, seed=4).shuffled(0).tolist()
    assert order.steps_per_epoch(8) == 6
    assert order.steps_per_epoch(45) == 1


def test_a_step_may_be_larger_than_an_epoch():
    sampler = TrainingSampler(EpochOrder(ROWS[:3], seed=0), BatchLayout(0, 1, 8, 1), 0, 2)
    assert [{key.row for key in batch} for batch in sampler] == [{100, 101, 102}] * 2


def test_augmentation_streams_depend_on_each_number():
    first = [augmentation_stream(*numbers).random() for numbers in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert len(set(first)) == 4
    assert augmentation_stream(5, 6, 7).random() == augmentation_stream(5, 6, 7).random()


class CountedIndex:
    """As much of an index as the order asks for."""

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = counts

    def class_counts(self, rows: np.ndarray) -> np.ndarray:
        return self.counts[rows]


def test_class_balance_draws_the_published_numbers():
    rng = np.random.default_rng(0)
    counts = np.zeros((500, 10), np.int64)
    for label, share in enumerate((0.9, 0.5, 0.3, 0.2, 0.1, 0.1, 0.05, 0.02, 0.01, 0.0)):
        counts[:, label] = (rng.random(500) < share) * rng.integers(1, 9, 500)
    shown = (counts > 0).sum(axis=0)
    drawn = class_balanced(counts, seed=0)
    per_class = [int(n * (0.1 / (n / shown.sum()))) for n in shown if n]
    assert len(drawn) == sum(per_class)
    start = 0
    for label, number in zip(np.flatnonzero(shown), per_class, strict=True):
        assert (counts[drawn[start : start + number], label] > 0).all()
        start += number
    np.testing.assert_array_equal(drawn, class_balanced(counts, seed=0))
    assert (drawn != class_balanced(counts, seed=1)).any()


def test_the_recipe_decides_about_class_balance():
    counts = np.zeros((200, 10), np.int64)
    counts[:, 0] = 1
    counts[150, 7] = 2
    index = CountedIndex(counts)
    rows = np.arange(100, 200)
    plain = training_order(index, rows, DataConfig(class_balanced=False), 0)
    assert plain.rows.tolist() == rows.tolist()
    balanced = training_order(index, rows, DataConfig(), 0)
    assert len(balanced) == 20  # a tenth of 101 for each of the two classes that occur
    assert (balanced.rows[10:] == 150).all()
    assert set(balanced.rows) <= set(rows)


def test_no_boxes_at_all_give_no_epoch():
    assert len(class_balanced(np.zeros((5, 10), np.int64), 0)) == 0


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_evaluation_reads_every_sample_once_in_the_same_batches(world):
    alone = list(EvaluationSampler(23, 4, 0, 1))
    assert list(chain.from_iterable(alone)) == list(range(23))
    shares = [list(EvaluationSampler(23, 4, rank, world)) for rank in range(world)]
    assert sorted(chain.from_iterable(shares)) == alone
    assert [len(EvaluationSampler(23, 4, rank, world)) for rank in range(world)] == [len(share) for share in shares]
