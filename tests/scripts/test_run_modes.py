"""Every mode of run.sh, dry: what it would become, natively and in a container. `train` has tests of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from launcher.own_process import ROOT

RUN = ROOT / "scripts" / "run.sh"
NATIVE = {
    "quickstart --seed 1": ["bevnext-sam2", "quickstart", "--seed", "1"],
    "demo": ["bevnext-sam2", "demo", "--make-weights"],
    "demo --images 'a b'": ["bevnext-sam2", "demo", "--make-weights", "--images", "a b"],
    "sam2 eval --weights w": ["bevnext-sam2", "sam2", "eval", "--weights", "w"],
    "eval --run 'a b'": ["bevnext-sam2", "eval", "--run", "a b"],
    "validate --checkpoint best": ["bevnext-sam2", "eval", "--checkpoint", "best"],
    "inference --scene x --no-gpu": ["bevnext-sam2", "infer", "--scene", "x", "--device=cpu"],
    "validate --gpu": ["bevnext-sam2", "eval", "--device=cuda"],
    "inference --scene x": ["bevnext-sam2", "infer", "--scene", "x"],
    "validate-nuscenes --deep": ["bevnext-sam2", "data", "check", "--deep"],
    "monitor --once": ["bevnext-sam2", "monitor", "--once"],
    "doctor --quick": ["bevnext-sam2", "doctor", "--quick"],
    "test tests/configs": [str(ROOT / "scripts/check.sh"), "tests/configs"],
}
COMPOSE = ["docker", "compose", "--project-directory", str(ROOT)]
IN_CONTAINER = {
    "eval --run outputs/r": [*COMPOSE, "run", "--rm", "--no-TTY", "bevnext-sam2", "eval", "--run", "outputs/r"],
    "quickstart": [*COMPOSE, "run", "--rm", "--no-TTY", "bevnext-sam2", "quickstart"],
    "demo": [*COMPOSE, "run", "--rm", "--no-TTY", "bevnext-sam2", "demo", "--make-weights"],
    "dev": [*COMPOSE, "up", "dev"],
    "shell --gpu": [*COMPOSE, "run", "--rm", "shell"],
    "eval --no-gpu": [*COMPOSE, "run", "--rm", "--no-TTY", "bevnext-sam2", "eval", "--device=cpu"],
    "dev --jupyter --port 9999": ["env", "BEVNEXT_SAM2_JUPYTER_PORT=9999", *COMPOSE, "up", "dev"],
    "tensorboard --port=7007 --output-dir /x": [
        "env",
        "BEVNEXT_SAM2_OUTPUT_DIR=/x",
        "env",
        "BEVNEXT_SAM2_TENSORBOARD_PORT=7007",
        *COMPOSE,
        "up",
        "tensorboard",
    ],
    "tensorboard --detach": [*COMPOSE, "up", "--detach", "tensorboard"],
    "shell": [*COMPOSE, "run", "--rm", "shell"],
}


def call(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RUN, *shlex.split(line)], capture_output=True, text=True, timeout=120, cwd=cwd, check=False, env=os.environ
    )


@pytest.mark.parametrize("line", NATIVE)
def test_native_modes(line: str, tmp_path: Path) -> None:
    done = call(f"{line} --dry-run", tmp_path)
    assert (done.returncode, shlex.split(done.stdout)) == (0, NATIVE[line]), done.stderr
    assert call(f"--native --dry-run {line}", tmp_path).stdout == done.stdout


@pytest.mark.parametrize("line", IN_CONTAINER)
def test_modes_in_a_container(line: str, tmp_path: Path) -> None:
    done = call(f"--docker --dry-run {line}", tmp_path)
    assert (done.returncode, shlex.split(done.stdout)) == (0, IN_CONTAINER[line]), done.stderr


def test_a_data_set_of_the_host_is_named_by_its_place_in_the_container(tmp_path: Path) -> None:
    done = call("--docker --dry-run eval --data-root /some/where", tmp_path)
    assert shlex.split(done.stdout)[-3:] == ["eval", "--data-root", "/data"]
    remote = call("--docker --dry-run eval --data-root s3://bucket/set", tmp_path)
    assert shlex.split(remote.stdout)[-1] == "s3://bucket/set"


def test_jupyter_has_a_token_and_stays_on_this_machine(tmp_path: Path) -> None:
    first, second = (shlex.split(call("--dry-run dev --jupyter --port 9999", tmp_path).stdout) for _ in range(2))
    assert first[:2] == ["jupyter", "lab"]
    assert {"--ip=127.0.0.1", "--port=9999"} <= {*first}
    tokens = [word for line in (first, second) for word in line if word.startswith("--IdentityProvider.token=")]
    assert len({*tokens}) == 2
    assert all(len(token.partition("=")[2]) >= 32 for token in tokens)


def test_tensorboard_stays_on_this_machine(tmp_path: Path) -> None:
    words = shlex.split(call("--dry-run tensorboard", tmp_path).stdout)
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index("--port") + 1] == "6006"
    assert words[words.index("--logdir") + 1] == str(tmp_path / "outputs")
    named = shlex.split(call("--dry-run tensorboard --output-dir 'my runs' --port 7007", tmp_path).stdout)
    assert named[-4:] == ["--port", "7007", "--logdir", "my runs"]


@pytest.mark.parametrize("mode", ["build-container", "build-fast", "build-full"])
def test_images_are_built_without_data(mode: str, tmp_path: Path) -> None:
    done = call(f"--dry-run {mode}", tmp_path)
    assert shlex.split(done.stdout)[:2] == ["docker", "build"]
    assert ("never baked" in done.stderr) == (mode == "build-full")


def test_download_then_train(tmp_path: Path) -> None:
    done = call("--dry-run train-download --data-path d --accept-licence", tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert lines[0][1:3] == ["data", "fetch"]
    assert lines[-1][1:] == ["train", "--resume", "auto", "--data-root", str(tmp_path / "d")]


@pytest.mark.parametrize("line", ["", "fly", "train-s3 --epochs 1", "--torch", "dev --dry-run --port", "--docker plan"])
def test_wrong_lines_are_2(line: str, tmp_path: Path) -> None:
    assert call(line, tmp_path).returncode == 2
