"""What a run starts from: weights of its network, of another one, of the backbone; and every way they may not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from runs import made_up_scores, run_exit_code
from safetensors.torch import load_file, save_file
from toy import ALONE, toy_plan

from configs.published_weights import published_files, record
from configs.recipes import load_recipe
from launcher.main import run
from training.run import build_state
from training.start_weights import load_start_weights

quick_scores = pytest.fixture(scope="module", autouse=True)(made_up_scores)

SMOKE = "synthetic/bevnext-smoke"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The average of a run of the smallest recipe; its floating values are all 0.25."""
    recipe = load_recipe(SMOKE)
    state = build_state(recipe, toy_plan(recipe, ALONE, 4), ALONE, None).detector.state_dict()
    filled = {name: torch.full_like(value, 0.25 if value.is_floating_point() else 3) for name, value in state.items()}
    path = tmp_path_factory.mktemp("weights") / "ema.safetensors"
    save_file({name: value.contiguous() for name, value in filled.items()}, path)
    return path


def started(*overrides: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], list[str]]:
    """Weights and average of a fresh state, and what was said."""
    recipe = load_recipe(SMOKE, overrides)
    state = build_state(recipe, toy_plan(recipe, ALONE, 4), ALONE, None)
    said = load_start_weights(state, recipe.model)
    assert state.average is not None
    return state.detector.state_dict(), state.average.detector.state_dict(), said


def test_weights_of_the_same_network_are_those_of_detector_and_average(weights: Path) -> None:
    own, average, said = started(f"model.weights={weights}")
    for name, value in load_file(weights).items():
        assert torch.equal(own[name], value)
        assert torch.equal(average[name], value)
    assert said == [f"weights from {weights}"]


def test_a_network_of_other_sizes_takes_what_fits(weights: Path) -> None:
    own, average, said = started(f"model.hand_over={weights}", "model.bev.channels=24", "model.refinement.heads=2")
    assert (own["img_backbone.conv1.weight"] == 0.25).all()
    assert not (own["pts_bbox_head.shared_conv.conv.weight"] == 0.25).any()
    assert all(torch.equal(average[name], own[name]) for name in own)
    assert "entries copied by name and shape" in said[0]
    assert any("pts_bbox_head.shared_conv.conv.weight (16x16x3x3 in the file, 16x24x3x3 here)" in line for line in said)


def test_the_account_is_in_the_log_and_only_a_fresh_run_gives_it(
    weights: Path, driving_set: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--epochs", "1", "--set", f"model.hand_over={weights}"]
    assert run_exit_code(driving_set, tmp_path, *arguments) == 0
    assert f"hand-over from {weights}" in (tmp_path / "train.log").read_text()
    capfd.readouterr()
    assert run_exit_code(driving_set, tmp_path, *arguments) == 0
    assert "hand-over" not in capfd.readouterr().out


def test_what_does_not_fit_is_one_clear_error(
    weights: Path,
    driving_set: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BEVNEXT_SAM2_CHECKPOINTS", str(tmp_path / "folder"))
    (tmp_path / "folder").mkdir()
    foreign = tmp_path / "foreign.pth"
    torch.save({"state_dict": {"layer.weight": torch.zeros(3)}}, foreign)
    changed = tmp_path / "folder" / "bevnext-stage2.safetensors"
    changed.write_bytes(weights.read_bytes())
    record(changed)
    changed.write_bytes(b"x" + weights.read_bytes()[1:])
    for values, code, told in (
        (["model.weights=/nowhere.pth"], 2, "weights file not found: /nowhere.pth"),
        (["model.hand_over=/nowhere.pth"], 2, "weights file not found: /nowhere.pth"),
        (["model.backbone.weights=torchvision-resnet50"], 2, "checkpoints fetch torchvision-resnet50"),
        ([f"model.weights={foreign}"], 2, "1 unexpected: layer.weight"),
        ([f"model.hand_over={foreign}"], 2, "none of its 1 entries"),
        ([f"model.backbone.weights={foreign}"], 2, "does not fit the image backbone"),
        ([f"model.weights={weights}", "model.bev.channels=24"], 2, "of another shape"),
        (["model.weights=bevnext-stage2"], 3, "damaged or was replaced"),
        ([f"model.weights={weights}", f"model.hand_over={weights}"], 2, "a network starts from one of them"),
        ([f"model.weights={weights}", f"model.backbone.weights={weights}"], 2, "--set model.backbone.weights=null"),
    ):
        options = [word for value in values for word in ("--set", value)]
        assert run_exit_code(driving_set, tmp_path / "run", *options) == code, values
        said = capfd.readouterr().err
        assert told in said
        assert "fix:" in said
        assert "Traceback" not in said
    assert "bevnext-stage2" in published_files()


def test_a_run_of_the_image_branch_alone_cannot_be_evaluated(
    driving_set: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    only = ["--set", "model.perspective={only: true}", "--set", "engine.evaluate_every=null", "--epochs", "1"]
    assert run_exit_code(driving_set, tmp_path, *only) == 0
    capfd.readouterr()
    arguments = ["--run", str(tmp_path), "--data-root", str(driving_set), "--workers", "0", "--device", "cpu"]
    assert run(["eval", *arguments]) == 2
    said = capfd.readouterr().err
    assert "trains the image branch alone, it finds no boxes" in said
    assert "--set model.weights=FILE" in said
    assert not (tmp_path / "results").exists()
