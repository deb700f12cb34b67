"""Evaluate a detector on a split: predict, write the results file, score it with the official metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch

from configs.replaced_file import replace_text
from configs.schema import DataConfig
from detectors.interface import Detector
from evaluation.nuscenes_metrics import METRICS_FILE, MetricsSummary, evaluate_nuscenes
from evaluation.predict import ProgressHook, predict
from evaluation.results import write_results
from scenes.index import SceneIndex

RESULTS_FILE: Final = "results_nusc.json"


def evaluate_detector(
    detector: Detector,
    index: SceneIndex,
    split: str,
    data: DataConfig,
    out_dir: Path,
    *,
    device: torch.device,
    batch_size: int = 1,
    workers: int = 0,
    on_progress: ProgressHook | None = None,
    lower: torch.dtype | None = None,
) -> MetricsSummary | None:
    """Scores of `detector` on a split of `index`; collective in a distributed job, where only rank 0 gets them.

    Writes into `out_dir`: `results_nusc.json`, the devkit's `metrics_summary.json` and `metrics_details.json`, and
    `metrics.json`, the returned summary.

    Args:
        lower: as in `predict`.
    """
    rows = index.rows_in(split)
    predictions = predict(
        detector,
        index,
        rows,
        data,
        device=device,
        batch_size=batch_size,
        workers=workers,
        on_progress=on_progress,
        lower=lower,
    )
    if predictions is None:
        return None
    results = write_results(out_dir / RESULTS_FILE, predictions)
    summary = evaluate_nuscenes(results, index.dataroot, index.version, split, out_dir)
    replace_text(out_dir / METRICS_FILE, summary.model_dump_json(indent=2))
    return summary
