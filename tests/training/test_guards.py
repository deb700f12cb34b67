"""Steps that are not finite and samples that cannot be read: seen by all, answered as the recipe says."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from runs import made_up_scores, run_exit_code
from torch import Tensor
from toy import ALONE, ToyDetector, ToyTargets, step_batches, toy_plan, toy_recipe, toy_trainer

from configs.errors import BevnextError
from configs.schema import GuardConfig
from evaluation.checkpoint_files import read_manifest
from scenes.dataset import SceneDataset
from scenes.index import open_index
from scenes.loader import training_batches
from scenes.order import BatchLayout, SampleKey, training_order
from scenes.sample import Batch, Sample
from training.checkpoint_writer import CheckpointWriter
from training.checkpoints import CheckpointFolder
from training.guards import Guards
from training.memory import out_of_memory_explained
from training.reporter import SilentReporter
from training.trainer import Trainer
from training.world import World

quick_scores = pytest.fixture(scope="module", autouse=True)(made_up_scores)


def toy(policy: str, detector: ToyDetector | None = None, world: World = ALONE) -> Trainer:
    recipe = toy_recipe(f"engine.guards.non_finite={policy}", "schedule.warmup_steps=0")
    torch.manual_seed(0)
    return toy_trainer(detector or ToyDetector(norm=True), recipe, toy_plan(recipe, world, batch_size=2), world)


def with_bad_box(batches: list[Batch], number: int = 1) -> list[Batch]:
    batches[number].boxes[0][0, 0] = math.nan
    return batches


def values(trainer: Trainer) -> dict[str, Tensor]:
    return copy.deepcopy(trainer.state.detector.state_dict())


class SteepDetector(ToyDetector):
    """Its loss is finite, but the slope at one sample is not."""

    def loss(self, outputs: object, targets: ToyTargets, normaliser: Tensor | None = None) -> dict[str, Tensor]:
        terms = super().loss(outputs, targets, normaliser)
        assert isinstance(targets.batch, Batch)
        if "token4" in targets.batch.tokens:
            terms["loss_boxes"] = terms["loss_boxes"] + (0 * self.boxes.weight.sum()).sqrt()
        return terms


def test_a_skipped_step_changes_nothing_but_the_number_of_steps() -> None:
    trainer = toy("skip")
    trainer.train_step(step_batches(trainer.plan, 0, step=0))
    before, moments = values(trainer), copy.deepcopy(trainer.state.optimizer.state_dict())
    report = trainer.train_step(with_bad_box(step_batches(trainer.plan, 0, step=1), number=0))
    assert report.fault is not None
    assert report.fault.reason == "the loss is nan"
    assert report.fault.tokens == ("token8", "token9")
    assert trainer.state.step == 2
    for name, value in values(trainer).items():  # batch-norm statistics too
        assert torch.equal(value, before[name]), name
    for number, one in trainer.state.optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, moments["state"][number][key]) for key, value in one.items())
    assert trainer.train_step(step_batches(trainer.plan, 0, step=2)).fault is None


def test_the_sample_whose_gradient_is_not_finite_is_found() -> None:
    trainer = toy("skip", SteepDetector(norm=True))
    before = values(trainer)
    report = trainer.train_step(step_batches(trainer.plan, 0, step=0))
    assert report.fault is not None
    assert report.fault.reason == "the gradient's norm is nan"
    assert report.fault.tokens == ("token4", "token5")
    assert all(torch.equal(value, before[name]) for name, value in values(trainer).items())


def _faults_of_two_ranks(world: World, folder: Path) -> None:
    found = {}
    for name, detector in (("loss", ToyDetector(norm=True)), ("gradient", SteepDetector())):
        trainer = toy("skip", detector, world)
        batches = step_batches(trainer.plan, world.rank, step=0)
        if name == "loss" and world.rank == 1:
            with_bad_box(batches, number=0)
        report = trainer.train_step(batches)
        after = trainer.train_step(step_batches(trainer.plan, world.rank, step=1))
        assert report.fault is not None
        found[name] = [report.fault.reason, *report.fault.tokens, str(after.fault), str(after.loss)]
    (folder / f"rank{world.rank}.json").write_text(json.dumps(found))


def test_what_one_process_sees_all_know_before_the_optimiser_steps(tmp_path: Path) -> None:
    run_ranks(_faults_of_two_ranks, 2, tmp_path)
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first["loss"][:4] == ["the loss is nan", "token2", "token3", "None"]
    assert first["gradient"][:4] == ["the gradient's norm is nan", "token4", "token5", "None"]
    assert math.isfinite(float(first["loss"][4]))


def guards(trainer: Trainer, folder: Path, **config: object) -> Guards:
    writer = CheckpointWriter(CheckpointFolder(folder, keep_last=2), SilentReporter(), beside=False)
    return Guards(GuardConfig.model_validate(config), trainer.state, writer, ALONE, SilentReporter())


def test_faults_are_limited(tmp_path: Path) -> None:
    trainer = toy("skip")
    guard = guards(trainer, tmp_path, non_finite="skip", non_finite_limit=2)
    for _ in range(2):
        batches = with_bad_box(step_batches(trainer.plan, 0, step=0))
        guard.after_step(trainer.train_step(batches), batches)
    with pytest.raises(BevnextError, match="non_finite_limit of 2 is exceeded"):
        guard.after_step(trainer.train_step(batches), batches)


def test_nothing_to_rewind_to_is_an_error(tmp_path: Path) -> None:
    trainer = toy("rewind")
    batches = with_bad_box(step_batches(trainer.plan, 0, step=0))
    with pytest.raises(BevnextError, match="no checkpoint to go back to"):
        guards(trainer, tmp_path, non_finite="rewind").after_step(trainer.train_step(batches), batches)


# --- whole runs --------------------------------------------------------------------------------------------------


@pytest.fixture
def bad_box(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Spoil the boxes of the sample at one place of training."""
    read = SceneDataset.__getitem__

    def spoil(epoch: int, position: int) -> None:
        def spoiled(self: SceneDataset, key: int | SampleKey) -> Sample:
            sample = read(self, key)
            if isinstance(key, SampleKey) and (key.epoch, key.position) == (epoch, position):
                sample.boxes[:, 2] = math.nan
            return sample

        monkeypatch.setattr(SceneDataset, "__getitem__", spoiled)

    return spoil


def events(run_dir: Path, name: str) -> list[dict[str, object]]:
    lines = (json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == name]


def test_a_run_stops_skips_or_rewinds(
    driving_set: Path,
    tmp_path: Path,
    bad_box: Callable[[int, int], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    bad_box(1, 1)  # in step 3 of 4: two epochs of two steps of two samples
    assert run_exit_code(driving_set, tmp_path / "stop") == 1
    said = capfd.readouterr().err
    assert "step 3: the loss is" in said
    assert "engine.guards.non_finite=skip" in said
    assert read_manifest(tmp_path / "stop" / "checkpoints" / "latest").step == 2

    assert run_exit_code(driving_set, tmp_path / "skip", "--set", "engine.guards.non_finite=skip") == 0
    (fault,) = events(tmp_path / "skip", "fault")
    assert fault["step"] == 3
    assert len(fault["tokens"]) == 2  # type: ignore[arg-type]
    assert str(fault["answer"]).startswith("skipped")
    assert [event["step"] for event in events(tmp_path / "skip", "train")] == [1, 2, 4]

    rewind = ["--set", "engine.guards.non_finite=rewind", "--set", "engine.checkpoint_every=1"]
    assert run_exit_code(driving_set, tmp_path / "rewind", *rewind) == 0
    (fault,) = events(tmp_path / "rewind", "fault")
    assert fault["answer"] == "rewound: the weights are those of step_00000002"


@pytest.fixture
def damaged_set(driving_set: Path, tmp_path: Path) -> tuple[Path, str]:
    """A copy of the set with one image cut short, and the token of its sample."""
    root = tmp_path / "damaged"
    shutil.copytree(driving_set, root)
    index = open_index(root, "v1.0-synthetic")
    frame = index.frame(int(index.rows_in("synthetic_train")[2]))
    path = frame.image_paths[3]
    path.write_bytes(path.read_bytes()[:100])
    return root, frame.token


def test_a_damaged_image_ends_the_run_or_is_replaced_and_counted(
    damaged_set: tuple[Path, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root, token = damaged_set
    assert run_exit_code(root, tmp_path / "error") == 3
    assert "is not a whole JPEG" in capfd.readouterr().err

    skip = ["--set", "engine.guards.damaged_samples=skip"]
    assert run_exit_code(root, tmp_path / "skip", *skip) == 0
    (event,) = events(tmp_path / "skip", "skipped_samples")  # once, though read in both epochs
    assert (event["tokens"], event["total"]) == ([token], 1)


def test_too_many_damaged_samples_end_the_run(
    damaged_set: tuple[Path, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root, _ = damaged_set
    index = open_index(root, "v1.0-synthetic")
    index.frame(int(index.rows_in("synthetic_train")[0])).lidar.path.write_bytes(b"abc")
    limited = ["--set", "engine.guards.damaged_samples=skip", "--set", "engine.guards.damaged_limit=1"]
    assert run_exit_code(root, tmp_path / "run", *limited) == 3
    assert "2 samples cannot be read, engine.guards.damaged_limit is 1" in capfd.readouterr().err


def test_the_stand_in_is_the_same_whoever_reads_it(damaged_set: tuple[Path, str]) -> None:
    root, token = damaged_set
    recipe = toy_recipe("data.source_size=[90, 160]")
    index = open_index(root, "v1.0-synthetic")
    rows = index.rows_in("synthetic_train")
    order = training_order(index, rows, recipe.data, seed=0)
    dataset = SceneDataset(index, rows, recipe.data, training=True)

    def read(ranks: int, workers: int) -> dict[tuple[int, int], tuple[str, Tensor]]:
        """By step and place in it: the token and the image. Two epochs of two steps of two samples."""
        found = {}
        for rank in range(ranks):
            layout = BatchLayout(rank, ranks, micro_batch=2 // ranks, accumulation=1)
            batches = training_batches(
                dataset, order, layout, first_step=0, stop_step=4, workers=workers, skip_damaged=True
            )
            for step, batch in enumerate(batches):
                for place, sample in enumerate(batch.tokens):
                    found[step, rank * layout.micro_batch + place] = (sample, batch.images[place])
        return found

    expected = read(1, 0)
    assert token not in {sample for sample, _ in expected.values()}
    for ranks, workers in ((1, 1), (2, 0), (2, 2)):
        found = read(ranks, workers)
        assert found.keys() == expected.keys()
        for place, (sample, images) in expected.items():
            assert found[place][0] == sample
            assert torch.equal(found[place][1], images)


# --- out of memory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch_size", "fix"),
    [(4, "--batch-size 2 --gradient-accumulation 4 needs about half"), (1, "one sample is the least")],
)
def test_out_of_memory_names_the_batch_and_the_plan_that_would_fit(batch_size: int, fix: str) -> None:
    recipe = toy_recipe()
    plan = toy_plan(recipe, ALONE, batch_size)
    with (
        pytest.raises(BevnextError) as caught,
        out_of_memory_explained(plan, recipe, step=6, batches=step_batches(plan, 0, 0)),
    ):
        torch.empty(1 << 60, dtype=torch.uint8)
    assert caught.value.message.startswith(f"step 7: out of memory on CPU with micro-batches of {batch_size} samples")
    assert "token0" in caught.value.message
    assert fix in caught.value.fix
    assert caught.value.exit_code == 1


def test_other_errors_are_left_alone() -> None:
    recipe = toy_recipe()
    plan = toy_plan(recipe, ALONE, 4)
    with pytest.raises(RuntimeError, match="something else"), out_of_memory_explained(plan, recipe, 0, []):
        raise RuntimeError("something else")
