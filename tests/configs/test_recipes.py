"""Recipes: what comes with the project loads, and every mistake is named with its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.class_balance import resampled_counts
from configs.errors import ExitCode, UsageError
from configs.recipes import FOLDER, fingerprint, known_recipes, load_recipe, save_recipe, with_version
from configs.schema import Recipe


@pytest.mark.parametrize("name", known_recipes())
def test_every_recipe_of_the_project_loads_and_survives_saving(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(str(tmp_path / "recipe.yaml")) == recipe
    assert recipe.source
    assert recipe.summary


def test_stage_1_spells_out_the_published_values() -> None:
    recipe = load_recipe("bevnext/bevnext-stage1")
    published = Recipe(name="the schema's defaults")
    assert recipe.model.backbone.weights == "torchvision-resnet50"
    backbone = recipe.model.backbone.model_copy(update={"weights": None})
    model = recipe.model.model_copy(update={"backbone": backbone})
    assert (model, recipe.data, recipe.optimizer) == (published.model, published.data, published.optimizer)
    assert recipe.engine.ema == published.engine.ema
    assert (recipe.schedule.epochs, recipe.schedule.warmup_steps, recipe.schedule.shape) == (2, 200, "constant")
    spelled = yaml.safe_load((FOLDER / "bevnext/bevnext-stage1.yaml").read_text())
    assert unspelled(spelled, recipe.model_dump()) == ["sam2", "data.cameras"]


def unspelled(spelled: dict[str, Any], resolved: dict[str, Any], place: str = "") -> list[str]:
    """Values that the file leaves to the defaults."""
    found = [f"{place}{key}" for key in resolved if key not in spelled]
    sections = [key for key, value in resolved.items() if isinstance(value, dict) and key in spelled]
    return found + [name for key in sections for name in unspelled(spelled[key], resolved[key], f"{place}{key}.")]


def test_overrides_are_yaml_and_the_last_one_wins() -> None:
    recipe = load_recipe(
        "synthetic/bevnext-smoke",
        [
            "optimizer.learning_rate=1e-3",
            "engine.ema=null",
            "data.image_size=[96, 256]",
            "optimizer.learning_rate=3e-3",
        ],
    )
    assert recipe.optimizer.learning_rate == 3e-3
    assert recipe.engine.ema is None
    assert recipe.data.image_size == (96, 256)
    assert load_recipe("synthetic/bevnext-smoke", ["engine.ema=null", "engine.ema.decay=0.5"]).engine.ema is not None


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["optimizer.learnin_rate=1"], ["--set optimizer.learnin_rate=1", "unknown key", "'learning_rate'"]),
        (["enginee.seed=1"], ["--set enginee.seed=1", "'enginee'", "'engine'"]),
        (["engine.ema.decoy=0.1"], ["'engine.ema.decoy'", "did you mean 'decay'"]),
        (["engine.zzz=0"], ["engine knows precision"]),
        (["optimizer.learning_rate=-1"], ["optimizer.learning_rate", "greater than 0", "got -1"]),
        (["data.image_size=[1]"], ["data.image_size"]),
        (["engine.seed"], ["section.key=value"]),
        (["engine.seed.x=1"], ["seed is a value"]),
        (["engine.seed=[1"], ["not YAML"]),
        (["model.bev.x=[-24.0, 24.0, 0.8]"], ["model.bev.x", "60 cells", "multiple of 8"]),
        (["model.bev.y=[-24.0, 24.0, 0.0]"], ["model.bev.y", "0 cells"]),
    ],
)
def test_a_wrong_override_is_named(overrides: list[str], expected: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe("bevnext/bevnext-stage1", overrides)
    assert caught.value.exit_code == ExitCode.BAD_USAGE
    for text in expected:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("name: x\nmodel:\n  backbone:\n    knd: resnet18\n", ["mine.yaml", "'model.backbone.knd'", "'kind'"]),
        ("name: x\nengine: {seed: 1, seed: 2}\n", ["mine.yaml", "'seed' is given twice"]),
        ("name: [x\n", ["mine.yaml", "not YAML"]),
        ("- a\n", ["mine.yaml", "no sections"]),
        ("summary: no name\n", ["mine.yaml", "name"]),
    ],
)
def test_a_wrong_file_is_named(content: str, expected: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(UsageError) as caught:
        load_recipe(str(path))
    for text in expected:
        assert text in str(caught.value)


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: x\nschedule: {epoch: 3}\nengine: {seed: no number}\n")
    with pytest.raises(UsageError) as caught:
        load_recipe(str(path))
    assert "schedule.epoch" in caught.value.message
    assert "engine.seed" in caught.value.message
    assert "'epochs'" in caught.value.fix


def test_an_unknown_recipe_names_the_closest_one() -> None:
    with pytest.raises(UsageError, match=r"did you mean bevnext/bevnext-stage1\?"):
        load_recipe("bevnext/bevnext-stag1")


def test_with_version_takes_that_versions_splits() -> None:
    recipe = load_recipe("bevnext/bevnext-stage1")
    mini = with_version(recipe, "v1.0-mini")
    assert (mini.data.version, mini.data.train_split, mini.data.val_split) == ("v1.0-mini", "mini_train", "mini_val")
    custom = load_recipe("bevnext/bevnext-stage1", ["data.train_split=some"])
    assert with_version(custom, "v1.0-trainval") is custom
    with pytest.raises(UsageError, match="v2"):
        with_version(recipe, "v2")


def test_fingerprint_is_of_the_values() -> None:
    recipe = load_recipe("synthetic/bevnext-smoke")
    assert fingerprint(recipe) == fingerprint(load_recipe("synthetic/bevnext-smoke", ["engine.seed=0"]))
    assert fingerprint(recipe) != fingerprint(load_recipe("synthetic/bevnext-smoke", ["engine.seed=1"]))


def test_class_balanced_counts_are_a_tenth_of_all_for_every_class() -> None:
    # Frames that show each class in nuScenes' train split are not public knowledge here: any ten numbers will do.
    frames = [27000, 18000, 5000, 6700, 7000, 9000, 5500, 5600, 22000, 11000]
    counts = resampled_counts(frames)
    assert all(abs(count - sum(frames) / 10) < 1 for count in counts)
    assert resampled_counts([4, 0, 4]) == [2, 0, 2]
    assert resampled_counts([0, 0]) == [0, 0]


def test_reading_a_recipe_and_planning_need_no_torch() -> None:
    code = (
        "import sys; from configs.recipes import load_recipe; from configs.plan import DeviceFacts, make_plan;"
        "make_plan(load_recipe('synthetic/bevnext-tiny'), samples=100, devices=DeviceFacts());"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_recipe_that_extends_another_changes_only_what_it_says(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: synthetic/bevnext-smoke\nname: mine\nengine: {seed: 7}\n")
    base, recipe = load_recipe("synthetic/bevnext-smoke"), load_recipe(str(mine), ["schedule.epochs=9"])
    assert (recipe.name, recipe.engine.seed, recipe.schedule.epochs) == ("mine", 7, 9)
    assert recipe.model == base.model
    assert recipe.engine == base.engine.model_copy(update={"seed": 7})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("extends: {path}\n", "extends itself"),
        ("extends: bevnext/bevnext-stage7\n", "bevnext-stage7"),
        ("extends: [1]\n", "not the name of a recipe"),
    ],
)
def test_what_cannot_be_extended(text: str, named: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(text.format(path=mine))
    with pytest.raises(UsageError, match=named):
        load_recipe(str(mine))
