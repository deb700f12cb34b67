"""The learning rate as a pure function of the step: no state to save."""

from __future__ import annotations

import math

from configs.schema import ScheduleConfig


def rate_factor(schedule: ScheduleConfig, step: int, total_steps: int) -> float:
    """Learning rate of optimiser step `step` (from 0) over the peak rate.

    Warm-up as published (mmcv's linear policy): `1 - (1 - step / warmup_steps) * (1 - warmup_ratio)` times the rate
    that the shape gives at that step.
    """
    factor = _shape(schedule, step / total_steps)
    if step < schedule.warmup_steps:
        factor *= 1 - (1 - step / schedule.warmup_steps) * (1 - schedule.warmup_ratio)
    return factor


def _shape(schedule: ScheduleConfig, progress: float) -> float:
    """Over `progress` 0..1 from 1 to `final_ratio`."""
    if schedule.shape == "constant":
        return 1.0
    left = 1 - progress if schedule.shape == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return schedule.final_ratio + (1 - schedule.final_ratio) * left
