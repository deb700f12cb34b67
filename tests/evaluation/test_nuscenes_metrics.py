"""The official metrics: perfect for the truth, worse for worse boxes, and clear about unusable input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval

from configs.errors import DataError, UsageError
from configs.nuscenes import CLASSES
from evaluation import MetricsSummary, evaluate_nuscenes
from evaluation.global_boxes import GlobalBoxes, from_annotations
from evaluation.results import write_results
from scenes.index import SceneIndex

Change = Callable[[GlobalBoxes, np.random.Generator], GlobalBoxes]


def truth_of(index: SceneIndex, split: str = "mini_val") -> dict[str, GlobalBoxes]:
    return {index.token(row): from_annotations(index.frame(row).annotations) for row in index.rows_in(split)}


def score(index: SceneIndex, predictions: dict[str, GlobalBoxes], folder: Path) -> MetricsSummary:
    results = write_results(folder / "results.json", predictions)
    return evaluate_nuscenes(results, index.dataroot, index.version, "mini_val", folder)


def score_changed(index: SceneIndex, folder: Path, change: Change) -> MetricsSummary:
    random = np.random.default_rng(0)
    return score(index, {token: change(boxes, random) for token, boxes in truth_of(index).items()}, folder)


def moved(metres: float) -> Change:
    return lambda boxes, random: replace(
        boxes, centres=boxes.centres + random.normal(size=(len(boxes), 3)) * [metres, metres, 0]
    )


def test_the_truth_is_perfect(small_index: SceneIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = score(small_index, truth_of(small_index), tmp_path)
    assert summary.mean_ap > 0.99
    assert summary.nds > 0.99
    assert max(summary.tp_errors.values()) < 0.01
    assert summary.samples == 14
    assert min(summary.annotations.values()) > 0
    assert summary.class_tp_errors["barrier"]["AVE"] is None
    assert list(summary.distance_ap["car"]) == ["0.5", "1.0", "2.0", "4.0"]
    assert json.loads((tmp_path / "metrics_summary.json").read_text())["nd_score"] == summary.nds
    curves = json.loads((tmp_path / "metrics_details.json").read_text())
    assert len(curves["car:0.5"]["precision"]) == 101
    assert capsys.readouterr() == ("", "")
    assert {"NDS", "mAP", "mATE", "AP/traffic_cone"} <= summary.as_scalars().keys()


def test_the_devkit_alone_gives_the_same_numbers(small_index: SceneIndex, tmp_path: Path) -> None:
    def change(boxes: GlobalBoxes, random: np.random.Generator) -> GlobalBoxes:
        scores = random.integers(1, 9, len(boxes)) / 10  # many are equal
        return replace(moved(0.8)(boxes, random), scores=scores)

    score_changed(small_index, tmp_path / "ours", change)
    nusc = NuScenes(version=small_index.version, dataroot=str(small_index.dataroot), verbose=False)
    results = str(tmp_path / "ours" / "results.json")
    config = config_factory("detection_cvpr_2019")
    evaluation = DetectionEval(nusc, config, results, "mini_val", str(tmp_path / "theirs"), verbose=False)
    evaluation.main(plot_examples=0, render_curves=False)
    ours, theirs = (json.loads((tmp_path / who / "metrics_summary.json").read_text()) for who in ("ours", "theirs"))
    assert ours.pop("eval_time") > 0 and theirs.pop("eval_time") > 0
    assert ours == theirs
    curves = [json.loads((tmp_path / who / "metrics_details.json").read_text()) for who in ("ours", "theirs")]
    assert curves[0] == curves[1]


def test_scores_fall_as_boxes_move(small_index: SceneIndex, tmp_path: Path) -> None:
    scores = [score_changed(small_index, tmp_path, moved(metres)) for metres in (0.1, 0.6, 2.0)]
    assert scores[0].mean_ap > scores[1].mean_ap > scores[2].mean_ap
    assert scores[0].nds > scores[1].nds > scores[2].nds
    # mean distance of a 2D normal deviate of 0.1 m: 0.1 * sqrt(pi / 2)
    assert scores[0].tp_errors["mATE"] == pytest.approx(0.125, abs=0.02)


@pytest.mark.parametrize(
    ("change", "error", "low", "high"),
    [
        (lambda boxes, _: replace(boxes, sizes=boxes.sizes * [1, 1, 1.25]), "mASE", 0.19, 0.21),
        (lambda boxes, _: replace(boxes, velocities=boxes.velocities + np.array([0.6, 0.8])), "mAVE", 0.99, 1.01),
        # objects annotated without an attribute take part in the mean as 0
        (lambda boxes, _: replace(boxes, attributes=("",) * len(boxes)), "mAAE", 0.5, 1.0),
        (lambda boxes, _: replace(boxes, rotations=turned(boxes.rotations, 0.3)), "mAOE", 0.29, 0.31),
        (lambda boxes, _: replace(boxes, centres=boxes.centres + np.array([0, 0, 3.0])), "mATE", 0.0, 0.01),
    ],
)
def test_each_error_sees_its_own_change(
    change: Change, error: str, low: float, high: float, small_index: SceneIndex, tmp_path: Path
) -> None:
    summary = score_changed(small_index, tmp_path, change)
    assert low <= summary.tp_errors[error] <= high
    others = [value for name, value in summary.tp_errors.items() if name != error]
    assert max(others) < 0.01
    assert summary.mean_ap > 0.99


def turned(rotations: np.ndarray, angle: float) -> np.ndarray:
    yaw = 2 * np.arctan2(rotations[:, 3], rotations[:, 0]) + angle
    return np.stack([np.cos(yaw / 2), 0 * yaw, 0 * yaw, np.sin(yaw / 2)], axis=1)


def test_a_class_never_found_scores_zero(small_index: SceneIndex, tmp_path: Path) -> None:
    summary = score_changed(small_index, tmp_path, lambda boxes, random: boxes.keep(boxes.labels != 0))
    assert summary.class_ap["car"] == 0
    assert summary.mean_ap == pytest.approx(0.9, abs=0.01)


def test_no_detections_at_all_score_zero(small_index: SceneIndex, tmp_path: Path) -> None:
    nothing = {token: boxes.keep(boxes.labels < 0) for token, boxes in truth_of(small_index).items()}
    summary = score(small_index, nothing, tmp_path)
    assert (summary.nds, summary.mean_ap) == (0, 0)
    assert set(summary.tp_errors.values()) == {1.0}
    assert summary.annotations == score(small_index, truth_of(small_index), tmp_path).annotations


def test_samples_must_be_those_of_the_split(small_index: SceneIndex, tmp_path: Path) -> None:
    truth = truth_of(small_index)
    first = next(iter(truth))
    with pytest.raises(DataError, match=rf"lacks 1 of the 14 samples of split 'mini_val' \(first: {first}\)"):
        score(small_index, {token: boxes for token, boxes in truth.items() if token != first}, tmp_path)
    with pytest.raises(DataError, match="holds 7 samples that are not in split 'mini_val'"):
        score(small_index, truth | truth_of(small_index, "mini_train"), tmp_path)


def test_splits_and_data_sets_that_are_not_there(small_index: SceneIndex, tmp_path: Path) -> None:
    root, version = small_index.dataroot, small_index.version
    results = write_results(tmp_path / "results.json", truth_of(small_index))
    with pytest.raises(UsageError, match="no split 'everything'") as unknown:
        evaluate_nuscenes(results, root, version, "everything", tmp_path)
    assert "mini_val" in unknown.value.fix
    with pytest.raises(UsageError, match=r"v1\.0-mini has no split 'val'"):
        evaluate_nuscenes(results, root, version, "val", tmp_path)
    with pytest.raises(DataError, match=r"v1\.0-test is not a nuScenes data set: attribute\.json"):
        evaluate_nuscenes(results, root, "v1.0-test", "test", tmp_path)


@pytest.mark.parametrize(("table", "text"), [("sample", "["), ("calibrated_sensor", "[]"), ("map", "[]")])
def test_damaged_tables_are_data_errors(small_index: SceneIndex, tmp_path: Path, table: str, text: str) -> None:
    root = tmp_path / "data"
    shutil.copytree(small_index.dataroot / "v1.0-mini", root / "v1.0-mini")
    shutil.copytree(small_index.dataroot / "maps", root / "maps")
    (root / "v1.0-mini" / f"{table}.json").write_text(text)
    results = write_results(tmp_path / "results.json", truth_of(small_index))
    with pytest.raises(DataError, match="cannot be read"):
        evaluate_nuscenes(results, root, "v1.0-mini", "mini_val", tmp_path)


def test_a_split_of_ones_own(small_index: SceneIndex, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(small_index.dataroot / "v1.0-mini", root / "v1.0-mini")
    shutil.copytree(small_index.dataroot / "maps", root / "maps")
    (root / "v1.0-mini" / "splits.json").write_text('{"rainy": ["scene-0061"]}')
    truth = truth_of(small_index, "mini_train")
    summary = evaluate_nuscenes(write_results(tmp_path / "r.json", truth), root, "v1.0-mini", "rainy", tmp_path)
    assert summary.samples == 7
    found = {name: ap for name, ap in summary.class_ap.items() if summary.annotations[name]}
    assert found
    assert set(found) <= set(CLASSES)
    assert min(found.values()) > 0.99
