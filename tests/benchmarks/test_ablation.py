"""`bench ablation`: what its arms differ in, its table, and real runs on the smallest recipe."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from benchmarks.ablation import ARMS, PLAIN, Setting, ablation, table
from configs.errors import UsageError
from configs.recipes import load_recipe

SETTING = Setting("synthetic/bevnext-tiny-sam2", Path("/nano.safetensors"), None, 6, [], (), [])


def settings_of(arm: str) -> list[str]:
    arguments = SETTING.arguments(arm, seed=3)
    return [value for option, value in pairwise(arguments) if option == "--set"]


@pytest.mark.parametrize("arm", ARMS)
def test_arms_differ_in_sam2_alone(arm: str) -> None:
    recipe, plain = (load_recipe(SETTING.recipe, settings_of(one)) for one in (arm, PLAIN))
    assert recipe.model_copy(update={"sam2": None}) == plain
    assert recipe.engine.seed == 3


def test_what_each_arm_is() -> None:
    found = {arm: load_recipe(SETTING.recipe, settings_of(arm)).sam2 for arm in ARMS}
    assert found["plain"] is None
    control, trained, unfrozen = found["random"], found["sam2"], found["unfrozen"]
    assert control is not None
    assert trained is not None
    assert (control.random, control.weights, trained.weights) == (True, None, "/nano.safetensors")
    assert unfrozen == trained.model_copy(update={"unfreeze_at_epoch": 3})


def test_all_arms_start_from_the_same_weights() -> None:
    start = Setting(SETTING.recipe, SETTING.weights, Path("/start.safetensors"), 6, [], (), [])
    assert all("model.hand_over=/start.safetensors" in start.arguments(arm, 0) for arm in ARMS)


def test_the_table_compares_with_the_plain_detector_of_the_same_seed() -> None:
    names = ("mAP", "NDS", "mATE", "mASE", "mAOE")
    lines = [
        {"arm": arm, "seed": seed, "cpu_seconds": None, "metrics": dict.fromkeys(names, value)}
        for arm, seed, value in (("plain", 0, 0.2), ("sam2", 0, 0.25), ("plain", 1, 0.3), ("sam2", 1, 0.2))
    ]
    console = Console(record=True, width=150)
    console.print(table({"recipe": "r", "epochs": 6, "data": "d", "arms": lines}))
    said = console.export_text()
    assert "+0.0500" in said
    assert "-0.1000" in said


def test_missing_weights_are_told_with_the_command_that_makes_them(tmp_path: Path) -> None:
    done = CliRunner().invoke(ablation, ["--sam2-weights", str(tmp_path / "none.safetensors")])
    assert isinstance(done.exception, UsageError)
    assert "sam2 train" in str(done.exception)


@pytest.mark.slow
def test_real_arms(tmp_path: Path) -> None:
    pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")
    from integration.sam2_weights import load_segmenter, save_segmenter
    from scenes.index import build_index
    from scenes.synthetic import make_synthetic

    make_synthetic(tmp_path / "data", scenes=2, samples_per_scene=2, image_size=(90, 160), workers=1, progress=False)
    build_index(tmp_path / "data", "v1.0-synthetic", progress=False)
    torch.manual_seed(1)
    save_segmenter(load_segmenter("sam2_hiera_nano", None), tmp_path / "nano.safetensors")
    small = ["data.source_size=[90, 160]", "sam2.config=sam2_hiera_nano", "sam2.adapter_channels=8"]
    command = ["--data-root", str(tmp_path / "data"), "--config", "synthetic/bevnext-smoke", "--epochs", "2"]
    command += [
        "--sam2-weights",
        str(tmp_path / "nano.safetensors"),
        "--runs",
        str(tmp_path / "runs"),
        "--device",
        "cpu",
    ]
    command += [part for setting in small for part in ("--set", setting)]
    out = tmp_path / "ablation.json"
    done = CliRunner().invoke(ablation, [*command, "--out", str(out)])
    assert done.exit_code == 0, done.output
    lines = json.loads(out.read_text())["arms"]
    assert [line["arm"] for line in lines] == list(ARMS)
    assert all(0 <= line["metrics"]["NDS"] <= 1 and line["cpu_seconds"] > 0 for line in lines)
    again = CliRunner().invoke(ablation, [*command, "--out", str(out)])
    assert again.exit_code == 0, again.output
    assert [line["metrics"] for line in json.loads(out.read_text())["arms"]] == [line["metrics"] for line in lines]
    assert all(line["cpu_seconds"] is None for line in json.loads(out.read_text())["arms"])  # nothing trained again
