"""Where the time of a step goes: phases without gaps, in one process and in two."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks
from toy import ALONE, ToyDetector, step_batches, toy_plan, toy_recipe, toy_trainer

from training.loop import micro_batches_of_steps
from training.rank_figures import OWN_WORK, RankMeter, own_work, straggler
from training.step_clock import PHASES, StepClock
from training.world import World


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock is told in turn, seconds."""
    told: list[float] = []
    monkeypatch.setattr(StepClock, "_now", lambda self: told.pop(0))
    return told


def test_phases_follow_each_other_without_a_gap(moments: list[float]) -> None:
    moments += [0.0, 1.0, 3.0, 6.0, 10.0, 15.0]
    clock = StepClock(torch.device("cpu"))
    for phase in ("data_wait", "forward", "data_wait", "checkpoint", "other"):
        clock.begin(phase)
    expected = {"other": 1.0, "data_wait": 2.0 + 4.0, "forward": 3.0, "checkpoint": 5.0}
    assert clock.take() == {**dict.fromkeys(PHASES, 0.0), **expected}
    assert sum(clock.take().values()) == 0.0  # the phase that runs is told when it is over


def test_exchange_is_what_comes_after_the_last_gradients(moments: list[float]) -> None:
    moments += [0.0, 0.0, 2.0, 4.0, 7.0]
    clock = StepClock(torch.device("cpu"))
    clock.begin("backward")
    clock.gradients_ready()
    clock.gradients_ready()
    clock.end_backward()
    taken = clock.take()
    assert (taken["backward"], taken["all_reduce"]) == (4.0, 3.0)


def test_seconds_are_those_of_the_clock_on_the_wall() -> None:
    before = time.perf_counter()
    clock = StepClock(torch.device("cpu"))
    clock.begin("forward")
    time.sleep(0.03)
    clock.begin("other")
    taken = clock.take()
    assert 0.03 <= taken["forward"] <= sum(taken.values()) <= time.perf_counter() - before


def test_a_step_alone_has_every_phase_but_the_exchange() -> None:
    recipe = toy_recipe()
    trainer = toy_trainer(ToyDetector(), recipe, toy_plan(recipe, ALONE, 4), ALONE)
    stream = [batch for step in range(3) for batch in step_batches(trainer.plan, 0, step)]
    meter = RankMeter(trainer.clock, ALONE, workers=0)
    meter.all_ranks(steps=1)
    steps = micro_batches_of_steps(stream, trainer.plan.accumulation, ALONE.device, trainer.clock)
    for micro_batches, waited in steps:
        assert waited >= 0
        trainer.train_step(micro_batches)
    (figures,) = meter.all_ranks(steps=3)
    assert set(figures["seconds"]) == set(PHASES)
    assert all(figures["seconds"][phase] > 0 for phase in OWN_WORK)
    assert figures["seconds"]["backward"] > 0
    assert figures["seconds"]["all_reduce"] < own_work(figures["seconds"])
    assert figures["memory_allocated"] > 2**20
    assert 0 <= figures["starved"] <= 1
    assert 0 <= figures["loader_cpu"] <= 1
    assert 0 <= figures["loader_starved"] <= 1
    assert straggler([figures]) is None


def slow_second_rank(world: World, folder: Path) -> None:
    recipe = toy_recipe()
    plan = toy_plan(recipe, world, 2)
    trainer = toy_trainer(ToyDetector(), recipe, plan, world)
    meter = RankMeter(trainer.clock, world, workers=0)
    if world.rank == 1:
        trainer.network.register_forward_pre_hook(lambda module, inputs: time.sleep(0.5))
    for step in range(4):
        trainer.train_step(step_batches(plan, world.rank, step))
    ranks = meter.all_ranks(steps=4)
    if world.is_main:
        (folder / "ranks.json").write_text(json.dumps(ranks))


def test_one_slow_process_is_the_one_that_the_others_wait_for(tmp_path: Path) -> None:
    run_ranks(slow_second_rank, 2, tmp_path)
    ranks: list[dict[str, Any]] = json.loads((tmp_path / "ranks.json").read_text())
    assert [one["rank"] for one in ranks] == [0, 1]
    assert ranks[0]["seconds"]["all_reduce"] > 0.3
    assert ranks[1]["seconds"]["all_reduce"] < ranks[1]["seconds"]["forward"]
    found = straggler(ranks)
    assert found is not None
    assert found[1] == 1
    assert found[0] > 1.3
