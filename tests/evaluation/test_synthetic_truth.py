"""On the synthetic set the truth scores 1, by the annotations and by the training targets made of them."""

from __future__ import annotations

from pathlib import Path

import torch

from configs.recipes import load_recipe
from detectors.interface import Detections
from evaluation import MetricsSummary, evaluate_nuscenes
from evaluation.global_boxes import GlobalBoxes, from_annotations, from_detections
from evaluation.results import write_results
from scenes.dataset import SceneDataset
from scenes.index import SceneIndex

SPLIT = "synthetic_val"


def score(index: SceneIndex, predictions: dict[str, GlobalBoxes], folder: Path) -> MetricsSummary:
    results = write_results(folder / "results.json", predictions)
    return evaluate_nuscenes(results, index.dataroot, index.version, SPLIT, folder)


def test_the_annotations_are_perfect(synthetic_index: SceneIndex, tmp_path: Path) -> None:
    index = synthetic_index
    truth = {index.token(row): from_annotations(index.frame(row).annotations) for row in index.rows_in(SPLIT)}
    summary = score(index, truth, tmp_path)
    assert summary.mean_ap > 0.99
    assert summary.nds > 0.99


def test_what_a_perfect_detector_would_find_is_perfect(synthetic_index: SceneIndex, tmp_path: Path) -> None:
    """Training targets live in the ego frame with centre, yaw and velocity of their own: back they come unchanged."""
    data = load_recipe("synthetic/bevnext-smoke").data.model_copy(update={"source_size": (90, 160)})
    samples = SceneDataset(synthetic_index, synthetic_index.rows_in(SPLIT), data, training=False)
    found = {}
    for position in range(len(synthetic_index.rows_in(SPLIT))):
        sample = samples[position]
        detections = Detections(sample.boxes, torch.ones(len(sample.boxes)), sample.labels)
        found[sample.token] = from_detections(detections, sample.global_from_ego.numpy())
    summary = score(synthetic_index, found, tmp_path)
    assert summary.mean_ap > 0.99
    errors = {
        name: error for name, error in summary.tp_errors.items() if name != "mAAE"
    }  # attributes are a rule's guess
    assert max(errors.values()) < 0.01
