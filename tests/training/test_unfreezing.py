"""SAM 2's last stage begins to train at its epoch: alone, on two processes, and taken up on either side of it.

In float64 with frozen batch-norm statistics, so that two processes have to do the step of one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_up_driving import made_up_batch
from ranks import run_ranks
from torch import Tensor
from toy import ALONE, sample_numbers, toy_plan, toy_recipe

from configs.errors import UsageError
from configs.plan import Plan
from configs.schema import Recipe
from evaluation.checkpoint_files import WEIGHTS
from integration.sam_enhanced import build_recipe_detector
from integration.sam_features import TRAINED_LATER
from training.checkpoints import RunManifest
from training.moving_average import MovingAverage
from training.optimizer import build_optimizer
from training.resume import step_to_go_on_from
from training.state import TrainingState
from training.trainer import Trainer
from training.world import World

pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")

NANO = ("sam2.config=sam2_hiera_nano", "sam2.random=true", "sam2.adapter_channels=8", "optimizer.reference_batch=2")
SMALL = ("schedule.warmup_steps=0", "schedule.shape=constant")
STEPS_PER_EPOCH = 2
STEPS = 4


def sam2_recipe(*overrides: str) -> Recipe:
    return toy_recipe(*NANO, *SMALL, "sam2.unfreeze_at_epoch=1", *overrides)


def trainer_of(recipe: Recipe, world: World, batch_size: int) -> Trainer:
    plan = toy_plan(recipe, world, batch_size, samples=STEPS_PER_EPOCH * 2)
    torch.manual_seed(0)
    detector = build_recipe_detector(recipe).double().eval()
    state = TrainingState(
        detector=detector,
        optimizer=build_optimizer(detector, recipe.optimizer, plan.learning_rate, recipe.sam2),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        average=MovingAverage(detector, recipe.engine.ema) if recipe.engine.ema else None,
    )
    return Trainer(state, recipe, plan, world)


def do_steps(trainer: Trainer, until: int) -> None:
    while trainer.state.step < until:
        numbers = sample_numbers(trainer.plan, trainer.world.rank, trainer.state.step)
        trainer.train_step([made_up_batch(trainer.recipe.data, own) for own in numbers])


def later(trainer: Trainer) -> dict[str, Tensor]:
    return {name: p for name, p in trainer.state.detector.named_parameters() if name.startswith(TRAINED_LATER)}


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.state.detector.state_dict().items()}


def save(trainer: Trainer, folder: Path) -> Path:
    folder.mkdir()
    for name, content in trainer.state.snapshot(copied=True).payloads():
        (folder / name).write_bytes(content)
    return folder


def test_the_last_stage_and_all_norms_train_from_their_epoch_on_and_nothing_else_of_sam2() -> None:
    trainer = trainer_of(sam2_recipe(), ALONE, 2)
    trunk = trainer.state.detector.get_submodule("sam.trunk")._held[0]  # type: ignore[operator]
    start, own = weights(trainer), {name: value.clone() for name, value in trunk.state_dict().items()}
    do_steps(trainer, STEPS_PER_EPOCH)
    assert all(torch.equal(value, start[name]) for name, value in later(trainer).items())
    assert not any(parameter in trainer.state.optimizer.state for parameter in later(trainer).values())
    do_steps(trainer, STEPS)
    moved = {name for name, value in trunk.state_dict().items() if not torch.equal(value, own[name])}
    last_stage = {name for name, _ in trunk.named_parameters() if name.startswith("blocks.5.")}
    norms = {name for name, _ in trunk.named_parameters() if ".norm" in name}
    assert moved == last_stage | norms
    assert not any(module.training for module in trunk.modules())


def test_their_rate_is_a_fraction_of_the_detectors() -> None:
    trainer = trainer_of(sam2_recipe("sam2.unfreeze_multiplier=0.1"), ALONE, 2)
    rates = {id(p): group["peak_lr"] for group in trainer.state.optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in later(trainer).values()} == {0.1 * trainer.plan.learning_rate}


def test_the_average_follows_them_apart_from_the_detector_and_shares_the_rest() -> None:
    trainer = trainer_of(sam2_recipe(), ALONE, 2)
    do_steps(trainer, STEPS)
    assert trainer.state.average is not None
    average, detector = trainer.state.average.detector, trainer.state.detector
    theirs, ours = (one.get_submodule("sam.trunk")._held[0] for one in (average, detector))  # type: ignore[operator]
    assert theirs.blocks[0].mlp.layers[0].weight is ours.blocks[0].mlp.layers[0].weight
    followed = average.state_dict()[f"{TRAINED_LATER}blocks-5-norm1-weight"]
    assert theirs.blocks[5].norm1.weight.data_ptr() == followed.data_ptr()
    assert not torch.equal(followed, ours.blocks[5].norm1.weight)
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_checkpoints_hold_what_trains_and_not_what_is_frozen(tmp_path: Path) -> None:
    trainer = trainer_of(sam2_recipe(), ALONE, 2)
    names = [name for name in trainer.state.detector.state_dict() if name.startswith("sam.trunk.")]
    assert {name for name in names if not name.startswith(TRAINED_LATER)} == {"sam.trunk.sha256"}
    frozen = trainer_of(toy_recipe(*NANO, *SMALL), ALONE, 2)
    sizes = [(save(one, tmp_path / str(n)) / WEIGHTS).stat().st_size for n, one in enumerate((trainer, frozen))]
    held = sum(8 * parameter.numel() for parameter in later(trainer).values())
    assert sizes[0] - sizes[1] == pytest.approx(held, rel=0.02)


@pytest.mark.parametrize("stopped_after", [1, STEPS_PER_EPOCH, 3])
def test_a_run_taken_up_on_either_side_goes_on_bit_by_bit(tmp_path: Path, stopped_after: int) -> None:
    straight = trainer_of(sam2_recipe(), ALONE, 2)
    do_steps(straight, stopped_after)
    place = save(straight, tmp_path / "checkpoint")
    do_steps(straight, STEPS)
    again = trainer_of(sam2_recipe(), ALONE, 2)
    again.state.restore(place, stopped_after)
    do_steps(again, STEPS)
    expected = weights(straight)
    assert all(torch.equal(value, expected[name]) for name, value in weights(again).items())


def test_a_run_put_back_over_the_epoch_freezes_them_again(tmp_path: Path) -> None:
    trainer = trainer_of(sam2_recipe(), ALONE, 2)
    do_steps(trainer, 1)
    place = save(trainer, tmp_path / "checkpoint")
    do_steps(trainer, 3)
    first = weights(trainer)
    trainer.state.restore(place, 1)
    do_steps(trainer, 3)
    assert all(torch.equal(value, first[name]) for name, value in weights(trainer).items())


def test_only_what_an_adapter_uses_is_trained() -> None:
    """Parameters without a gradient would stop several processes."""
    trainer = trainer_of(sam2_recipe("sam2.strides=[8, 16]"), ALONE, 2)
    names = {name.removeprefix(TRAINED_LATER) for name in later(trainer)}
    assert not any(name.startswith("blocks-5") for name in names)
    assert "blocks-2-attn-qkv-weight" in names
    do_steps(trainer, STEPS_PER_EPOCH + 1)
    assert all(parameter in trainer.state.optimizer.state for parameter in later(trainer).values())


def _steps_of_rank(world: World, folder: Path) -> None:
    trainer = trainer_of(sam2_recipe(), world, 1)
    do_steps(trainer, STEPS)
    torch.save(weights(trainer), folder / f"rank{world.rank}.pt")


def test_two_processes_do_the_steps_of_one_across_the_epoch(tmp_path: Path) -> None:
    run_ranks(_steps_of_rank, 2, tmp_path)
    alone = trainer_of(sam2_recipe(), ALONE, 2)
    do_steps(alone, STEPS)
    ours, others = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, value in weights(alone).items():
        assert torch.equal(ours[name], others[name]), name
        torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=1e-9, msg=name)


def test_a_checkpoint_of_another_schedule_is_refused_and_one_of_moved_weights_is_not(tmp_path: Path) -> None:
    recipe = sam2_recipe()
    plan: Plan = toy_plan(recipe, ALONE, 2, samples=4)
    assert recipe.sam2 is not None
    manifest = RunManifest(
        step=2,
        epoch=1,
        recipe=recipe.name,
        created="2026-01-01T00:00:00+00:00",
        files={},
        model=recipe.model.model_dump(mode="json"),
        sam2=recipe.sam2.model_dump(mode="json") | {"weights": "elsewhere.pt"},
        effective_batch=plan.effective_batch,
        steps_per_epoch=plan.steps_per_epoch,
        world_size=1,
    )
    (tmp_path / "manifest.json").write_text(manifest.model_dump_json())
    assert step_to_go_on_from(tmp_path, recipe, plan) == 2
    with pytest.raises(UsageError, match=r"sam2\.unfreeze_at_epoch is 1 there and None here"):
        step_to_go_on_from(tmp_path, toy_recipe(*NANO, *SMALL), plan)


def test_the_backbone_mode_has_nothing_to_unfreeze() -> None:
    with pytest.raises(UsageError, match="trains from the first step"):
        sam2_recipe("sam2.mode=backbone", "model.bgr_input=false")
