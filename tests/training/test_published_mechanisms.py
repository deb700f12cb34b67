"""What the published recipes are made of: their numbers, class balance, the moving average, synchronised batch norm."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import run_ranks
from torch import nn
from toy import ToyDetector, step_batches, toy_plan, toy_recipe, toy_trainer

from configs.class_balance import resampled_counts
from configs.recipes import load_recipe
from configs.schema import EmaConfig
from scenes.order import class_balanced
from training.moving_average import MovingAverage
from training.norm_switch import NormSwitch
from training.optimizer import build_optimizer
from training.world import World

RECIPES = ("bevnext-stage1", "bevnext-stage2", "bevnext-pers-pretrained-stage1", "bevnext-pers-pretrained-stage2")


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_say_what_was_published(name: str) -> None:
    recipe = load_recipe(f"bevnext/{name}")
    second, perspective = name.endswith("2"), "pers" in name
    assert recipe.data.frames == (9 if second else 1)
    assert recipe.data.class_balanced
    assert recipe.model.bev.channels == (160 if second else 80)
    assert recipe.model.head.velocity_weight == (1.0 if second else 0.2)
    backbone = "nuimages-cascade-rcnn-r50" if perspective else "torchvision-resnet50"
    assert recipe.model.backbone.weights == (None if second else backbone)
    assert recipe.model.hand_over == (name.replace("stage2", "stage1") if second else None)
    optimizer = recipe.optimizer
    assert optimizer.reference_batch == (128 if second else 64)
    assert optimizer.learning_rate / optimizer.reference_batch == pytest.approx(2e-4 / 64)
    assert optimizer.backbone_multiplier == (0.75 if perspective else 1.0)
    assert (optimizer.weight_decay, optimizer.clip_norm, optimizer.device_batch) == (1e-2, 5.0, 8)
    assert (recipe.schedule.warmup_steps, recipe.schedule.warmup_ratio, recipe.schedule.shape) == (
        200,
        1e-3,
        "constant",
    )
    assert recipe.schedule.epochs == (12 if second else 2)
    assert recipe.engine.ema == EmaConfig(decay=0.999, ramp=2000.0, init_updates=10560)
    assert (recipe.engine.sync_bn.from_epoch if recipe.engine.sync_bn else None) == (8 if second else None)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_class_gets_the_same_share_of_an_epoch(data: st.DataObject) -> None:
    samples, classes = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 10))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shares = random.uniform(0, 1, classes)
    counts = (random.random((samples, classes)) < shares) * random.integers(1, 9, (samples, classes))
    drawn = class_balanced(counts, seed=3)
    frames = (counts > 0).sum(0)
    sizes = resampled_counts(frames.tolist())
    assert len(drawn) == sum(sizes)
    for label, own in enumerate(np.split(drawn, np.cumsum(sizes)[:-1])):
        share = frames.sum() / classes if frames[label] else 0
        assert share - 1 - 1e-9 <= len(own) <= share + 1e-9  # truncated
        assert (counts[own, label] > 0).all()
    np.testing.assert_array_equal(drawn, class_balanced(counts, seed=3))


def test_the_average_is_the_published_loop() -> None:
    detector = ToyDetector(norm=True)
    config = EmaConfig(decay=0.999, ramp=2000.0, init_updates=10560)
    ours, theirs, updates = MovingAverage(detector, config), copy.deepcopy(detector).double(), config.init_updates
    for step in range(1, 30):
        with torch.no_grad():
            for value in detector.state_dict().values():
                value.add_(torch.randn(value.shape) if value.is_floating_point() else 1)
        ours.update(step)
        updates += 1
        decay = 0.999 * (1 - math.exp(-updates / 2000))
        for name, value in theirs.state_dict().items():
            if value.is_floating_point():
                value.mul_(decay).add_((1 - decay) * detector.state_dict()[name].double())
    for name, value in ours.detector.state_dict().items():
        torch.testing.assert_close(value.double(), theirs.state_dict()[name].double(), rtol=0, atol=1e-6)
    assert ours.detector.state_dict()["norm.num_batches_tracked"] == 0  # integers are not averaged


def test_batch_norm_is_synchronised_from_its_epoch_on() -> None:
    recipe = toy_recipe("engine.sync_bn.from_epoch=2")
    world = World(rank=0, size=2, device=torch.device("cuda", 0))  # nothing is computed
    plan = toy_plan(recipe, world, batch_size=4)
    detector = ToyDetector(norm=True)
    optimizer = build_optimizer(detector, recipe.optimizer, 1e-3)
    average = MovingAverage(detector, EmaConfig(decay=0.5, ramp=1.0, init_updates=0))
    before = detector.state_dict(keep_vars=True)
    switch = NormSwitch(recipe.engine, plan, world)
    for step in range(2 * plan.steps_per_epoch):
        switch.before_step(detector, step)
        assert isinstance(detector.norm, nn.BatchNorm1d)
    switch.before_step(detector, 2 * plan.steps_per_epoch)
    assert isinstance(detector.norm, nn.SyncBatchNorm)
    after = detector.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)  # optimiser, average and DDP hold these very tensors
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == set(map(id, detector.parameters()))
    with torch.no_grad():
        detector.get_buffer("norm.running_mean").fill_(4.0)
    average.update(1)
    assert (average.detector.get_buffer("norm.running_mean") > 0).all()
    resumed = ToyDetector(norm=True)
    NormSwitch(recipe.engine, plan, world).before_step(resumed, 5 * plan.steps_per_epoch)  # taken up later
    assert isinstance(resumed.norm, nn.SyncBatchNorm)


def test_batch_norm_stays_where_there_is_nothing_to_synchronise() -> None:
    recipe = toy_recipe("engine.sync_bn.from_epoch=0")
    alone = World(rank=0, size=1, device=torch.device("cpu"))
    detector = ToyDetector(norm=True)
    NormSwitch(recipe.engine, toy_plan(recipe, alone, 4), alone).before_step(detector, 99)
    assert isinstance(detector.norm, nn.BatchNorm1d)


def _across_the_epoch(world: World, folder: Path) -> None:
    """What each step adds to the running mean, before and after the second epoch begins."""
    recipe = toy_recipe("engine.sync_bn.from_epoch=1")
    torch.manual_seed(0)
    detector = ToyDetector(norm=True)
    plan = toy_plan(recipe, world, batch_size=4, samples=16)
    trainer = toy_trainer(detector, recipe, plan, world)
    added = []
    for step in range(2 * plan.steps_per_epoch):
        before = detector.get_buffer("norm.running_mean").clone()
        trainer.train_step(step_batches(plan, world.rank, step))
        added.append(detector.get_buffer("norm.running_mean") - 0.9 * before)
    torch.save(torch.stack(added), folder / f"added{world.rank}.pt")


def test_two_processes_share_their_statistics_from_the_epoch_on(tmp_path: Path) -> None:
    run_ranks(_across_the_epoch, 2, tmp_path)
    first, second = (torch.load(tmp_path / f"added{rank}.pt", weights_only=True) for rank in (0, 1))
    alike = [torch.allclose(one, other, rtol=0, atol=1e-6) for one, other in zip(first, second, strict=True)]
    assert alike == [False, False, True, True]
