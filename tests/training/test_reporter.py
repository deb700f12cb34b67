"""What a run says: plain lines, a live line in a terminal, and figures that never double back."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy import ALONE, toy_plan, toy_recipe

from training.reporter import Reporter
from training.step_clock import PHASES
from training.trainer import StepReport

PLAN = toy_plan(toy_recipe(), ALONE, batch_size=8)  # 4 steps of 8 samples


def report(loss: float) -> StepReport:
    return StepReport(loss, {"loss_a": loss - 1, "loss_b": 1.0}, 1e-3, grad_norm=2.0, stop=False)


def rank_figures(rank: int, forward: float, all_reduce: float = 0.0) -> dict[str, object]:
    seconds = {**dict.fromkeys(PHASES, 0.0), "forward": forward, "all_reduce": all_reduce}
    return {"rank": rank, "seconds": seconds, "memory_peak": 1000 + rank, "allocator_retries": 2}


def reporter(run_dir: Path, first_step: int = 0, terminal: bool = False) -> tuple[Reporter, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=200, highlight=False)
    return Reporter(run_dir, PLAN, log_every=2, first_step=first_step, console=console), text


def events(run_dir: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_plain_lines_and_figures(tmp_path: Path) -> None:
    spoken, text = reporter(tmp_path)
    ranks = [rank_figures(0, 0.1, 0.1), rank_figures(1, 0.2), rank_figures(2, 0.1, 0.1)]
    for step, loss in enumerate([9.0, 8.0, 6.0, 4.0], start=1):
        spoken.step(step, report(loss), waited=0.0, ranks=ranks)
    spoken.evaluation(4, {"NDS": 0.5, "mAP": 0.25}, seconds=1.0)
    spoken.close()
    found = events(tmp_path)
    assert [(event["event"], event["step"]) for event in found] == [
        ("train", 1),
        ("train", 2),
        ("train", 4),
        ("evaluate", 4),
    ]
    last = found[2]
    assert (last["loss"], last["terms"], last["epoch"]) == (5.0, {"loss_a": 4.0, "loss_b": 1.0}, 1.0)
    assert last["images_per_second"] == pytest.approx(6 * float(str(last["samples_per_second"])))
    assert last["ranks"] == [
        {**one, "samples_per_second": round(8 / 3 / forward, 4), "images_per_second": round(6 * 8 / 3 / forward, 4)}
        for one, forward in zip(ranks, (0.1, 0.2, 0.1), strict=True)  # waiting for the others is no work
    ]
    assert isinstance(last["seconds"], dict)
    assert last["seconds"]["forward"] == pytest.approx(0.4 / 3)
    assert (last["slowest_over_median"], last["slowest_rank"]) == (pytest.approx(2.0), 1)
    assert (last["memory_bytes"], last["allocator_retries"]) == (1002, 6)
    assert {"learning_rate", "grad_norm", "samples_per_second", "data_wait", "memory_bytes", "time"} <= set(last)
    assert last["eta_seconds"] == 0
    lines = text.getvalue().splitlines()
    assert lines[0].startswith("step 1/4  epoch 0.25/1  loss 9.000")
    assert lines[-1] == "evaluated in 1.0 s: NDS 0.5000, mAP 0.2500"
    logged = (tmp_path / "train.log").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in logged] == lines


def test_data_wait_is_the_share_of_time_spent_waiting(tmp_path: Path) -> None:
    spoken, _ = reporter(tmp_path)
    spoken.step(1, report(1.0), waited=0.0)
    begun = events(tmp_path)[0]["time"]
    spoken.step(2, report(1.0), waited=0.002)
    spoken.close()
    event = events(tmp_path)[1]
    assert isinstance(event["time"], float)
    assert isinstance(begun, float)
    share = event["data_wait"]
    assert share == pytest.approx(0.002 / (8 / float(str(event["samples_per_second"]))), rel=1e-6)


def test_what_a_checkpoint_costs_is_taken_from_the_steps_that_waited_for_it(tmp_path: Path) -> None:
    """It may be told later, when it is on disk."""
    spoken, _ = reporter(tmp_path)
    spoken.step(1, report(1.0), waited=0.0)
    time.sleep(0.1)
    spoken.stalled(0.1)
    spoken.step(2, report(1.0), waited=0.0)
    spoken.checkpoint(1, tmp_path, seconds=0.2, stalled=0.1)
    spoken.step(4, report(1.0), waited=0.0)
    spoken.close()
    found = [event for event in events(tmp_path) if event["event"] == "train"]
    assert len(found) == 3
    assert all(float(str(event["samples_per_second"])) > 0 for event in found)


def test_a_terminal_gets_a_live_line(tmp_path: Path) -> None:
    spoken, text = reporter(tmp_path, terminal=True)
    spoken.step(1, report(9.0), waited=0.0)
    spoken.predicted(3, 10)
    spoken.say("hello [not markup]")
    spoken.close()
    assert "1/4" in text.getvalue()
    assert "hello [not markup]" in text.getvalue()
    assert "loss 9.000" in (tmp_path / "train.log").read_text()


def test_a_reader_that_has_gone_keeps_nobody_from_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = os.pipe()
    os.close(there)
    with os.fdopen(here, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        with Reporter(tmp_path, PLAN, log_every=2, first_step=0) as spoken:
            for step in (1, 2):
                spoken.step(step, report(9.0), waited=0.0)
        stream.flush()  # nothing is left that the end of the process would complain about
    assert [event["step"] for event in events(tmp_path)] == [1, 2]
    assert "step 2/4" in (tmp_path / "train.log").read_text()


def test_going_back_drops_later_lines_and_a_torn_one(tmp_path: Path) -> None:
    spoken, _ = reporter(tmp_path)
    for step in (1, 2, 3, 4):
        spoken.step(step, report(step), waited=0.0)
    spoken.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "train", "st')
    time.sleep(1.1)  # TensorBoard reads files in the order of the second they were opened in
    again, _ = reporter(tmp_path, first_step=2)
    again.step(3, report(7.0), waited=0.0)
    again.close()
    assert [(event["step"], event["loss"]) for event in events(tmp_path)] == [(1, 1.0), (2, 2.0), (3, 7.0)]
    curves = EventAccumulator(str(tmp_path / "tensorboard"))
    curves.Reload()
    assert [(point.step, point.value) for point in curves.Scalars("train/loss")] == [(1, 1.0), (2, 2.0), (3, 7.0)]
