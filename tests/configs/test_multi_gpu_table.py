"""The splits that MULTI_GPU_TRAINING.md shows are those that the plan makes."""

from __future__ import annotations

import pytest

from configs.plan import DeviceFacts, PlanOptions, make_plan
from configs.recipes import load_recipe


@pytest.mark.parametrize(
    ("stage", "devices", "asked", "device_batch", "accumulation", "effective", "rate"),
    [
        (1, 8, {}, 8, 1, 64, 2e-4),
        (1, 1, {}, 8, 8, 64, 2e-4),
        (2, 16, {}, 8, 1, 128, 4e-4),
        (2, 8, {}, 8, 2, 128, 4e-4),
        (2, 8, {"effective_batch": 64, "lr_scaling": "linear"}, 8, 1, 64, 2e-4),
        (2, 4, {"batch_size": 2}, 2, 16, 128, 4e-4),
    ],
)
def test_the_table_is_what_is_planned(
    stage: int,
    devices: int,
    asked: dict[str, object],
    device_batch: int,
    accumulation: int,
    effective: int,
    rate: float,
) -> None:
    recipe = load_recipe(f"bevnext/bevnext-stage{stage}")
    facts = DeviceFacts(kind="cuda", names=("GPU",) * devices, cpu_cores=64)
    plan = make_plan(recipe, samples=123_580, devices=facts, options=PlanOptions.model_validate(asked))
    assert (plan.device_batch, plan.accumulation, plan.effective_batch) == (device_batch, accumulation, effective)
    assert plan.learning_rate == pytest.approx(rate)
    assert plan.steps_per_epoch == {64: 1931, 128: 966}[effective]
