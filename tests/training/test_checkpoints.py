"""Checkpoints: whole or not there, verified, rotated, and never those of another recipe."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_disk import largest_file
from toy import ALONE, ToyDetector, step_batches, toy_plan, toy_recipe, toy_trainer

from configs.errors import BevnextError, DataError, UsageError
from configs.plan import Plan
from evaluation.checkpoint_files import read_manifest
from training.checkpoint_writer import CheckpointWriter
from training.checkpoints import CheckpointFolder, RunManifest
from training.reporter import SilentReporter
from training.resume import Start, find_start, step_to_go_on_from
from training.trainer import Trainer

RECIPE = toy_recipe()


def manifest_of(step: int, plan: Plan | None = None, **changes: object) -> RunManifest:
    plan = plan or toy_plan(RECIPE, ALONE, batch_size=4)
    values = {
        "step": step,
        "epoch": step // plan.steps_per_epoch,
        "recipe": RECIPE.name,
        "created": f"2030-01-01T00:00:{step:02d}+00:00",
        "files": {},
        "model": RECIPE.model.model_dump(mode="json"),
        "effective_batch": plan.effective_batch,
        "steps_per_epoch": plan.steps_per_epoch,
        "world_size": 1,
    }
    return RunManifest.model_validate({**values, **changes})


def write(folder: CheckpointFolder, step: int) -> Path:
    return folder.write(manifest_of(step), [("model.safetensors", b"weights" * step)])


def names(folder: CheckpointFolder) -> list[str]:
    return sorted(path.name for path in folder.folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints", keep_last=2)


def test_the_last_ones_and_the_linked_ones_stay(folder: CheckpointFolder) -> None:
    write(folder, 1)
    assert folder.record_metrics(folder.folder / "step_00000001", {"NDS": 0.5})
    for step in (2, 3, 4):
        place = write(folder, step)
    assert names(folder) == ["best", "latest", "step_00000001", "step_00000003", "step_00000004"]
    assert (folder.folder / "latest").readlink() == Path("step_00000004")
    assert not folder.record_metrics(place, {"NDS": 0.4})
    assert (folder.folder / "best").readlink() == Path("step_00000001")
    assert folder.record_metrics(write(folder, 5), {"NDS": 0.6})
    assert names(folder) == ["best", "latest", "step_00000004", "step_00000005"]
    assert read_manifest(folder.folder / "best").metrics == {"NDS": 0.6}


def test_several_of_the_best_stay(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_last=1, keep_best=2)
    for step, score in enumerate([0.3, 0.1, 0.2, 0.0], start=1):
        folder.record_metrics(write(folder, step), {"NDS": score})
    assert names(folder) == ["best", "latest", "step_00000001", "step_00000003", "step_00000004"]
    assert (tmp_path / "best").readlink() == Path("step_00000001")


def test_writing_beside_saves_the_step_it_was_asked_at(folder: CheckpointFolder) -> None:
    plan = toy_plan(RECIPE, ALONE, 4)
    trainer = toy_trainer(ToyDetector(norm=True), RECIPE, plan, ALONE)
    trained(range(1), trainer)
    expected = {name: value.clone() for name, value in trainer.state.detector.state_dict().items()}
    with CheckpointWriter(folder, SilentReporter(), beside=True) as writer:
        writer.write(manifest_of(1), trainer.state)
        trained(range(1, 3), trainer)  # while it is written
    saved = load_file(folder.folder / "step_00000001" / "model.safetensors")
    assert all(torch.equal(value, expected[name]) for name, value in saved.items())


def test_a_failure_beside_is_told_at_the_latest_at_the_next_step(folder: CheckpointFolder) -> None:
    trainer = toy_trainer(ToyDetector(), RECIPE, toy_plan(RECIPE, ALONE, 4), ALONE)
    with CheckpointWriter(folder, SilentReporter(), beside=True) as writer, largest_file(1000):
        with pytest.raises(BevnextError, match="cannot write checkpoint"):
            writer.write(manifest_of(1), trainer.state)  # tells it already if the thread was faster
            writer.finish()
        writer.finish()  # told once


FULL_DISK = """
import sys
from pathlib import Path
from training.checkpoints import CheckpointFolder, RunManifest
folder = CheckpointFolder(Path(sys.argv[1]) / "checkpoints", keep_last=9)
values = {"epoch": 0, "recipe": "", "files": {}, "model": {}, "effective_batch": 1, "steps_per_epoch": 1}
for step in range(1, 100):
    manifest = RunManifest(step=step, created=f"2030-01-01T00:00:{step:02d}+00:00", world_size=1, **values)
    folder.write(manifest, [("model.safetensors", b"weights!" * 40_000)])
"""


def test_a_small_disk_fills_up_and_the_earlier_checkpoints_stay(tmp_path: Path) -> None:
    """On a real file system of one megabyte."""
    script, disk = tmp_path / "script.py", tmp_path / "disk"
    script.write_text(FULL_DISK)
    disk.mkdir()
    line = f"mount -t tmpfs -o size=1m none {disk} && {sys.executable} {script} {disk}; ls {disk}/checkpoints"
    ours = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(["unshare", "-rm", "sh", "-c", line], env=ours, capture_output=True, text=True, check=False)
    if "unshare" in ended.stderr or "mount:" in ended.stderr:
        pytest.skip(f"no file system of its own for a test here: {ended.stderr}")
    assert "cannot write checkpoint" in ended.stderr
    assert "No space left on device; earlier checkpoints are whole" in ended.stderr
    assert ended.stdout.split() == ["latest", "step_00000001", "step_00000002", "step_00000003"]


def test_a_damaged_checkpoint_is_passed_over_and_said(folder: CheckpointFolder) -> None:
    first, second = write(folder, 1), write(folder, 2)
    assert folder.newest_valid() == (second, [])
    (second / "model.safetensors").write_bytes(b"weights" * 1 + b"weightz")
    found, passed_over = folder.newest_valid()
    assert found == first
    assert "damaged" in passed_over[0]
    (first / "manifest.json").unlink()
    found, passed_over = folder.newest_valid()
    assert found is None
    assert len(passed_over) == 2
    assert write(folder, 2) == second  # replaces the damaged one
    assert folder.newest_valid()[0] == second


def test_a_damaged_manifest_is_in_nobodys_way(folder: CheckpointFolder) -> None:
    """The run goes on from an earlier step, and saves and scores before it comes to that one again."""
    first, second = write(folder, 1), write(folder, 4)
    folder.record_metrics(second, {"NDS": 0.9})
    (second / "manifest.json").write_text('{"step": 4, "ep')
    assert folder.newest_valid()[0] == first
    assert folder.record_metrics(write(folder, 2), {"NDS": 0.5})
    write(folder, 3)
    assert names(folder) == ["best", "latest", *(f"step_0000000{step}" for step in (2, 3, 4))]
    assert (folder.folder / "best").readlink() == Path("step_00000002")


def test_an_unfinished_checkpoint_is_never_seen_and_cleared(folder: CheckpointFolder) -> None:
    def killed() -> Iterator[tuple[str, bytes]]:
        yield "model.safetensors", b"half"
        raise KeyboardInterrupt

    first = write(folder, 1)
    with pytest.raises(KeyboardInterrupt):
        folder.write(manifest_of(2), killed())
    assert folder.newest_valid() == (first, [])
    write(folder, 2)
    assert names(folder) == ["latest", "step_00000001", "step_00000002"]


def test_a_full_disk_is_one_clear_error_and_earlier_checkpoints_stay(folder: CheckpointFolder) -> None:
    trainer = toy_trainer(ToyDetector(), RECIPE, toy_plan(RECIPE, ALONE, 4), ALONE)
    first = write(folder, 1)
    with largest_file(1000), pytest.raises(BevnextError) as caught:
        folder.write(manifest_of(2), trainer.state.snapshot(copied=False).payloads())
    assert "cannot write checkpoint" in caught.value.message
    assert "--resume auto" in caught.value.fix
    assert caught.value.exit_code == 1
    assert names(folder) == ["latest", "step_00000001"]
    assert folder.newest_valid() == (first, [])


def trained(steps: range, trainer: Trainer) -> Trainer:
    for step in steps:
        trainer.train_step(step_batches(trainer.plan, 0, step))
    return trainer


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_run_goes_on_bit_by_bit_where_it_stopped(precision: str, folder: CheckpointFolder) -> None:
    recipe = toy_recipe(f"engine.precision={precision}")
    plan = toy_plan(recipe, ALONE, batch_size=4)
    torch.manual_seed(0)
    straight = trained(range(2), toy_trainer(ToyDetector(dropout=0.3, norm=True), recipe, plan, ALONE))
    place = folder.write(manifest_of(2, plan), straight.state.snapshot(copied=False).payloads())
    trained(range(2, 4), straight)

    resumed = toy_trainer(ToyDetector(dropout=0.3, norm=True), recipe, plan, ALONE)
    step = step_to_go_on_from(place, recipe, plan)
    assert step == 2
    resumed.state.restore(place, step)
    trained(range(2, 4), resumed)

    assert resumed.state.step == straight.state.step == 4
    assert resumed.state.average is not None
    assert straight.state.average is not None
    for ours, theirs in (
        (resumed.state.detector, straight.state.detector),
        (resumed.state.average.detector, straight.state.average.detector),
    ):
        for name, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value), name


def test_which_checkpoint_to_start_from(tmp_path: Path, folder: CheckpointFolder) -> None:
    assert find_start(tmp_path, folder, "auto") == Start(None, [])
    assert find_start(tmp_path, folder, "none") == Start(None, [])
    first, second = write(folder, 1), write(folder, 2)
    assert find_start(tmp_path, folder, "auto") == Start(second, [])
    assert find_start(tmp_path / "other", folder, str(first)) == Start(first, [])
    assert find_start(tmp_path / "other", folder, str(tmp_path)) == Start(second, [])
    with pytest.raises(UsageError, match="--resume none"):
        find_start(tmp_path, folder, "none")
    with pytest.raises(UsageError, match="no checkpoint there"):
        find_start(tmp_path, folder, str(tmp_path / "nowhere"))
    (first / "model.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match="its manifest says 7"):
        find_start(tmp_path, folder, str(first))


def test_going_on_from_an_earlier_checkpoint_makes_it_the_latest(folder: CheckpointFolder) -> None:
    first, _ = write(folder, 1), write(folder, 2)
    folder.make_latest(first.resolve())
    assert folder.newest_valid() == (first, [])


def test_a_checkpoint_of_another_recipe_is_refused_with_the_difference(folder: CheckpointFolder) -> None:
    other = toy_recipe("model.bev.channels=32")
    with pytest.raises(UsageError) as caught:
        step_to_go_on_from(write(folder, 1), other, toy_plan(other, ALONE, 4))
    assert "model.bev.channels is 16 there and 32 here" in caught.value.message


def test_a_checkpoint_from_before_a_value_was_in_the_schema_means_its_default(folder: CheckpointFolder) -> None:
    model = RECIPE.model.model_dump(mode="json")
    model["crf"].pop("trainable")
    plan = toy_plan(RECIPE, ALONE, 4)
    assert step_to_go_on_from(folder.write(manifest_of(3, plan, model=model), []), RECIPE, plan) == 3
    model["crf"]["of_another_program"] = 1
    with pytest.raises(UsageError, match=r"crf\.of_another_program is 1 there and None here"):
        step_to_go_on_from(folder.write(manifest_of(4, plan, model=model), []), RECIPE, plan)


def test_another_effective_batch_goes_on_at_the_end_of_an_epoch_only(folder: CheckpointFolder) -> None:
    larger = toy_recipe("optimizer.reference_batch=16")
    plan = toy_plan(larger, ALONE, batch_size=4)
    assert plan.steps_per_epoch == 2  # instead of 4
    assert step_to_go_on_from(write(folder, 4), larger, plan) == 2
    with pytest.raises(UsageError, match="within an epoch of 4 steps of 8 samples") as caught:
        step_to_go_on_from(write(folder, 5), larger, plan)
    assert "--effective-batch 8" in caught.value.fix
