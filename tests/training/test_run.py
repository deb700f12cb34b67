"""Runs from the command line to the exit code, in this process: what they leave, how they go on, how they fail."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import made_up_scores, run_exit_code
from safetensors.torch import load_file
from small_disk import largest_file

from evaluation.checkpoint_files import read_manifest
from training import train_bevnext_sam2
from training.reporter import Reporter


def start(driving_set: Path, run_dir: Path, *arguments: str) -> int:
    """Exit code of a run of two epochs of two steps, each with a checkpoint."""
    return run_exit_code(driving_set, run_dir, "--set", "engine.checkpoint_every=1", *arguments)


quick_scores = pytest.fixture(scope="module", autouse=True)(made_up_scores)


def outcome(run_dir: Path) -> dict[str, object]:
    found = json.loads((run_dir / "outcome.json").read_bytes())
    assert isinstance(found, dict)
    return found


def assert_same_weights(ours: Path, theirs: Path) -> None:
    for name in ("model.safetensors", "ema.safetensors"):
        expected = load_file(theirs / name)
        for key, value in load_file(ours / name).items():
            assert torch.equal(value, expected[key]), key


@pytest.fixture(scope="module")
def straight(driving_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped, with all its checkpoints."""
    run_dir = tmp_path_factory.mktemp("runs") / "straight"
    assert start(driving_set, run_dir, "--set", "engine.keep_last=9") == 0
    return run_dir


def test_a_run_leaves_everything_in_its_directory(straight: Path) -> None:
    for name in ("recipe.yaml", "plan.json", "train.log", "metrics.jsonl", "tensorboard"):
        assert (straight / name).exists(), name
    said = {"exit_code": 0, "rank": 0, "local_rank": 0, "restart": 0, "error": "", "fix": ""}
    assert outcome(straight) == said
    places = sorted(path.name for path in (straight / "checkpoints").iterdir())
    assert places == ["best", "latest", *(f"step_0000000{step}" for step in (1, 2, 3, 4))]
    manifest = read_manifest(straight / "checkpoints" / "best")
    assert (manifest.step, manifest.epoch, manifest.recipe) == (4, 2, "bevnext-smoke")
    assert manifest.metrics == {"NDS": 0.25, "mAP": 0.125, "mATE": 1.0, "AP/car": 0.5}
    assert set(manifest.files) == {"model.safetensors", "ema.safetensors", "optimizer.pt"}
    events = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "train"] == [1, 2, 3, 4]
    assert [event["step"] for event in events if event["event"] == "evaluate"] == [4]


def test_evaluation_every_epoch_each_on_a_checkpoint_of_its_own(driving_set: Path, tmp_path: Path) -> None:
    assert start(driving_set, tmp_path, "--set", "engine.evaluate_every=1", "--set", "engine.checkpoint_every=3") == 0
    events = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    told = [(event["event"], event["step"]) for event in events if event["event"] not in ("train", "devices")]
    assert told == [("checkpoint", 2), ("evaluate", 2), ("checkpoint", 3), ("checkpoint", 4), ("evaluate", 4)]
    assert (tmp_path / "checkpoints" / "best").readlink() == Path("step_00000002")  # not better since


@pytest.mark.parametrize("done", [1, 2])  # within an epoch, at its end
def test_a_run_goes_on_bit_by_bit(done: int, straight: Path, driving_set: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "resumed"
    name = f"step_0000000{done}"
    shutil.copytree(straight / "checkpoints" / name, run_dir / "checkpoints" / name)
    (run_dir / "checkpoints" / "latest").symlink_to(name)
    assert start(driving_set, run_dir) == 0
    assert_same_weights(run_dir / "checkpoints" / "latest", straight / "checkpoints" / "step_00000004")
    events = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert events[0]["step"] == done + 1


def test_a_finished_run_has_nothing_left_to_do(
    straight: Path, driving_set: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (straight / "metrics.jsonl").read_bytes()
    assert start(driving_set, straight) == 0
    assert "goes on after step 4" in capfd.readouterr().out
    assert (straight / "metrics.jsonl").read_bytes() == before


def test_an_evaluation_that_was_cut_off_is_made_up_for(straight: Path, driving_set: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "cut off"
    shutil.copytree(straight, run_dir, symlinks=True)
    path = run_dir / "checkpoints" / "step_00000004" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "metrics": {}}))
    assert start(driving_set, run_dir) == 0
    assert read_manifest(path.parent).metrics["NDS"] == 0.25


def test_a_run_may_begin_where_another_was_to_be_evaluated(straight: Path, driving_set: Path, tmp_path: Path) -> None:
    begin = ["--resume", str(straight / "checkpoints" / "step_00000002"), "--set", "engine.evaluate_every=1"]
    assert start(driving_set, tmp_path, *begin) == 0
    assert_same_weights(tmp_path / "checkpoints" / "latest", straight / "checkpoints" / "step_00000004")
    events = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "evaluate"] == [4]


def test_a_signal_finishes_the_step_and_saves(
    straight: Path, driving_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step_and_signal(self: Reporter, *others: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "step", step_and_signal)  # arrives after step 1, is acted upon after step 2
        assert start(driving_set, tmp_path, "--set", "engine.checkpoint_every=0") == 75
    assert outcome(tmp_path)["exit_code"] == 75
    assert (tmp_path / "checkpoints" / "latest").readlink() == Path("step_00000002")
    assert start(driving_set, tmp_path) == 0
    assert_same_weights(tmp_path / "checkpoints" / "latest", straight / "checkpoints" / "step_00000004")


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--data-root", "/nowhere"], 3, "/nowhere"),
        (["--config", "synthetic/bevnext-tyny"], 2, "did you mean synthetic/bevnext-tiny"),
        (["--set", "engine.sed=1"], 2, "did you mean 'seed'"),
        (["--set", "data.train_split=train"], 2, "synthetic_train"),
        (["--batch-size", "3"], 2, "effective batch of 2"),
        (["--gpus", "0"], 2, "no GPU is visible"),
        (["--device", "warp"], 2, "--device warp"),
        (["--resume", "/nowhere"], 2, "no checkpoint there"),
        (["--set", "data.source_size=[9, 16]"], 3, "data.source_size"),
    ],
)
def test_what_is_wrong_is_one_clear_error(
    arguments: list[str], code: int, expected: str, driving_set: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert start(driving_set, tmp_path / "run", *arguments) == code
    said = capfd.readouterr().err
    assert expected in said
    assert "fix:" in said
    assert "Traceback" not in said
    if (tmp_path / "run").is_dir():
        assert outcome(tmp_path / "run")["exit_code"] == code


def test_a_run_directory_that_cannot_be(driving_set: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert start(driving_set, tmp_path / "file") == 2
    assert f"error: --run-dir {tmp_path / 'file'}: File exists" in capfd.readouterr().err


def test_a_full_disk_ends_the_run_and_leaves_what_was_there(
    straight: Path, driving_set: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(straight / "checkpoints" / "step_00000001", tmp_path / "checkpoints" / "step_00000001")
    with largest_file(100_000):
        assert start(driving_set, tmp_path) == 1
    said = capfd.readouterr().err
    assert "cannot write checkpoint" in said
    assert "Traceback" not in said
    assert outcome(tmp_path)["exit_code"] == 1
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["latest", "step_00000001"]
    read_manifest(tmp_path / "checkpoints" / "step_00000001")
    assert start(driving_set, tmp_path) == 0
    assert_same_weights(tmp_path / "checkpoints" / "latest", straight / "checkpoints" / "step_00000004")


def test_a_checkpoint_of_another_recipe_is_refused_and_stays(straight: Path, driving_set: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(straight, run_dir, symlinks=True)
    assert start(driving_set, run_dir, "--set", "model.head.channels=8") == 2
    assert "model.head.channels is 16 there and 8 here" in str(outcome(run_dir)["error"])
    assert start(driving_set, run_dir, "--resume", "none") == 2
    for place in sorted((straight / "checkpoints").glob("step_*")):
        read_manifest(run_dir / "checkpoints" / place.name)


def test_the_plan_in_the_run_directory_rules(straight: Path, driving_set: Path, tmp_path: Path) -> None:
    plan = json.loads((straight / "plan.json").read_bytes())
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "devices": 2, "device_ids": [0, 0]}))
    shutil.copy(straight / "recipe.yaml", tmp_path)
    with pytest.raises(SystemExit) as ended:
        train_bevnext_sam2.main(["--data-root", str(driving_set), "--run-dir", str(tmp_path)])
    assert ended.value.code == 2
    assert "the plan is for 2 process(es), 1 started" in str(outcome(tmp_path)["error"])
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "epoch_samples": 5}))
    with pytest.raises(SystemExit) as ended:
        train_bevnext_sam2.main(["--data-root", str(driving_set), "--run-dir", str(tmp_path)])
    assert ended.value.code == 2
    assert "epochs of 5 samples" in str(outcome(tmp_path)["error"])


def test_a_script_run_by_path_is_part_of_our_package(tmp_path: Path) -> None:
    decoy = tmp_path / "training"
    decoy.mkdir()
    (decoy / "__init__.py").write_text("raise ImportError('the training package of another distribution')\n")
    script = Path(train_bevnext_sam2.__file__ or "").with_name("train_bevnext_sam2_nuscenes.py")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, str(script), "--help"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "--gradient-accumulation" in ended.stdout
