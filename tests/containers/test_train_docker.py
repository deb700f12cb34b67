"""`train --docker` with a real engine: logs, exit codes and signals come through, and nothing that runs is replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from containers import PATIENCE_SECONDS, ROOT, clean_environment, docker

pytestmark = pytest.mark.container
SMOKE = ["--config", "synthetic/bevnext-smoke", "--set", "data.source_size=[90,160]", "--workers", "1"]
Train = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def train(image: str, small_set: Path, tmp_path: Path) -> Iterator[Train]:
    """Starts `train --docker` on the small set; what a failed test leaves running is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str, processes: int = 2) -> subprocess.Popen[str]:
        place = ["--data-root", str(small_set / "synthetic"), "--index-dir", str(tmp_path / "index")]
        place += ["--output-dir", str(tmp_path / "outputs"), "--num-processes", str(processes), "--image", image]
        process = subprocess.Popen(
            [sys.executable, "-m", "launcher", "train", "--docker", *SMOKE, *place, *options],
            cwd=tmp_path,
            env={**clean_environment(), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE_SECONDS)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, output


def wait_for_steps(run: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ((run / "metrics.jsonl").is_file() and (run / "metrics.jsonl").stat().st_size):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no step was trained"
        time.sleep(0.5)


def test_to_the_end(train: Train, tmp_path: Path) -> None:
    code, output = ended(train("--epochs", "1", "--run", "r"))
    assert code == 0, output
    assert "step " in output
    checkpoints = tmp_path / "outputs" / "r" / "checkpoints"
    assert (checkpoints / "latest").exists()
    assert checkpoints.stat().st_uid != 0


def test_bad_data_in_the_container_is_3(train: Train) -> None:
    code, output = ended(train("--run", "r", "--set", "data.source_size=[90,170]"))
    assert code == 3, output
    assert "fix:" in output


def test_interrupt_resume_and_docker_stop(train: Train, tmp_path: Path) -> None:
    run, name = tmp_path / "outputs" / "r", f"bevnext-sam2-test-{os.getpid()}"
    first = train("--epochs", "500", "--run", "r", "--container-name", name)
    wait_for_steps(run, first)
    code, output = ended(train("--epochs", "1", "--run", "r", "--resume", "auto"))
    assert (code, f"{name} is training" in output) == (2, True)
    code, output = ended(train("--epochs", "1", "--run", "other", "--container-name", name))
    assert (code, "there is a container of that name" in output) == (2, True)
    first.send_signal(signal.SIGINT)
    code, output = ended(first)
    assert code == 75, output
    saved = (run / "checkpoints" / "latest").resolve().name
    lines = len((run / "metrics.jsonl").read_text().splitlines())
    again = train("--epochs", "500", "--run", "r", "--resume", "auto", "--container-name", name)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len((run / "metrics.jsonl").read_text().splitlines()) <= lines and time.monotonic() < deadline:
        time.sleep(0.5)
    docker("stop", name)
    code, output = ended(again)
    assert code == 75, output
    assert (run / "checkpoints" / "latest").resolve().name > saved
    assert name not in docker("ps", "--all", "--format", "{{.Names}}").stdout


def test_two_containers_as_two_nodes(train: Train, network: str, tmp_path: Path) -> None:
    names = [f"bevnext-sam2-test-{os.getpid()}-{node}" for node in "ab"]
    meet = [
        "--nnodes",
        "2",
        "--rdzv-endpoint",
        f"{names[0]}:29400",
        "--network",
        network,
        "--epochs",
        "1",
        "--run",
        "r",
    ]
    nodes = [train(*meet, "--container-name", name, processes=1) for name in names]
    for process in nodes:
        code, output = ended(process)
        assert code == 0, output
