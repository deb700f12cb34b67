"""Parts of a detector that are not trained keep every value; the others move."""

from __future__ import annotations

import pytest
import torch
from made_up_driving import made_up_batch
from toy import ALONE, toy_plan, toy_recipe, toy_trainer

from configs.errors import UsageError
from configs.recipes import load_recipe
from detectors.zoo import build_detector
from training.frozen_parts import freeze

RECIPE = toy_recipe()
FROZEN = ("img_backbone", "img_view_transformer.depth_net")


def test_frozen_parts_keep_weights_and_statistics_and_the_others_move() -> None:
    torch.manual_seed(0)
    detector = build_detector(RECIPE.model, RECIPE.data).train()
    freeze(detector, FROZEN)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    trainer = toy_trainer(detector, RECIPE, toy_plan(RECIPE, ALONE, 2), ALONE)
    trainer.train_step([made_up_batch(RECIPE.data, [number, number + 1]) for number in (0, 2, 4, 6)])
    moved = {name for name, value in detector.state_dict().items() if not torch.equal(value, before[name])}
    assert not {name for name in moved if name.startswith(FROZEN)}
    assert {"img_bev_encoder_backbone", "pts_bbox_head"} <= {name.split(".")[0] for name in moved}
    held = sum(p.numel() for group in trainer.state.optimizer.param_groups for p in group["params"])
    assert held == sum(p.numel() for name, p in detector.named_parameters() if not name.startswith(FROZEN))


@pytest.mark.parametrize("name", ["", "img_bakbone", "img_backbone.layer9"])
def test_an_unknown_part_is_an_error_that_names_the_parts(name: str) -> None:
    detector = build_detector(RECIPE.model, RECIPE.data)
    with pytest.raises(UsageError, match=r"optimizer\.frozen") as raised:
        freeze(detector, [name])
    assert "img_backbone, " in str(raised.value.fix)


def test_random_weights_cannot_be_frozen() -> None:
    with pytest.raises(UsageError, match="random") as raised:
        load_recipe("synthetic/bevnext-smoke", ["optimizer.frozen=[img_backbone]"])
    assert "model.weights" in str(raised.value.fix)
    recipe = load_recipe("synthetic/bevnext-smoke", ["optimizer.frozen=[img_backbone]", "model.weights=start.pth"])
    assert recipe.optimizer.frozen == ("img_backbone",)
