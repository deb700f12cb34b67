"""The optimiser step in one process: schedule, averaging, precision, and losses that are not finite."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from toy import ALONE, ToyDetector, step_batches, toy_plan, toy_recipe, toy_trainer

from configs.schema import EmaConfig, OptimizerConfig, ScheduleConfig
from training.moving_average import MovingAverage
from training.optimizer import build_optimizer, set_rate
from training.schedule import rate_factor
from training.trainer import Trainer


def trainer_of(*overrides: str, batch_size: int = 4, detector: ToyDetector | None = None) -> Trainer:
    recipe = toy_recipe(*overrides)
    plan = toy_plan(recipe, ALONE, batch_size)
    torch.manual_seed(0)
    return toy_trainer(detector or ToyDetector(), recipe, plan, ALONE)


def test_published_warm_up_then_constant() -> None:
    published = ScheduleConfig()
    factors = [rate_factor(published, step, 3862) for step in (0, 1, 100, 199, 200, 3861)]
    assert factors == pytest.approx([0.001, 1 - 199 / 200 * 0.999, 1 - 0.5 * 0.999, 1 - 1 / 200 * 0.999, 1.0, 1.0])


def test_decaying_shapes_end_at_the_final_ratio() -> None:
    for shape in ("cosine", "linear"):
        schedule = ScheduleConfig(shape=shape, warmup_steps=0, final_ratio=0.1)
        factors = [rate_factor(schedule, step, 100) for step in range(101)]
        assert factors[0] == 1.0
        assert factors[50] == pytest.approx(0.55)
        assert factors[100] == pytest.approx(0.1)
        assert factors == sorted(factors, reverse=True)


def test_backbone_has_a_rate_of_its_own() -> None:
    optimizer = build_optimizer(ToyDetector(), OptimizerConfig(backbone_multiplier=0.75), 1e-3)
    assert set_rate(optimizer, 0.5) == pytest.approx(5e-4)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([3.75e-4, 5e-4])
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 4]
    assert all(group["weight_decay"] == 1e-2 for group in optimizer.param_groups)


def test_average_follows_the_published_rule() -> None:
    detector = ToyDetector(norm=True)
    average = MovingAverage(detector, EmaConfig())
    assert average.decay(1) == pytest.approx(0.999 * (1 - math.exp(-10561 / 2000)))
    assert average.decay(1) == pytest.approx(0.9939, abs=1e-4)
    before = copy.deepcopy(average.detector.state_dict())
    with torch.no_grad():
        for value in detector.state_dict().values():
            value.add_(1)
    average.update(1)
    for name, value in average.detector.state_dict().items():
        moved = 1 - average.decay(1) if value.is_floating_point() else 0
        torch.testing.assert_close(value, before[name] + moved, check_dtype=False)
    assert not average.detector.training


def test_steps_reduce_the_loss_and_report_the_whole_step() -> None:
    trainer = trainer_of("schedule.warmup_steps=0", "optimizer.learning_rate=1e-2")
    batches = step_batches(trainer.plan, 0, step=0)
    reports = [trainer.train_step(batches) for _ in range(20)]
    assert reports[-1].loss < 0.9 * reports[0].loss
    assert trainer.state.step == 20
    assert reports[0].loss == pytest.approx(sum(reports[0].terms.values()))
    assert set(reports[0].terms) == {"loss_boxes", "loss_depth"}
    assert not reports[0].stop
    assert trainer.train_step(batches, stop=True).stop


def test_gradients_are_clipped_to_the_norm() -> None:
    trainer = trainer_of("optimizer.clip_norm=1e-3", "optimizer.betas=[0.0, 0.9]")
    report = trainer.train_step(step_batches(trainer.plan, 0, step=0))
    moments = [value["exp_avg"] for value in trainer.state.optimizer.state_dict()["state"].values()]
    assert report.grad_norm > 1e-2
    assert torch.stack([moment.norm() for moment in moments]).norm() == pytest.approx(1e-3, rel=1e-3)


def test_dropout_is_a_function_of_the_step() -> None:
    trainers = [trainer_of(detector=ToyDetector(dropout=0.5)) for _ in range(2)]
    trainers[1].state.detector.load_state_dict(trainers[0].state.detector.state_dict())
    losses = []
    for trainer in trainers:
        trainer.train_step(step_batches(trainer.plan, 0, step=0))
        torch.rand(len(losses) + 1)  # whatever else draws numbers
        losses.append(trainer.train_step(step_batches(trainer.plan, 0, step=1)).loss)
    assert losses[0] == losses[1]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains_close_to_float32(precision: str) -> None:
    reference = trainer_of("schedule.warmup_steps=0")
    reduced = trainer_of("schedule.warmup_steps=0", f"engine.precision={precision}")
    for step in range(4):
        expected = reference.train_step(step_batches(reference.plan, 0, step))
        found = reduced.train_step(step_batches(reduced.plan, 0, step))
        assert found.loss == pytest.approx(expected.loss, rel=0.02)
        if step or precision == "bf16":  # fp16's scale of 65536 may have to come down first
            assert found.grad_norm == pytest.approx(expected.grad_norm, rel=0.05)
