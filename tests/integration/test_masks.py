"""Training and measuring masks on a synthetic set: exact masks found, losses as published, scores right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import torch

from configs.errors import DataError
from configs.remote_location import DataRoot
from integration.labelling.command import label
from integration.masks.commands import calibrate, evaluate, train
from integration.masks.examples import MaskExamples
from integration.masks.losses import mask_losses
from integration.masks.metrics import MaskScores, boundary_f, mask_iou
from integration.outline_prior import outline_log_odds
from integration.sam2_package import NANO
from integration.sam2_weights import load_segmenter
from launcher.main import run
from scenes.index import SceneIndex

SIZE = (96, 160)


@pytest.fixture(scope="module")
def index(make_set: Callable[[int, int, tuple[int, int]], SceneIndex]) -> SceneIndex:
    return make_set(2, 1, (180, 320))


def test_exact_masks_lie_in_the_outlines_of_their_boxes(index: SceneIndex) -> None:
    """The boxes are the extent of what was rendered: geometry, timing and labels fit to a pixel."""
    examples = MaskExamples(index, range(len(index)), SIZE)
    inside = total = objects = 0.0
    for place in range(len(examples)):
        example = examples[place]
        whole = torch.nn.functional.interpolate(example.outline[:, None], (180, 320), mode="nearest")[:, 0]
        near = torch.nn.functional.max_pool2d(whole[:, None], 5, 1, 2)[:, 0] > 0
        inside += float((example.masks & near).sum())
        total += float(example.masks.sum())
        objects += len(example.boxes)
        assert (example.open_outline <= example.outline + 1e-6).all()
        assert ((example.occlusion >= 0) & (example.occlusion <= 1)).all()
    assert objects > 20
    assert inside / total > 0.995


def test_mirrored_examples_are_the_same_seen_in_a_mirror(index: SceneIndex) -> None:
    examples = MaskExamples(index, range(len(index)), SIZE, largest=3)
    example = next(one for one in map(examples.__getitem__, range(12)) if len(one.boxes))
    assert len(example.boxes) <= 3
    twice = example.mirrored().mirrored()
    torch.testing.assert_close(twice.boxes, example.boxes)
    assert torch.equal(twice.masks, example.masks)
    assert not torch.equal(example.mirrored().image, example.image)


def test_losses_of_a_perfect_and_of_a_wrong_mask() -> None:
    targets = torch.zeros(2, 8, 8)
    targets[0, 2:6, 2:6] = 1
    logits = torch.where(targets > 0, 20.0, -20.0)
    right = mask_losses(logits, torch.tensor([1.0, 0.3]), torch.tensor([20.0, -20.0]), targets)
    assert all(float(term) < 1e-3 for term in right.values())
    wrong = mask_losses(-logits, torch.tensor([1.0, 0.3]), torch.tensor([-20.0, 20.0]), targets)
    assert float(wrong["dice"]) > 0.9
    assert float(wrong["iou"]) == 1.0
    assert float(wrong["presence"]) > 10
    assert float(wrong["focal"]) > 20


def test_an_absent_object_has_no_mask_loss() -> None:
    losses = mask_losses(torch.randn(1, 8, 8), torch.rand(1), torch.zeros(1), torch.zeros(1, 8, 8))
    assert losses["focal"] == losses["dice"] == losses["iou"] == 0
    assert losses["presence"] > 0


def test_scores_of_masks_that_are_known() -> None:
    square = np.zeros((100, 100), bool)
    square[20:60, 20:60] = True
    moved = np.roll(square, 20, 1)
    assert mask_iou(square, square) == boundary_f(square, square) == 1
    assert mask_iou(square, moved) == pytest.approx(1 / 3)
    assert 0.2 < boundary_f(square, moved) < 0.4  # half of two sides of four
    assert boundary_f(square, np.zeros_like(square)) == mask_iou(square, ~square) == 0
    scores = MaskScores(("ours",))
    scores.add(0.0, square, [square])
    scores.add(0.9, square, [moved])
    summary = scores.summary()
    assert summary["open"]["ours"] == {"iou": 1.0, "boundary_f": 1.0, "objects": 1}
    assert summary["mostly hidden"]["ours"]["iou"] == pytest.approx(1 / 3)
    assert "partly hidden" not in summary


def test_geometry_says_less_where_a_nearer_box_is() -> None:
    outline = torch.tensor([[[1.0, 1.0, 0.0]]])
    open_outline = torch.tensor([[[1.0, 0.0, 0.0]]])
    inside, covered, outside = outline_log_odds(outline, open_outline).flatten().tolist()
    assert inside > 0 > covered > outside


def test_train_and_eval_from_the_command_line(
    index: SceneIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")
    root, out = str(index.dataroot), tmp_path / "nano"
    options = ["--steps", "2", "--images", "1", "--objects", "2", "--network-size", "160x96", "--workers", "0"]
    assert run(["sam2", "train", "--data-root", root, "--device", "cpu", "--out", str(out), *options]) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    trained = load_segmenter(NANO, out / "sam2.safetensors")
    assert trained.network_size == SIZE
    assert trained.wants_outline
    capsys.readouterr()
    weights = str(out / "sam2.safetensors")
    assert (
        run(["sam2", "eval", "--data-root", root, "--device", "cpu", "--weights", weights, "--every", "3", "--json"])
        == 0
    )
    summary = json.loads(capsys.readouterr().out)
    assert set(summary["all"]) == {"SAM 2", "hull filled", "hull without nearer hulls"}
    assert 0.3 < summary["all"]["hull filled"]["iou"] < 0.95


@pytest.mark.parametrize("command", [train, evaluate, calibrate, label])
def test_data_on_s3_are_named_by_their_address(command: click.Command) -> None:
    found = {option.name: option.type for option in command.params}
    assert isinstance(found["data_root"], DataRoot)


def test_a_rate_of_zero_is_no_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sam2", "train", "--learning-rate", "0"]) == 2
    assert "--learning-rate" in capsys.readouterr().err


def test_data_without_masks_is_refused(tmp_path: Path, index: SceneIndex) -> None:
    (tmp_path / "elsewhere").mkdir()
    index_elsewhere = SceneIndex(tmp_path / "elsewhere", index._directory, index.header)
    with pytest.raises(DataError, match="holds no instance masks"):
        MaskExamples(index_elsewhere, [0], SIZE)
