"""Score feedback: fitted on some scenes it orders the detections of others better; without it scores stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.errors import UsageError
from configs.nuscenes import CLASSES
from integration import BEVSAMFusion
from integration.composition import box_iou, tight_boxes
from integration.masks.examples import ExactMasks
from integration.projection import box_corners, project_boxes
from integration.rays import occlusion
from integration.sam2_package import NANO
from integration.sam2_weights import digest
from integration.scene_boxes import annotated_boxes, rig_of
from integration.score_feedback import (
    FEATURES,
    ScoreFeedback,
    feedback_features,
    fit_feedback,
    load_feedback,
    true_detections,
)
from launcher.main import run
from scenes.index import SceneIndex

Floats = NDArray[np.float64]


def average_precision(scores: Floats, true: NDArray[np.bool_]) -> float:
    ordered = true[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(ordered) / np.arange(1, len(ordered) + 1))[ordered].mean())


def noisy_detections(index: SceneIndex, row: int, random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Annotated boxes a little off, as many that are metres off, and scores that hardly tell which is which."""
    annotations = index.frame(row).annotations
    boxes = annotated_boxes(annotations)[torch.from_numpy(annotations.labels >= 0)]
    labels = torch.from_numpy(annotations.labels[annotations.labels >= 0])
    near, far = boxes.clone(), boxes.clone()
    near[:, :2] += torch.from_numpy(random.normal(0, 0.3, (len(boxes), 2)))
    angle = random.uniform(0, 2 * np.pi, len(boxes))
    far[:, :2] += torch.from_numpy(random.uniform(4, 10, len(boxes)) * np.stack([np.cos(angle), np.sin(angle)])).T
    scores = np.clip(random.normal(0.45, 0.2, 2 * len(boxes)) + np.repeat([0.05, -0.05], len(boxes)), 0.11, 0.99)
    return torch.cat([near, far]), torch.from_numpy(scores), labels.repeat(2)


def with_ideal_masks(index: SceneIndex, row: int, boxes: Tensor, scores: Tensor, labels: Tensor) -> dict[str, Any]:
    """What the fusion would return if SAM 2 found the object that fills most of each box."""
    frame = index.frame(row)
    rig = rig_of(frame)
    pairs = project_boxes(boxes, rig)
    exact = ExactMasks(index.dataroot)
    maps = [torch.from_numpy(exact.read(path).astype(np.int64)) for path in frame.image_paths]
    masks = torch.zeros(len(pairs), *rig.size, dtype=torch.bool)
    for number, (left, top, right, bottom) in enumerate(pairs.box.round().long().tolist()):
        whole = maps[int(pairs.camera[number])]
        inside = whole[top:bottom, left:right]
        if bool((inside > 0).any()):
            masks[number] = whole == int(inside[inside > 0].mode().values)
    filled = masks.flatten(1).sum(1)
    return {
        "scores": scores,
        "labels": labels,
        "pair_object": pairs.object,
        "mask_scores": box_iou(tight_boxes(masks), pairs.box.float()).sqrt(),
        "object_presence": (filled > 0).float().clamp(0.01, 0.99),
        "visible_fraction": (filled / pairs.area.clamp(min=1)).float(),
        "truncation": pairs.truncation.float(),
        "occlusion": occlusion(pairs, rig.cam_from_pixel).float(),
        "depth": pairs.depth,
    }


def samples(index: SceneIndex, row: int, draws: int, seed: int) -> tuple[Floats, NDArray[np.int64], NDArray[np.bool_]]:
    random = np.random.default_rng(seed)
    parts = []
    for _ in range(draws):
        boxes, scores, labels = noisy_detections(index, row, random)
        found = with_ideal_masks(index, row, boxes, scores, labels)
        annotations = index.frame(row).annotations
        true = true_detections(
            boxes[:, :2].numpy(), scores.numpy(), labels.numpy(), annotations.translation[:, :2], annotations.labels
        )
        parts.append((feedback_features(found), labels.numpy(), true))
    features, labels, true = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return features, labels, true


def test_feedback_orders_the_detections_of_other_scenes_better(town: SceneIndex, tmp_path: Path) -> None:
    train = [samples(town, row, 3, seed=row) for row in (0, 1)]
    features, labels, true = (np.concatenate(arrays) for arrays in zip(*train, strict=True))
    fitted = fit_feedback(features, labels, true, "of no weights")
    fitted.save(tmp_path / "feedback.json")
    feedback = load_feedback(tmp_path / "feedback.json")
    features, labels, true = samples(town, 2, 3, seed=7)
    calibrated = feedback.scores(features, labels)
    assert average_precision(calibrated, true) > average_precision(features[:, 0], true) + 0.1
    assert ((calibrated > 0) & (calibrated < 1)).all()
    np.testing.assert_array_equal(calibrated, fitted.scores(features, labels))


def made_up(count: int = 4000) -> tuple[Floats, NDArray[np.int64], NDArray[np.bool_]]:
    """Truth that depends on score and quality as a logistic regression says."""
    random = np.random.default_rng(1)
    features = random.normal(size=(count, len(FEATURES)))
    chance = 1 / (1 + np.exp(-(0.5 * features[:, 0] + 2 * features[:, 1] - 0.3)))
    return features, np.zeros(count, np.int64), random.random(count) < chance


def test_the_fit_finds_what_the_data_were_made_with() -> None:
    features, labels, true = made_up()
    regression = fit_feedback(features, labels, true, "").classes["car"]
    slopes = np.array(regression.weights) / np.array(regression.deviation)
    np.testing.assert_allclose(slopes[:2], [0.5, 2.0], atol=0.25)
    np.testing.assert_allclose(slopes[2:], 0, atol=0.2)
    chances = regression(features)
    for low in np.arange(0, 1, 0.2):  # calibrated: of those with a chance of 70 %, 70 % are true
        chosen = (chances >= low) & (chances < low + 0.2)
        assert true[chosen].mean() == pytest.approx(chances[chosen].mean(), abs=0.06)


def test_an_object_without_views_is_judged_by_its_score_alone() -> None:
    features, labels, true = made_up()
    feedback = fit_feedback(features, labels, true, "")
    unseen = np.full((2, len(FEATURES)), np.nan)
    unseen[:, 0] = [-1.0, 1.0]
    average = np.tile(features.mean(0), (2, 1))
    average[:, 0] = [-1.0, 1.0]
    found = feedback.scores(unseen, np.zeros(2, np.int64))
    assert found[0] < found[1]
    np.testing.assert_allclose(found, feedback.scores(average, np.zeros(2, np.int64)), atol=1e-9)


def test_rare_classes_take_the_regression_of_all() -> None:
    features, labels, true = made_up()
    feedback = fit_feedback(features, labels, true, "")
    bus = np.full(4, CLASSES.index("bus"))
    np.testing.assert_array_equal(feedback.scores(features[:4], bus), feedback.classes["all"](features[:4]))
    with pytest.raises(UsageError, match="too few"):
        fit_feedback(features[:30], labels[:30], true[:30], "")


def test_true_detections_are_those_of_nuscenes() -> None:
    """The better of two takes the object; another class, or more than 2 m, does not count."""
    centres = np.array([[0.0, 0], [0.5, 0], [10, 0], [20, 0], [31.9, 0]])
    scores = np.array([0.5, 0.9, 0.9, 0.9, 0.1])
    labels = np.array([0, 0, 0, 0, 0])
    truth, true_labels = np.array([[0.0, 0], [10, 0], [22.1, 0], [30, 0]]), np.array([0, 1, 0, 0])
    found = true_detections(centres, scores, labels, truth, true_labels)
    assert found.tolist() == [False, True, False, False, True]
    assert not true_detections(centres, scores, labels, truth[:0], true_labels[:0]).any()


def test_fused_scores_of_the_fusion(tmp_path: Path) -> None:
    pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")
    torch.manual_seed(0)
    fusion = BEVSAMFusion(None, NANO, "cpu", network_size=(96, 160))
    ahead = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    rig = {"intrinsics": torch.tensor([[100.0, 0, 100], [0, 100, 50], [0, 0, 1]]), "extrinsics": ahead}
    boxes = torch.tensor([[10.0, 0, 0, 4, 2, 2, 0], [-10.0, 0, 0, 4, 2, 2, 0]])
    found = {"boxes_3d": boxes, "scores": torch.tensor([0.9, 0.8]), "labels": torch.tensor([0, 1])}
    images = torch.randint(0, 256, (1, 3, 100, 200), dtype=torch.uint8)
    plain = fusion(images, found, rig)
    assert torch.equal(plain["scores_fused"], found["scores"])
    features, labels, true = made_up()
    path = tmp_path / "feedback.json"
    fit_feedback(features, labels, true, digest(fusion.segmenter).hex()).save(path)
    fusion.feedback = load_feedback(path)
    fused = fusion(images, found, rig)
    assert torch.equal(fused["scores"], found["scores"])
    assert not torch.equal(fused["scores_fused"], found["scores"])
    assert torch.equal(corners_of(plain), corners_of(fused))
    with pytest.raises(UsageError, match="other weights of SAM 2"):
        BEVSAMFusion(None, NANO, "cpu", feedback=path)


def corners_of(found: dict[str, Any]) -> Tensor:
    return box_corners(found["boxes_3d"])


@pytest.mark.parametrize("content", ["", "{}", '{"format": "other"}', "[1]"])
def test_files_that_are_no_feedback_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "feedback.json"
    with pytest.raises(UsageError, match="cannot be used"):
        load_feedback(path)
    path.write_text(content)
    with pytest.raises(UsageError, match="cannot be used"):
        load_feedback(path)


def test_calibrate_from_the_command_line(town: SceneIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")
    results: dict[str, list[dict[str, Any]]] = {}
    for row in town.rows_in("synthetic_train").tolist():
        boxes, scores, labels = noisy_detections(town, row, np.random.default_rng(row))
        results[town.token(row)] = [
            {
                "translation": box[:3],
                "size": [box[4], box[3], box[5]],
                "rotation": [np.cos(box[6] / 2), 0, 0, np.sin(box[6] / 2)],
                "velocity": box[7:],
                "detection_name": CLASSES[label],
                "detection_score": score,
            }
            for box, score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)
        ]
    (tmp_path / "results.json").write_text(json.dumps({"meta": {}, "results": results}))
    data = ["--data-root", str(town.dataroot), "--device", "cpu"]
    size = ["--network-size", "160x96", "--workers", "0", "--images", "1", "--objects", "1"]
    assert run(["sam2", "train", *data, *size, "--steps", "1", "--out", str(tmp_path)]) == 0
    weights, out = str(tmp_path / "sam2.safetensors"), tmp_path / "feedback.json"
    given = ["--weights", weights, "--results", str(tmp_path / "results.json"), "--out", str(out)]
    assert run(["sam2", "calibrate", *data, *given]) == 0
    assert "all" in capsys.readouterr().out
    assert isinstance(BEVSAMFusion(weights, NANO, "cpu", feedback=out).feedback, ScoreFeedback)
    (tmp_path / "results.json").write_text("{}")
    assert run(["sam2", "calibrate", *data, *given]) == 3
