"""`eval` and `infer` as a user meets them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from configs.recipes import load_recipe, save_recipe, with_version
from detectors import build_detector
from evaluation.checkpoint_files import EMA_WEIGHTS, MANIFEST, WEIGHTS, Manifest, file_entry
from evaluation.results import read_results
from launcher.main import run as bevnext_sam2
from scenes.index import SceneIndex


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory as training leaves it, with random weights."""
    run = tmp_path_factory.mktemp("outputs") / "my-run"
    recipe = with_version(load_recipe("synthetic/bevnext-smoke"), "v1.0-mini")
    step = run / "checkpoints" / "step_00000004"
    step.mkdir(parents=True)
    save_recipe(recipe, run / "recipe.yaml")
    torch.manual_seed(0)
    for name in (WEIGHTS, EMA_WEIGHTS):
        save_file(build_detector(recipe.model, recipe.data).state_dict(), step / name)
    files = {name: file_entry(step / name) for name in (WEIGHTS, EMA_WEIGHTS)}
    manifest = Manifest(step=4, epoch=1, recipe=recipe.name, created="2025-01-01T00:00:00Z", files=files)
    (step / MANIFEST).write_text(manifest.model_dump_json())
    (run / "checkpoints" / "latest").symlink_to(step.name)
    return run


@pytest.fixture
def data(small_index: SceneIndex) -> list[str]:
    return ["--data-root", str(small_index.dataroot)]


def test_a_run_is_evaluated_on_its_validation_split(
    finished_run: Path, data: list[str], small_index: SceneIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bevnext_sam2(["eval", "--run", str(finished_run), *data, "--workers", "0", "--pictures", "2", "--json"]) == 0
    out, err = capsys.readouterr()
    scores = json.loads(out)
    assert scores["split"] == "mini_val"
    assert scores["samples"] == len(small_index.rows_in("mini_val"))
    folder = finished_run / "results" / "step_00000004"
    assert json.loads((folder / "metrics.json").read_text()) == scores
    assert list(read_results(folder / "results_nusc.json")) == [
        small_index.token(row) for row in small_index.rows_in("mini_val")
    ]
    pictures = sorted(path.name for path in (finished_run / "figures").iterdir())
    assert pictures == [
        "ap_per_class.pdf", "mini_val_01_bev.png", "mini_val_01_cameras.jpg", "mini_val_02_bev.png",
        "mini_val_02_cameras.jpg", "precision_recall.pdf",
    ]  # fmt: skip
    assert str(folder) in err


def test_a_results_file_is_scored_alone(
    finished_run: Path, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bevnext_sam2(["eval", "--run", str(finished_run), *data, "--workers", "0", "--out", str(tmp_path)]) == 0
    first = capsys.readouterr().out
    results = tmp_path / "results_nusc.json"
    assert bevnext_sam2(["eval", "--results", str(results), *data, "--version", "v1.0-mini", "--as-published"]) == 0
    second = capsys.readouterr().out
    assert "NDS" in second
    assert second[second.index("NDS") :].splitlines()[:18] == first[first.index("NDS") :].splitlines()[:18]
    assert (tmp_path / "results_nusc_metrics" / "metrics.json").is_file()
    ours, theirs = (
        read_results(tmp_path / name) for name in (results.name, "results_nusc_metrics/results_published.json")
    )
    assert list(ours) == list(theirs)
    assert all((theirs[token].centres[:, 2] < boxes.centres[:, 2]).all() for token, boxes in ours.items())
    assert sum(len(boxes) for boxes in theirs.values()) == sum(len(boxes) for boxes in ours.values()) > 0
    assert (
        bevnext_sam2(["eval", "--results", str(results), *data, "--version", "v1.0-mini", "--split", "mini_train"]) == 3
    )
    assert "lacks" in capsys.readouterr().err


def test_a_scene_is_drawn_and_filmed(
    finished_run: Path, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["infer", "--run", str(finished_run), *data, "--scene", "scene-0061", "--workers", "0"]
    assert bevnext_sam2([*command, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"results_nusc.json", "scene-0061.mp4"} | {
        f"{number:03d}_{kind}" for number in range(1, 8) for kind in ("bev.png", "cameras.jpg")
    }
    assert str(tmp_path / "results_nusc.json") in said
    assert str(tmp_path / "scene-0061.mp4") in said


def test_a_sample_of_a_weights_file(
    finished_run: Path, data: list[str], small_index: SceneIndex, tmp_path: Path
) -> None:
    weights = finished_run / "checkpoints" / "step_00000004" / WEIGHTS
    command = ["infer", "--config", "synthetic/bevnext-smoke", "--checkpoint", str(weights), *data]
    command += ["--version", "v1.0-mini", "--sample", small_index.token(2), "--workers", "0", "--no-truth"]
    assert bevnext_sam2([*command, "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "001_bev.png", "001_cameras.jpg", "results_nusc.json"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["eval"], 2, "no detector is named"),
        (["eval", "--run", "nowhere"], 2, "not a run directory"),
        (["eval", "--run", "RUN", "--checkpoint", "best"], 2, "choose one of: step_00000004"),
        (["eval", "--run", "RUN", "--config", "synthetic/bevnext-smoke"], 2, "leave out --config"),
        (["eval", "--run", "RUN", "--split", "train"], 2, "choose one of: mini_train, mini_val"),
        (["eval", "--run", "RUN", "--device", "warp"], 2, "--device warp"),
        (["eval", "--run", "RUN", "--device", "cuda:99"], 2, "--device cuda:99"),
        (["eval", "--run", "RUN", "--data-root", "nowhere"], 3, "nowhere"),
        (["eval", "--run", "RUN", "--version", "v1.0-trainval"], 3, "data index"),
        (["eval", "--results", "nowhere.json"], 3, "nowhere.json"),
        (["eval", "--results", "nowhere.json", "--run", "RUN"], 2, "leave out --run"),
        (["eval", "--config", "synthetic/bevnext-tiny", "--checkpoint", "WEIGHTS"], 2, "does not fit"),
        (["infer", "--run", "RUN"], 2, "either --scene NAME or --sample TOKEN"),
        (["infer", "--run", "RUN", "--scene", "scene-9999"], 2, "scene-9999"),
        (["infer", "--run", "RUN", "--sample", "xyz"], 2, "xyz"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str], code: int, said: str, finished_run: Path, data: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"RUN": str(finished_run), "WEIGHTS": str(finished_run / "checkpoints" / "step_00000004" / WEIGHTS)}
    filled = [names.get(argument, argument) for argument in arguments]
    if "--data-root" not in filled:
        filled += data
    assert bevnext_sam2(filled) == code
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


def test_a_damaged_checkpoint_is_refused(
    finished_run: Path, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run", symlinks=True))
    with (run / "checkpoints" / "latest" / EMA_WEIGHTS).open("r+b") as file:
        file.truncate(1000)
    assert bevnext_sam2(["eval", "--run", str(run), *data]) == 3
    assert "has 1000 bytes" in capsys.readouterr().err


def test_help_is_quick_and_complete() -> None:
    code = (
        "import sys; from evaluation.commands import eval_command, infer_command, report_command\n"
        "assert not {'torch', 'nuscenes', 'matplotlib', 'numpy'} & sys.modules.keys()\n"
        "for command in (eval_command, infer_command, report_command):\n"
        "    assert all(option.help for option in command.params)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
