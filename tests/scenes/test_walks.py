"""Training along scenes: every slot of a step reads a scene in order, whoever shares the slots."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch

from configs.errors import UsageError
from configs.recipes import load_recipe
from configs.schema import DataConfig, StreamingConfig
from scenes.dataset import SceneDataset
from scenes.index import SceneIndex
from scenes.loader import TrainingSampler, training_batches
from scenes.order import BatchLayout, SampleKey, WalkingOrder, scene_chunks, training_order

STREAMING = DataConfig(class_balanced=False, frames=3, streaming=StreamingConfig(chunk=4))
SLOTS = 4
ROWS = np.arange(7, 28)


@dataclass
class Scene:
    first_row: int


class ScenesOfSeven:
    """As much of an index as the order asks for."""

    def scene_of(self, row: int) -> Scene:
        return Scene(row // 7 * 7)


def order_of(rows: np.ndarray = ROWS, seed: int = 3) -> WalkingOrder:
    """Three scenes of seven samples, cut into chunks of three and four."""
    order = training_order(ScenesOfSeven(), rows, STREAMING, seed)
    assert isinstance(order, WalkingOrder)
    return order


def reads(layout: tuple[int, int, int], first_step: int, stop_step: int) -> list[dict[int, SampleKey]]:
    """Of each optimiser step, over all ranks and micro-batches: the read of each slot."""
    world, micro_batch, accumulation = layout
    steps: list[dict[int, SampleKey]] = [{} for _ in range(first_step, stop_step)]
    for rank in range(world):
        sampler = TrainingSampler(order_of(), BatchLayout(rank, *layout), first_step, stop_step)
        for number, batch in enumerate(sampler):
            assert len(batch) == micro_batch
            steps[number // accumulation] |= {key.walk.slot: key for key in batch if key.walk}
    assert all(sorted(step) == list(range(world * micro_batch * accumulation)) for step in steps)
    return steps


@pytest.mark.parametrize("layout", [(4, 1, 1), (1, 1, 4), (2, 1, 2), (2, 2, 1)])
def test_a_slot_reads_the_same_samples_in_every_layout_and_from_any_step(layout):
    assert reads(layout, 0, 13) == reads((1, SLOTS, 1), 0, 13)
    assert reads(layout, 4, 13) == reads((1, SLOTS, 1), 0, 13)[4:]


def test_an_epoch_reads_every_sample_once_and_fills_up_its_last_steps():
    order = order_of()
    steps = order.steps_per_epoch(SLOTS)
    assert steps == 6
    for epoch in (0, 1):
        found = [key for step in reads((1, SLOTS, 1), epoch * steps, (epoch + 1) * steps) for key in step.values()]
        assert sorted(key.position for key in found) == list(range(steps * SLOTS))
        counts = np.bincount([key.row for key in found])[7:]
        assert (counts >= 1).all()
        assert counts.sum() == 24


def test_a_walk_follows_its_scene():
    steps = reads((1, SLOTS, 1), 0, 12)
    lengths = []
    for slot in range(SLOTS):
        for before, now in pairwise(step[slot] for step in steps):
            if now.walk.age:
                assert now.row == before.row + 1
                assert now.row // 7 == before.row // 7
                assert now.walk == before.walk._replace(age=before.walk.age + 1)
            else:
                assert now.walk.begun == now.position
                lengths.append(before.walk.age + 1)
    assert max(lengths) == 4
    assert {step[slot].walk.age for step in steps[::6] for slot in range(SLOTS)} == {0}  # walks end with their epoch


def test_epochs_and_seeds_differ_and_repeat():
    first, again = (tuple(map(order_of().reads(0, SLOTS), range(21))) for _ in range(2))
    assert first == again
    others = (order_of().reads(1, SLOTS), order_of(seed=4).reads(0, SLOTS))
    assert all([other(position).row for position in range(21)] != [key.row for key in first] for other in others)


def test_a_step_may_be_larger_than_an_epoch():
    read = order_of(np.arange(7, 10)).reads(0, 8)
    assert [read(position).row for position in range(8)] == [7, 8, 9, 7, 8, 9, 7, 8]
    assert {read(position).walk.age for position in range(8)} == {0}


def test_chunks_end_with_scenes_and_where_a_sample_is_missing():
    rows = np.array([0, 1, 2, 4, 5, 6, 7, 8])
    chunks = scene_chunks(ScenesOfSeven(), rows, longest=2)
    assert [chunk.tolist() for chunk in chunks] == [[0, 1], [2], [4, 5], [6], [7, 8]]
    assert [len(chunk) for chunk in scene_chunks(ScenesOfSeven(), np.arange(7), longest=20)] == [7]


def test_a_walk_keeps_its_bev_frame_and_reads_one_frame(index: SceneIndex):
    config = STREAMING.model_copy(update={"source_size": (180, 320), "image_size": (64, 176)})
    rows = np.arange(len(index))
    order = training_order(index, rows, config, seed=0)
    dataset = SceneDataset(index, rows, config, True, seed=0, key_images_only=True)
    batches = list(training_batches(dataset, order, BatchLayout(0, 1, 2, 1), first_step=0, stop_step=6, workers=0))
    assert [batch.walk for batch in batches[:3]] == [[(0, age), (1, age)] for age in range(3)]
    for before, now in pairwise(batches[:3]):
        assert now.images.shape[1] == 1
        assert torch.equal(now.rows, before.rows + 1)
        assert torch.equal(now.bev_from_ego, before.bev_from_ego)
        assert not torch.equal(now.canvas_from_img, before.canvas_from_img)
    assert not torch.equal(batches[3].bev_from_ego, batches[0].bev_from_ego)
    assert not torch.equal(batches[0].bev_from_ego[0], batches[0].bev_from_ego[1])
    assert batches[0].to("cpu").walk == batches[0].walk


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.class_balanced=true"], "data.class_balanced draws single samples"),
        (["data.frames=1", "model.bev_encoder.fusion=null"], "data.frames = 1 uses none"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(changes, message):
    with pytest.raises(UsageError, match=message) as refused:
        load_recipe("bevnext/bevnext-stage2-streaming", changes)
    assert "data." in refused.value.fix
