"""From stage 1 to stage 2: what is copied, what is not, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from goldens import COPIES

from configs.errors import UsageError
from configs.recipes import load_recipe
from detectors import build_detector
from detectors.hand_over import HandOver, hand_over

STAGE_2 = load_recipe("bevnext/bevnext-stage2")


@pytest.fixture(scope="module")
def stage_1_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A moving average of stage 1 as its hook writes it; all 2, and counters 7."""
    shapes = json.loads((COPIES / "bevnext_stage1_state.json").read_text())
    state = {
        name: torch.tensor(7) if name.endswith("tracked") else torch.full((1,), 2.0).expand(shape)
        for name, shape in shapes.items()
    }
    path = tmp_path_factory.mktemp("weights") / "epoch_2_ema.pth"
    torch.save({"epoch": 1, "state_dict": state, "updates": 14422}, path)
    return path


@pytest.fixture(scope="module")
def handed_over(stage_1_file: Path) -> tuple[torch.nn.Module, HandOver]:
    detector = build_detector(STAGE_2.model, STAGE_2.data)
    return detector, hand_over(detector, stage_1_file)


def test_769_of_1041_entries_are_copied(handed_over: tuple[torch.nn.Module, HandOver]) -> None:
    detector, account = handed_over
    assert (len(account.copied), account.entries) == (769, 1041)
    state = detector.state_dict()
    copied = set(account.copied)
    assert all((state[name] == (7 if name.endswith("tracked") else 2)).all() for name in copied)
    whole = ("img_backbone.", "img_neck.", "proposal_head.", "pts_bbox_head.task_heads.")
    assert all(name in copied for name in state if name.startswith(whole))
    assert {name for name in state if name.startswith("img_view_transformer.")} - copied == {
        "img_view_transformer.depth_net.context_conv.3.weight",
        "img_view_transformer.depth_net.context_conv.3.bias",
    }
    assert account.reshaped["pts_bbox_head.shared_conv.conv.weight"] == ("64x80x3x3", "64x160x3x3")
    assert "img_bev_encoder_backbone.fusion_layer.conv1.weight" in account.absent
    assert "img_bev_encoder_backbone.layers.0.0.conv1.weight" in account.unused
    assert not (state["pts_bbox_head.shared_conv.conv.weight"] == 2).any()


def test_the_account_says_what_and_why(handed_over: tuple[torch.nn.Module, HandOver], stage_1_file: Path) -> None:
    lines = handed_over[1].lines()
    assert lines[0].startswith(f"hand-over from {stage_1_file}: 769 of 1041 entries copied by name and shape")
    assert any(line.split() == ["img_backbone", "318", "copied"] for line in lines)
    assert "  another shape: depth_emb.3.weight (80x118x1x1 in the file, 160x118x1x1 here)" in lines


def test_weights_of_another_family_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "num_batches_tracked": torch.tensor(1)}, path)
    detector = build_detector(STAGE_2.model, STAGE_2.data)
    with pytest.raises(UsageError, match=r"none of its 2 entries has name and shape of one of the network's 1041"):
        hand_over(detector, path)
