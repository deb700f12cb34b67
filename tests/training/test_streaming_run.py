"""Training along scenes: what is carried on is in the checkpoint, and belongs to a slot, not to a process."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from made_up_driving import made_up_batch
from ranks import run_ranks
from runs import made_up_scores, run_exit_code
from safetensors.torch import load_file, save
from torch import Tensor
from toy import ALONE, sample_numbers, toy_plan, toy_trainer

from configs.recipes import load_recipe
from detectors.zoo import build_detector
from evaluation.checkpoint_files import MANIFEST, read_manifest
from scenes.order import BatchLayout
from scenes.sample import Batch
from training.carried import carried_by_all, take_up_carried
from training.checkpoints import CheckpointFolder, RunManifest
from training.state import CARRIED
from training.trainer import Trainer
from training.world import World

CONFIG = "synthetic/bevnext-smoke-streaming"
RECIPE = load_recipe(CONFIG, ["optimizer.reference_batch=4", "optimizer.clip_norm=1e9", "engine.ema=null"])
STEPS = 3

quick_scores = pytest.fixture(scope="module", autouse=True)(made_up_scores)


# --- whole runs ----------------------------------------------------------------------------------------------------


def start(driving_set: Path, run_dir: Path, *arguments: str) -> int:
    """Two epochs of two steps of two slots; each slot walks two samples."""
    return run_exit_code(driving_set, run_dir, "--config", CONFIG, "--set", "engine.checkpoint_every=1", *arguments)


@pytest.fixture(scope="module")
def straight(driving_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "straight"
    assert start(driving_set, run_dir, "--set", "engine.keep_last=9") == 0
    return run_dir


def taken_up_at(straight: Path, run_dir: Path, step: int) -> Path:
    name = f"step_0000000{step}"
    shutil.copytree(straight / "checkpoints" / name, run_dir / "checkpoints" / name)
    (run_dir / "checkpoints" / "latest").symlink_to(name)
    return run_dir / "checkpoints" / name


def test_a_checkpoint_within_an_epoch_holds_the_maps(straight: Path) -> None:
    for step, held in ((1, True), (2, False), (3, True), (4, False)):
        assert (CARRIED in read_manifest(straight / "checkpoints" / f"step_0000000{step}").files) == held
    maps = load_file(straight / "checkpoints" / "step_00000001" / CARRIED)
    assert {name: tuple(one.shape) for name, one in maps.items() if name.endswith("bev")} == {
        "0.bev": (1, 16, 32, 32),
        "1.bev": (1, 16, 32, 32),
    }


def last_weights(run_dir: Path) -> dict[str, Tensor]:
    return load_file(run_dir / "checkpoints" / "step_00000004" / "model.safetensors")


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_run_goes_on_bit_by_bit(done: int, straight: Path, driving_set: Path, tmp_path: Path) -> None:
    taken_up_at(straight, tmp_path, done)
    assert start(driving_set, tmp_path) == 0
    expected = last_weights(straight)
    for name, value in last_weights(tmp_path).items():
        assert torch.equal(value, expected[name]), name


def test_another_split_of_the_step_takes_up_the_slots(straight: Path, driving_set: Path, tmp_path: Path) -> None:
    taken_up_at(straight, tmp_path, 3)
    assert start(driving_set, tmp_path, "--batch-size", "1", "--gradient-accumulation", "2") == 0


def test_lost_maps_would_give_other_weights(straight: Path, driving_set: Path, tmp_path: Path) -> None:
    place = taken_up_at(straight, tmp_path, 3)
    state = load_file(place / CARRIED)
    folder = CheckpointFolder(tmp_path / "checkpoints", keep_last=9)
    manifest = RunManifest.model_validate_json((place / MANIFEST).read_bytes())
    files = [(name, (place / name).read_bytes()) for name in manifest.files if name != CARRIED]
    empty = {name: torch.zeros_like(one) if name.endswith("bev") else one for name, one in state.items()}
    folder.write(manifest, [*files, (CARRIED, save(empty))])
    assert start(driving_set, tmp_path) == 0
    ours = last_weights(tmp_path)
    assert any(not torch.equal(ours[name], value) for name, value in last_weights(straight).items())


@pytest.mark.parametrize(
    ("config", "setting"), [(CONFIG, "data.streaming=null"), ("synthetic/bevnext-smoke-stage2", "")]
)
def test_walks_and_shuffled_samples_do_not_mix_within_an_epoch(
    config: str, setting: str, straight: Path, driving_set: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    taken_up_at(straight, tmp_path, 1)
    other = ["--config", config, *(["--set", setting] if setting else [])]
    assert start(driving_set, tmp_path, *other) == 2
    assert "was saved within an epoch along scenes" in capfd.readouterr().err


# --- any split of the step ------------------------------------------------------------------------------------------


def batches_of(plan_rank: list[list[int]], step: int) -> list[Batch]:
    """Micro-batches of slots that all walk from step 0 on; the content follows from slot and step."""
    found = []
    for slots in plan_rank:
        batch = made_up_batch(RECIPE.data, [100 * step + slot for slot in slots])
        batch.global_from_ego[:, 0, 3] = 4.0 * step
        batch.walk.extend((slot, step) for slot in slots)
        found.append(batch)
    return found


def trainer_of(world: World, batch_size: int) -> Trainer:
    torch.manual_seed(0)
    detector = build_detector(RECIPE.model, RECIPE.data).double().eval()
    plan = toy_plan(RECIPE, world, batch_size)
    trainer = toy_trainer(detector, RECIPE, plan, world)
    for group in trainer.state.optimizer.param_groups:
        group["peak_lr"] = 1e-12
    return trainer


def gradients(world: World, batch_size: int) -> dict[str, Tensor]:
    """What three steps along four walks leave in Adam's first moments."""
    trainer = trainer_of(world, batch_size)
    for step in range(STEPS):
        trainer.train_step(batches_of(sample_numbers(trainer.plan, world.rank, 0), step))
    moments = trainer.state.optimizer.state
    return {name: moments[one]["exp_avg"] for name, one in trainer.state.detector.named_parameters()}


def _ranks_walk(world: World, folder: Path) -> None:
    torch.save({size: gradients(world, size) for size in (2, 1)}, folder / f"rank{world.rank}.pt")
    trainer = trainer_of(world, 2)
    for step in range(2):
        trainer.train_step(batches_of(sample_numbers(trainer.plan, world.rank, 0), step))
    carried = carried_by_all(trainer.state, trainer.plan, world)
    assert carried is not None
    if world.is_main:
        torch.save(carried, folder / "carried.pt")
        (folder / CARRIED).write_bytes(save(carried))
    world.wait_for_main()
    layout = BatchLayout(world.rank, world.size, 2, 1)
    before = trainer.state.detector.memory.state()
    trainer.state.detector.memory.forget()
    take_up_carried(trainer.state, folder, trainer.plan, layout)
    after = trainer.state.detector.memory.state()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], one) for name, one in before.items())


def test_gradients_do_not_depend_on_who_carries_a_slot(tmp_path: Path) -> None:
    run_ranks(_ranks_walk, 2, tmp_path)
    expected = gradients(ALONE, 4)
    found = {"1 x (4 x 1)": gradients(ALONE, 1)}
    for rank in (0, 1):
        saved = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        found |= {f"2 x 2, rank {rank}": saved[2], f"2 x (2 x 1), rank {rank}": saved[1]}
    for topology, moments in found.items():
        for name, value in expected.items():
            scale = float(value.abs().max()) or 1.0
            assert float((moments[name] - value).abs().max()) < 1e-7 * scale, (topology, name)
    carried = torch.load(tmp_path / "carried.pt", weights_only=True)
    assert {name for name in carried if name.endswith("ages")} == {f"{slot}.ages" for slot in range(4)}


def test_a_step_that_is_not_finite_leaves_no_maps(tmp_path: Path) -> None:
    trainer = trainer_of(ALONE, 4)
    (batch,) = batches_of([[0, 1, 2, 3]], 0)
    trainer.train_step([batch])
    memory = trainer.state.detector.memory
    assert memory is not None and memory.state()
    (batch,) = batches_of([[0, 1, 2, 3]], 1)
    batch.boxes[1][:, 2] = torch.nan
    assert trainer.train_step([batch]).fault is not None
    assert not memory.state()
