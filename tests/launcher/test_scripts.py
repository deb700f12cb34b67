"""The shell commands: each hands its arguments to `run.sh` unspoilt, from any directory, in a form that parses."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.main import command_line
from launcher.own_process import ROOT

SCRIPTS = ("launch_distributed_training.sh", "train_gpu.sh", "check-dataset.sh")
TRIALS = ("test_single_gpu.py", "test_multi_gpu.py")
FAKE_RUN = "#!{python}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """The scripts beside a `run.sh` that only tells its arguments, in a folder with a space in its name."""
    folder = tmp_path / "a checkout" / "scripts"
    folder.mkdir(parents=True)
    for name in (*SCRIPTS, *TRIALS):
        shutil.copy(ROOT / "scripts" / name, folder)
    (folder / "run.sh").write_text(FAKE_RUN.format(python=sys.executable))
    (folder / "run.sh").chmod(0o755)
    return folder


def call(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([script, *arguments], capture_output=True, text=True, timeout=240, check=False)


def handed_on(script: Path, line: str) -> list[str]:
    done = call(script, *shlex.split(line))
    assert done.returncode == 0, done.stderr
    arguments = json.loads(done.stdout)
    assert isinstance(arguments, list)
    return arguments


def parse(arguments: list[str]) -> dict[str, object]:
    """Options as the real command reads them."""
    command, rest = command_line, list(arguments)
    while hasattr(command, "get_command"):
        command = command.get_command(None, rest.pop(0))
    return command.make_context("x", rest).params


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_and_no_side_effects(name: str, scripts: Path) -> None:
    done = call(scripts / name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: scripts/{name}")


def test_distributed_training_takes_all_documented_options(scripts: Path) -> None:
    arguments = handed_on(
        scripts / "launch_distributed_training.sh",
        "--num-gpus 2 --batch-size 2 --epochs 5 --data-root '/my data' --output-dir o --config bevnext/bevnext-stage1 "
        "--resume auto --gradient-accumulation 4 --lr-scaling sqrt --no-mixed-precision --basic-training --dry-run "
        "--distributed ddp --port 29501",
    )
    assert arguments[0] == "train"
    options = parse(arguments)
    assert (options["num_gpus"], options["data_root"]) == (2, Path("/my data"))
    assert (options["distributed"], options["master_port"]) == ("ddp", 29501)
    assert (options["basic_training"], options["mixed_precision"], options["dry_run"]) == (True, False, True)


def test_one_gpu(scripts: Path) -> None:
    script = scripts / "train_gpu.sh"
    assert handed_on(script, "") == ["train", "--gpus", "0"]
    line = "--config c.yaml --resume 'a b' --gpu 3 --mixed-precision --force-config --set 'x=$HOME *'"
    arguments = handed_on(script, line)
    assert arguments == ["train", "--gpus", "3", *shlex.split("--config c.yaml --resume 'a b' --mixed-precision"),
                         "--set", "x=$HOME *"]  # fmt: skip
    assert parse(arguments)["gpus"] == (3,)
    assert handed_on(script, "--gpu=1") == ["train", "--gpus", "1"]
    assert call(script, "--gpu").returncode == 2


def test_trials_of_gpus_are_short_trainings(scripts: Path) -> None:
    single = parse(handed_on(scripts / "test_single_gpu.py", "--set 'a=b c'"))
    assert (single["gpus"], single["epochs"], single["overrides"]) == ((0,), 1, ("a=b c",))
    several = parse(handed_on(scripts / "test_multi_gpu.py", "--num-gpus 4"))
    assert (several["num_gpus"], several["distributed"], several["config"]) == (4, "ddp", "synthetic/bevnext-smoke")
    assert not Path(str(several["output_dir"])).exists()


@pytest.mark.parametrize("form", ["{}", "--data-root {}", "--data-path {}", "--data-root={}", "--data-path={}"])
def test_the_path_of_a_data_set_in_all_forms(form: str, scripts: Path, tmp_path: Path) -> None:
    (tmp_path / "my data" / "v1.0-mini").mkdir(parents=True)
    arguments = handed_on(
        scripts / "check-dataset.sh", form.format(shlex.quote(str(tmp_path / "my data"))) + " --deep --json"
    )
    options = parse(arguments)
    assert (options["data_root"], options["version"]) == (tmp_path / "my data", "v1.0-mini")
    assert (options["deep"], options["as_json"]) == (True, True)


def test_a_data_set_of_no_or_several_versions_must_be_named(scripts: Path, tmp_path: Path) -> None:
    script = scripts / "check-dataset.sh"
    assert "no such folder" in call(script, str(tmp_path / "none")).stderr
    assert "holds 0 versions" in call(script, str(tmp_path)).stderr
    for version in ("v1.0-mini", "v1.0-trainval"):
        (tmp_path / version).mkdir()
    done = call(script, str(tmp_path))
    assert (done.returncode, "holds 2 versions" in done.stderr) == (2, True)
    assert handed_on(script, f"{tmp_path} --version v1.0-mini --recipe r")[-4:] == [
        "--version",
        "v1.0-mini",
        "--recipe",
        "r",
    ]
    assert call(script, "--version").returncode == 2


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_strict_and_executable(path: Path) -> None:
    assert "set -euo pipefail" in path.read_text()
    assert path.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", path], check=True)
