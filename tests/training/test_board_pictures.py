"""What TensorBoard gets beside curves: pictures, the plan, the settings that runs are compared by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_reporter import PLAN
from toy import toy_recipe

from configs.recipes import load_recipe
from detectors.zoo import build_detector
from evaluation.global_boxes import from_annotations
from evaluation.results import write_results
from scenes.index import open_index
from training.board_pictures import depth_picture, heat_picture, pictures_of_network, pictures_of_results
from training.reporter import Reporter

SPLIT = "synthetic_val"


def test_pictures_of_an_evaluation(driving_set: Path, tmp_path: Path) -> None:
    index = open_index(driving_set, "v1.0-synthetic", None)
    predictions = {index.token(row): from_annotations(index.frame(row).annotations) for row in index.rows_in(SPLIT)}
    results = write_results(tmp_path / "results_nusc.json", predictions)
    found = pictures_of_results(index, SPLIT, results)
    assert set(found) == {"cameras/0", "bev/0", "cameras/1", "bev/1"}
    for picture in found.values():
        assert (picture.dtype, picture.ndim, picture.shape[2]) == (np.uint8, 3, 3)
        assert picture.std() > 10  # there is something on it
    assert found["cameras/0"].shape[1] > 3 * 480


def test_depth_and_heat_of_the_network(driving_set: Path) -> None:
    recipe = load_recipe("synthetic/bevnext-smoke", ("data.source_size=[90, 160]",))
    index = open_index(driving_set, "v1.0-synthetic", None)
    detector = build_detector(recipe.model, recipe.data).train()
    found = pictures_of_network(detector, index, SPLIT, recipe.data, torch.device("cpu"))
    assert set(found) == {"network/depth", "network/heat"}
    assert detector.training


def test_near_is_bright_and_forward_is_up() -> None:
    near_then_far = torch.zeros(1, 4, 1, 2)
    near_then_far[0, 0, 0, 0] = near_then_far[0, 3, 0, 1] = 1.0
    picture = depth_picture(near_then_far).astype(int).sum(2)
    assert picture.shape == (4, 8)
    assert (picture[:, :4] > picture[:, 4:]).all()
    heat = torch.full((1, 1, 3, 5), -9.0)
    heat[0, 0, 2, 4] = 9.0  # y = 2, to the left; x = 4, in front
    bright = heat_picture([heat]).astype(int).sum(2)
    assert bright.shape == (15, 9)
    assert np.unravel_index(bright.argmax(), bright.shape) == (0, 0)


def test_the_plan_as_text_and_settings_to_compare_by(tmp_path: Path) -> None:
    reporter = Reporter(tmp_path, PLAN, log_every=1, first_step=0)
    reporter.describe(toy_recipe())
    reporter.pictures(4, {"bev/0": np.zeros((4, 6, 3), np.uint8)})
    reporter.close()
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = found.Tags()
    assert {"plan/text_summary", "recipe/text_summary"} <= set(tags["tensors"])
    assert tags["images"] == ["bev/0"]
    plan = found.Tensors("plan/text_summary")[0].tensor_proto.string_val[0].decode()
    assert f"| effective_batch | {PLAN.effective_batch} |" in plan
    assert [path.name for path in (tmp_path / "tensorboard").iterdir() if path.is_dir()] == []
    settings = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"effective_batch" in settings
    assert b"weight_decay" in settings
