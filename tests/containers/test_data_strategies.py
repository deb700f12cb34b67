"""`docker-with-data.sh` with a real engine: a command in the container finds the data set that the host named."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import PATIENCE_SECONDS, ROOT, Project, clean_environment, docker

pytestmark = [pytest.mark.container, pytest.mark.timeout(2700)]
VOLUME = "bevnext-sam2-data"


def check(project: Project, strategy: str, data: Path) -> subprocess.CompletedProcess[str]:
    """`data check` in a container."""
    line = [ROOT / "scripts/docker-with-data.sh", strategy, "--data-path", data, "--no-gpu"]
    return subprocess.run(
        [*line, "--", "data", "check", "--version", "v1.0-synthetic"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env={**clean_environment(), **project.settings, "COMPOSE_PROJECT_NAME": project.name},
        check=False,
    )


@pytest.fixture
def volume(engine: None) -> Iterator[str]:
    """The volume of the strategy `shared`; one that somebody uses is left alone."""
    if docker("volume", "inspect", VOLUME, check=False).returncode == 0:
        pytest.skip(f"there is a volume {VOLUME} already")
    yield VOLUME
    docker("volume", "rm", "--force", VOLUME, check=False)


def test_volume(project: Project, small_set: Path) -> None:
    done = check(project, "volume", small_set / "synthetic")
    assert done.returncode == 0, done.stdout + done.stderr


def test_symlink(project: Project, small_set: Path, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    for folder in (small_set / "synthetic").iterdir():
        (links / folder.name).symlink_to(folder)
    done = check(project, "symlink", links)
    assert done.returncode == 0, done.stdout + done.stderr


def test_shared_is_filled_once(project: Project, small_set: Path, volume: str, tmp_path: Path) -> None:
    assert check(project, "shared", small_set / "synthetic").returncode == 0
    (tmp_path / "empty").mkdir()
    again = check(project, "shared", tmp_path / "empty")  # what is in the volume stays
    assert again.returncode == 0, again.stdout + again.stderr
