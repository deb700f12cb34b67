"""Predictions do not depend on the number of processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from configs.recipes import load_recipe, with_version
from configs.schema import Recipe
from detectors import build_detector
from detectors.interface import Detector
from evaluation.predict import predict
from evaluation.results import read_results, write_results
from scenes.index import SceneIndex, open_index

CPU = torch.device("cpu")

COUNTS = range(1, 8)
"""Samples to predict in batches of 2: ranks that stay idle, that have as much to do, that have a smaller batch."""


def small_recipe() -> Recipe:
    return with_version(load_recipe("synthetic/bevnext-smoke", ["model.head.score_threshold=0.0"]), "v1.0-mini")


def small_detector() -> Detector:
    """Random weights and a low threshold: many detections, different in every sample."""
    torch.manual_seed(0)
    recipe = small_recipe()
    detector = build_detector(recipe.model, recipe.data)
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if "heatmap" in name and name.endswith("bias"):
                parameter.zero_()
    return detector


def test_every_sample_once_in_order(small_index: SceneIndex) -> None:
    rows = [9, 3, 4]
    detector = small_detector().train()
    steps: list[tuple[int, int]] = []
    found = predict(
        detector, small_index, rows, small_recipe().data, device=CPU, batch_size=2,
        on_progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert found is not None
    assert list(found) == [small_index.token(row) for row in rows]
    assert all(len(boxes) > 0 for boxes in found.values())
    assert steps == [(1, 2), (2, 2)]
    assert detector.training
    ego = small_index.frame(9).global_from_ego[:3, 3]
    assert np.abs(found[small_index.token(9)].centres - ego).max() < 120


def test_the_detector_computes_as_asked(small_index: SceneIndex) -> None:
    detector, seen = small_detector(), set()
    convolution = next(module for module in detector.modules() if isinstance(module, torch.nn.Conv2d))
    convolution.register_forward_hook(lambda module, given, made: seen.add(made.dtype))
    exact = predict(detector, small_index, [3], small_recipe().data, device=CPU)
    assert seen == {torch.float32}
    seen.clear()
    found = predict(detector, small_index, [3], small_recipe().data, device=CPU, lower=torch.bfloat16)
    assert seen == {torch.bfloat16}
    assert exact is not None
    assert found is not None
    (one,), (other,) = exact.values(), found.values()
    assert one.scores[:20] == pytest.approx(other.scores[:20], abs=0.05)


def test_no_samples(small_index: SceneIndex) -> None:
    assert predict(small_detector(), small_index, [], small_recipe().data, device=CPU) == {}


def predict_on_rank(rank: int, root: Path, store: Path, out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    index, detector = open_index(root, "v1.0-mini"), small_detector()
    for count in COUNTS:
        found = predict(detector, index, range(count), small_recipe().data, device=CPU, batch_size=2)
        assert (found is None) == (rank != 0)
        if found is not None:
            write_results(out / f"{count}.json", found)
    dist.destroy_process_group()


def test_two_processes_give_what_one_gives(small_index: SceneIndex, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    torch.multiprocessing.start_processes(
        predict_on_rank,
        (small_index.dataroot, tmp_path / "store", tmp_path / "together"),
        nprocs=2,
        start_method="fork",
    )
    detector = small_detector()
    for count in COUNTS:
        alone = predict(detector, small_index, range(count), small_recipe().data, device=CPU, batch_size=2)
        assert alone is not None
        together = tmp_path / "together" / f"{count}.json"
        assert together.read_bytes() == write_results(tmp_path / "alone.json", alone).read_bytes()
        assert len(read_results(together)) == count
