"""Which recipe, data and run a request means, and when it must be refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from configs.errors import DataError, UsageError
from configs.recipes import known_recipes
from launcher.options import TrainRequest
from launcher.plan_table import show_plan
from launcher.planning import PlannedRun, decide, plan_run
from launcher.preview import preview
from launcher.run_folder import write_run
from monitoring.devices import Gpu, GpuSurvey

NO_GPU = GpuSurvey(problem="none", driver_missing=True)


def gpus(count: int, capability: tuple[int, int] = (9, 0)) -> GpuSurvey:
    found = tuple(Gpu(i, "NVIDIA H200", f"GPU-{i}", 141 * 2**30, capability) for i in range(count))
    return GpuSurvey(gpus=found, driver="580.1")


def planned(survey: GpuSurvey = NO_GPU, **request: Any) -> PlannedRun:
    return plan_run(decide(TrainRequest(**request), survey))


@pytest.fixture(autouse=True)
def all_gpus_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


# --- recipe and data -------------------------------------------------------------------------------------------------


def test_without_anything_the_small_recipe_on_synthetic_data() -> None:
    run = planned()
    assert run.plan.recipe == "bevnext-tiny"
    assert run.plan.origins["recipe"] == "default on synthetic data"
    assert run.plan.origins["epoch_samples"].startswith("expected")
    assert [step.arguments[:2] for step in run.first] == [("data", "synth"), ("data", "index")]


def test_on_a_set_of_the_user_the_published_recipe(make_root) -> None:
    root = make_root("v1.0-trainval", splits={"train": 28130, "val": 6019})
    run = planned(gpus(8), data_root=root)
    assert run.plan.recipe == "bevnext-stage1"
    assert run.plan.effective_batch == run.plan.reference_batch == 64
    assert run.plan.learning_rate == run.plan.base_learning_rate


@pytest.mark.parametrize("name", known_recipes())
def test_every_recipe_runs_on_the_synthetic_set(name: str) -> None:
    choices = decide(TrainRequest(config=name), NO_GPU)
    assert choices.data.version == choices.recipe.data.version == "v1.0-synthetic"
    assert choices.recipe.data.train_split == "synthetic_train"


def test_another_version_brings_its_splits(make_root) -> None:
    root = make_root("v1.0-mini", splits={"mini_train": 323, "mini_val": 81})
    run = planned(data_root=root, version="v1.0-mini", config="bevnext/bevnext-stage1", num_processes=1)
    assert run.choices.recipe.data.train_split == "mini_train"
    assert run.plan.epoch_samples == 5 * 161  # five classes, each in all 323 frames: a tenth of 5 * 323 each


def test_a_preview_that_would_be_a_guess_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="length of an epoch"):
        preview(TrainRequest(config="bevnext/bevnext-stage1", num_processes=1))
    assert capsys.readouterr().out == ""


# --- devices ---------------------------------------------------------------------------------------------------------


def test_auto_takes_all_gpus_and_says_so(root: Path) -> None:
    run = planned(gpus(2), data_root=root)
    assert (run.plan.device_kind, run.plan.device_ids) == ("cuda", (0, 1))
    assert run.choices.devices_text == "2 x NVIDIA H200, driver 580.1"


def test_the_cpu_beside_gpus_is_a_choice(root: Path) -> None:
    for run in (planned(gpus(2), data_root=root, device="cpu"), planned(gpus(2), data_root=root, num_processes=2)):
        assert run.plan.device_kind == "cpu"
        assert "2 GPU(s) left unused" in run.choices.devices_text


def test_listed_gpus(root: Path) -> None:
    assert planned(gpus(4), data_root=root, gpus=(3, 1)).plan.device_ids == (3, 1)
    with pytest.raises(UsageError, match="device 4 is not visible"):
        planned(gpus(4), data_root=root, gpus=(4,))
    with pytest.raises(UsageError, match="only 4"):
        planned(gpus(4), data_root=root, num_gpus=5)


def test_a_driver_that_does_not_answer_is_no_reason_to_use_the_cpu(root: Path) -> None:
    with pytest.raises(UsageError, match="does not answer"):
        planned(GpuSurvey(problem="Unknown Error"), data_root=root)
    assert planned(GpuSurvey(problem="Unknown Error"), data_root=root, device="cpu").plan.device_kind == "cpu"


@pytest.mark.parametrize(
    ("request_", "capability", "precision"),
    [
        ({"mixed_precision": True}, (9, 0), "bf16"),
        ({"mixed_precision": True}, (7, 5), "fp16"),
        ({"mixed_precision": False}, (9, 0), "fp32"),
        ({"precision": "fp16"}, (9, 0), "fp16"),
    ],
)
def test_precision(request_: dict[str, Any], capability: tuple[int, int], precision: str, root: Path) -> None:
    assert planned(gpus(1, capability), data_root=root, **request_).plan.precision == precision


# --- the step --------------------------------------------------------------------------------------------------------


def test_accumulation_keeps_the_recipes_batch(root: Path) -> None:
    run = planned(data_root=root, num_processes=1, batch_size=2, overrides=("optimizer.reference_batch=8",))
    assert (run.plan.accumulation, run.plan.effective_batch) == (4, 8)


def test_a_changed_batch_warns_until_a_rule_is_named(root: Path) -> None:
    changed = {"data_root": root, "num_processes": 2, "batch_size": 2, "gradient_accumulation": 1}
    recipe = {"overrides": ("optimizer.reference_batch=8", "optimizer.learning_rate=0.001")}
    assert planned(**changed, **recipe).plan.warnings
    assert planned(**changed, **recipe, lr_scaling="linear").plan.learning_rate == pytest.approx(0.0005)


def test_distributed_is_one_process_per_device_whatever_it_is_called(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("auto", "ddp", "dp", None):
        run = planned(gpus(4), data_root=root, distributed=name)
        assert (run.plan.devices, run.command[run.command.index("--nproc-per-node") + 1]) == (4, "4")
        assert any("--distributed dp" in warning for warning in run.plan.warnings) == (name == "dp")
        show_plan(run, as_json=False)
        origin = f"option --distributed {name}" if name else "default"
        assert re.search(rf"^distributed +ddp, one process per device +{origin} *$", capsys.readouterr().out, re.M)


def test_a_range_of_machines_is_shown_for_each_number(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = planned(gpus(2), data_root=root, nnodes=(1, 2), rdzv_endpoint="h:1", effective_batch=8)
    assert run.command[run.command.index("--nnodes") + 1] == "1:2"
    show_plan(run, as_json=False)
    text = capsys.readouterr().out
    assert re.search(r"on 1 node\(s\) +8 = 2 x \d x \d", text)
    assert re.search(r"on 2 node\(s\) +8 = 4 x 2 x 1", text)


def test_a_batch_left_to_trying_names_what_it_chooses_from(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = planned(gpus(2), data_root=root, batch_size="auto", effective_batch=16)
    show_plan(run, as_json=False)
    assert "the largest of 1, 2, 4, 8 that fits" in capsys.readouterr().out


def test_steps_to_profile_go_to_the_trainer(root: Path) -> None:
    command = planned(data_root=root, profile=(3, 5)).command
    assert command[command.index("--profile") + 1] == "3:5"
    with pytest.raises(UsageError, match="--profile 900:901: the run has"):
        planned(data_root=root, profile=(900, 901))


# --- runs ------------------------------------------------------------------------------------------------------------


def begun(root: Path, *, checkpoint: bool, **request: Any) -> PlannedRun:
    """A run as an earlier start left it."""
    run = planned(data_root=root, **request)
    write_run(run.choices.run_dir, run.choices.recipe, run.plan, run.launch())
    if checkpoint:
        (run.choices.run_dir / "checkpoints" / "step_00000010").mkdir(parents=True)
    return run


def test_an_earlier_run_is_not_touched(root: Path) -> None:
    run_dir = begun(root, checkpoint=True).choices.run_dir
    with pytest.raises(UsageError, match="--resume auto goes on"):
        planned(data_root=root)
    assert planned(data_root=root, run="another").choices.run_dir == run_dir.parent / "another"


def test_a_start_that_never_saved_is_no_obstacle(root: Path) -> None:
    begun(root, checkpoint=False)
    assert planned(data_root=root).choices.run_dir.name == "bevnext-tiny"


def test_resuming_needs_neither_recipe_nor_data(root: Path) -> None:
    first = begun(root, checkpoint=True, run="mine", config="synthetic/bevnext-smoke", overrides=("engine.seed=5",))
    again = planned(run="mine", resume="auto")
    assert again.choices.recipe == first.choices.recipe
    assert again.choices.data.root == root
    assert again.plan.origins["recipe"] == "the run that is resumed"
    assert again.command[-2:] == ["--resume", "auto"]


def test_resuming_without_a_name_finds_the_default_run(root: Path) -> None:
    begun(root, checkpoint=True, overrides=("engine.seed=5",))
    assert planned(resume="auto").choices.recipe.engine.seed == 5


def test_auto_starts_where_there_is_nothing(root: Path) -> None:
    assert planned(data_root=root, resume="auto").plan.recipe == "bevnext-tiny"


@pytest.mark.parametrize("change", ["model.head.channels=17", "optimizer.learning_rate=1", "data.image_size=[64, 32]"])
def test_a_run_keeps_its_recipe(change: str, root: Path) -> None:
    begun(root, checkpoint=True)
    with pytest.raises(UsageError, match=change.partition("=")[0]):
        planned(data_root=root, resume="auto", overrides=(change,))


def test_a_run_may_be_made_longer(root: Path) -> None:
    begun(root, checkpoint=True)
    assert planned(data_root=root, resume="auto", epochs=99).plan.epochs == 99


def test_a_checkpoint_of_another_run_does_not_go_into_an_old_one(root: Path) -> None:
    run_dir = begun(root, checkpoint=True).choices.run_dir
    with pytest.raises(UsageError, match="checkpoints of its own"):
        planned(data_root=root, resume="/other/checkpoints/step_00000001")
    own = run_dir / "checkpoints" / "step_00000010"
    assert planned(data_root=root, resume=str(own)).command[-1] == str(own)


def test_a_damaged_launch_record(root: Path) -> None:
    run_dir = begun(root, checkpoint=True).choices.run_dir
    (run_dir / "launch.json").write_text("{")
    with pytest.raises(UsageError, match=r"launch\.json is damaged"):
        planned(resume="auto")


def test_what_a_run_directory_holds_before_the_start(root: Path) -> None:
    run = begun(root, checkpoint=False)
    (run.choices.run_dir / "outcome.json").write_text("{}")
    write_run(run.choices.run_dir, run.choices.recipe, run.plan, run.launch())
    assert sorted(path.name for path in run.choices.run_dir.iterdir()) == ["launch.json", "plan.json", "recipe.yaml"]
    assert json.loads((run.choices.run_dir / "launch.json").read_text())["command"] == run.command
