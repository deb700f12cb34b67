"""What monitoring takes from a training, in processor time: on a busy machine it takes longer, but costs no more.

On a slower processor it costs more, and so does the step: both are measured in the same unit of work.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from toy import ALONE, toy_plan, toy_recipe

from monitoring.sampler import Sampler
from monitoring.window import Hardware
from training.device_watch import EVERY, LINE_EVERY
from training.rank_figures import RankMeter
from training.reporter import Reporter
from training.step_clock import PHASES, StepClock
from training.trainer import StepReport

STEP, LOG_EVERY = 0.1, 10
"""A fast step, seconds, and steps between lines of the log: slower steps and fewer lines cost less."""
UNIT = 0.0002
"""Processor seconds of a unit of work where a step of `STEP` seconds is a fast one: the AMD EPYC of the README."""
REPORT = StepReport(1.0, {"loss_a": 0.5, "loss_b": 0.5}, 1e-3, grad_norm=2.0, stop=False)


def cost(action: Callable[[], object], times: int) -> float:
    """Processor seconds of this thread for one call, the best of three rounds."""
    rounds = []
    for _ in range(3):
        begun = time.thread_time()
        for _ in range(times):
            action()
        rounds.append((time.thread_time() - begun) / times)
    return min(rounds)


def unit_of_work() -> None:
    """Something of the kind that monitoring does."""
    json.loads(json.dumps([{"value": float(number)} for number in range(200)]))


def test_less_than_half_a_percent_of_a_fast_step(tmp_path: Path) -> None:
    clock = StepClock(ALONE.device)
    meter = RankMeter(clock, ALONE, workers=0)
    plan = toy_plan(toy_recipe(), ALONE, batch_size=8)
    console = Console(file=io.StringIO())

    def clock_of_a_step() -> None:
        for phase in PHASES:
            clock.begin(phase)

    with Reporter(tmp_path, plan, log_every=1, first_step=0, console=console) as reporter, Sampler("host") as sampler:
        hardware = Hardware((sampler.sample(),) * round(LINE_EVERY / EVERY))
        step = cost(clock_of_a_step, 300)
        line = cost(lambda: reporter.step(2, REPORT, 0.0, meter.all_ranks(1)), 100)
        look = cost(sampler.sample, 30)
        hardware_line = cost(lambda: (hardware.line(), hardware.curves()), 30)
    slower = max(1.0, cost(unit_of_work, 100) / UNIT)
    share = ((step + line / LOG_EVERY) / STEP + look / EVERY + hardware_line / LINE_EVERY) / slower
    told = f"a step {step * 1e6:.0f} µs, a line {line * 1e3:.2f} ms, a look {look * 1e3:.2f} ms: {share:.3%}"
    assert share < 0.005, told
