"""Two containers as two machines on a private network: one is killed, comes back, and both finish the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from containers import OWNER, Project, docker, newest_step, wait_until

pytestmark = [pytest.mark.container, pytest.mark.timeout(2700)]
WORK = (
    *("--config", "synthetic/bevnext-smoke", "--set", "data.source_size=[90,160]", "--epochs", "12"),
    *("--num-processes", "1", "--workers", "1", "--set", "engine.checkpoint_every=4", "--run", "two-nodes"),
    *("--resume", "auto", "--nnodes", "2", "--max-restarts", "3", "--retries", "3"),
)


def start(name: str, image: str, network: str, outputs: Path, cache: Path) -> None:
    safe = (
        "--init",
        "--read-only",
        "--tmpfs",
        "/tmp",
        "--cap-drop",
        "ALL",
        "--user",
        f"{OWNER}:{OWNER}",
        "--shm-size",
        "1g",
    )
    mounts = ("--volume", f"{outputs}:/workspace/outputs", "--volume", f"{cache}:/workspace/data:ro")
    meet = ("--rdzv-endpoint", f"{network}-a:29400")
    place = ("--network", network, "--name", name, "--hostname", name)
    docker("run", "--detach", *place, *safe, *mounts, image, "train", *WORK, *meet)


def test_one_of_two_nodes_dies_and_comes_back(project: Project, image: str, network: str, small_set: Path) -> None:
    run_dir = project.outputs / "two-nodes"
    names = [f"{network}-a", f"{network}-b"]
    safe = ("--user", f"{OWNER}:{OWNER}", "--volume", f"{small_set}:/workspace/data")
    docker("run", "--rm", *safe, image, "data", "index", "--data-root", "/workspace/data/synthetic")
    try:
        for name in names:
            start(name, image, network, project.outputs, small_set)
        wait_until("eight steps", lambda: newest_step(run_dir) >= 8)
        docker("kill", "--signal", "KILL", names[1])
        docker("rm", names[1])
        start(names[1], image, network, project.outputs, small_set)
        codes = [int(docker("wait", name).stdout) for name in names]
        logs = {name: docker("logs", name).stderr[-3000:] for name in names}
        assert codes == [0, 0], logs
        assert newest_step(run_dir) == 12 * 4
    finally:
        for name in names:
            docker("rm", "--force", name, check=False)
