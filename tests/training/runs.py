"""Runs of the entry script in this process, on the smallest recipe, with made-up scores at their end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from evaluation.nuscenes_metrics import MetricsSummary
from training import loop, train_bevnext_sam2

SCORES = MetricsSummary(
    nds=0.25,
    mean_ap=0.125,
    tp_errors={"mATE": 1.0},
    class_ap={"car": 0.5},
    distance_ap={},
    class_tp_errors={},
    version="v1.0-synthetic",
    split="synthetic_val",
    samples=4,
    annotations={},
    results="",
)
RECIPE = ["--config", "synthetic/bevnext-smoke", "--set", "data.source_size=[90, 160]"]
SHORT = ["--workers", "0", "--threads", "1", "--epochs", "2"]
STEPS = ["--set", "optimizer.reference_batch=2"]


def run_exit_code(driving_set: Path, run_dir: Path, *arguments: str) -> int:
    """Exit code of a run of two epochs of two steps of two samples."""
    places = ["--data-root", str(driving_set), "--run-dir", str(run_dir)]
    with pytest.raises(SystemExit) as ended:
        train_bevnext_sam2.main([*places, *SHORT, *RECIPE, *STEPS, *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def made_up_scores() -> Iterator[None]:
    """A fixture's body: runs end with made-up scores; `test_two_processes.py` takes the official ones."""

    def evaluate(*arguments: object, device: torch.device, batch_size: int, **others: object) -> MetricsSummary:
        return SCORES

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "evaluate_detector", evaluate)
        patch.setattr(loop, "show_evaluation", lambda run, results: None)
        yield
