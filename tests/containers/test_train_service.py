"""`docker compose up train` on two processes: to the end, stopped in the middle and resumed, and with bad input."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from containers import OWNER, SMOKE, Project, docker, newest_step, wait_until

pytestmark = [pytest.mark.container, pytest.mark.timeout(2700)]
UP = ("up", "--no-build", "--exit-code-from", "train", "train")


def test_trains_to_the_end(project: Project) -> None:
    done = project.compose(*UP, BEVNEXT_SAM2_TRAIN_OPTIONS=SMOKE)
    run_dir = project.outputs / "smoke"
    assert "synthetic" in done.stdout
    assert len(json.loads((run_dir / "plan.json").read_text())["device_names"]) == 2
    assert (run_dir / "checkpoints/latest/manifest.json").is_file()
    assert {path.stat().st_uid for path in run_dir.rglob("*")} == {OWNER}


def test_stopped_in_the_middle_it_saves_and_goes_on(project: Project) -> None:
    options = f"{SMOKE} --epochs 40"
    project.compose("up", "--no-build", "--detach", "train", BEVNEXT_SAM2_TRAIN_OPTIONS=options)
    run_dir = project.outputs / "smoke"
    wait_until("three steps", lambda: newest_step(run_dir) >= 3)
    project.compose("stop", "train", BEVNEXT_SAM2_TRAIN_OPTIONS=options)
    assert project.exit_code("train") == 75
    saved = int((run_dir / "checkpoints/latest").resolve().name.removeprefix("step_"))
    assert saved >= 3
    shorter = f"{SMOKE} --epochs {saved // 4 + 2}"
    done = project.compose(*UP, BEVNEXT_SAM2_TRAIN_OPTIONS=shorter)
    assert newest_step(run_dir) > saved
    assert f"step {saved}" in done.stdout + (run_dir / "train.log").read_text()


def test_second_run_leaves_the_first_alone(project: Project, image: str, small_set: Path) -> None:
    other = Project(project.outputs / "other", image, project.settings)
    options = f"{SMOKE} --epochs 40"
    project.compose("up", "--no-build", "--detach", "train", BEVNEXT_SAM2_TRAIN_OPTIONS=options)
    wait_until("a step", lambda: newest_step(project.outputs / "smoke") >= 1)
    second = other.compose("run", "--rm", "--no-deps", "train", "train", *SMOKE.split(), "--run", "second", check=False)
    other.compose("down", check=False)
    assert second.returncode == 0, second.stderr[-2000:]
    running = docker("inspect", "--format", "{{.State.Running}}", project.container("train")).stdout.strip()
    assert running == "true"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"BEVNEXT_SAM2_DATA_ROOT": "/no/such/folder"}, "/no/such/folder"),
        ({"BEVNEXT_SAM2_IMAGE": "bevnext-sam2:none"}, "bevnext-sam2:none"),
        ({"BEVNEXT_SAM2_DEVICE": "gpu"}, "could not select device driver"),
        ({"BEVNEXT_SAM2_TRAIN_OPTIONS": "--num-gpus 3"}, "--num-gpus 3"),
    ],
)
def test_bad_input_is_one_clear_message(project: Project, settings: dict[str, str], words: str) -> None:
    done = project.compose(*UP, check=False, **settings)
    assert done.returncode != 0
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stdout
    assert not list(project.outputs.iterdir())


def test_port_in_use_is_an_error(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = project.compose(
            "up", "--no-build", "--detach", "tensorboard", check=False, BEVNEXT_SAM2_TENSORBOARD_PORT=port
        )
    assert done.returncode != 0
    assert port in done.stderr


def test_out_of_memory_is_told(project: Project, tmp_path: Path) -> None:
    limit = tmp_path / "limit.yaml"
    limit.write_text("services: {train: {mem_limit: 300m, memswap_limit: 300m}}\n")
    project.files = (limit,)
    done = project.compose(*UP, check=False, BEVNEXT_SAM2_TRAIN_OPTIONS=SMOKE)
    assert done.returncode == 1 or docker_says_out_of_memory(project)
    assert not (project.outputs / "smoke/checkpoints/latest").exists()
    assert "memory" in done.stdout + done.stderr or docker_says_out_of_memory(project)


def docker_says_out_of_memory(project: Project) -> bool:
    return docker("inspect", "--format", "{{.State.OOMKilled}}", project.container("train")).stdout.strip() == "true"
