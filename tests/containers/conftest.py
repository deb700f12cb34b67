"""A real engine, the image built from the Dockerfile, and a folder for what containers write.

The base image and the ready image can be named: BEVNEXT_SAM2_TEST_BASE_IMAGE, BEVNEXT_SAM2_TEST_IMAGE.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from containers import BASE_IMAGE, IMAGE, OWNER, SMOKE, Project, build_image, docker


@pytest.fixture(scope="session")
def engine() -> None:
    """Skip, with the reason, where no Docker engine answers."""
    try:
        answer = docker("version", "--format", "{{.Server.Version}}", check=False)
    except FileNotFoundError:
        pytest.skip("there is no `docker` here")
    if answer.returncode:
        pytest.skip(f"no Docker engine answers: {answer.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="session")
def image(engine: None) -> str:
    """The runtime image."""
    ready = os.environ.get("BEVNEXT_SAM2_TEST_IMAGE")
    return ready or build_image("runtime", IMAGE, BASE_IMAGE)


@pytest.fixture(scope="session")
def dev_image(image: str) -> str:
    """The image with JupyterLab; its layers lie upon those of the runtime image."""
    return build_image("dev", f"{IMAGE}-dev", BASE_IMAGE)


@pytest.fixture(scope="session")
def small_set(image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic set that is read in a second, made in a container by a user whom the image does not know."""
    folder = tmp_path_factory.mktemp("cache")
    os.chown(folder, OWNER, OWNER)
    size = ("--scenes", "5", "--samples", "4", "--image-size", "160x90", "--no-lidar-sweeps", "--reach", "20")
    command = ("data", "synth", "--out", "/workspace/data/synthetic", *size)
    docker(
        *("run", "--rm", "--init", "--read-only", "--tmpfs", "/tmp", "--user", f"{OWNER}:{OWNER}", "--cap-drop", "ALL"),
        *("--volume", f"{folder}:/workspace/data", image, *command),
    )
    return folder


@contextmanager
def services(folder: Path, image: str, cache: Path) -> Iterator[Project]:
    """`compose.yaml` on the processor, with folders and a project name of its own; taken down afterwards."""
    settings = {"BEVNEXT_SAM2_CACHE_DIR": str(cache)}
    for name, place in (("OUTPUT", "outputs"), ("CHECKPOINT", "checkpoints")):
        (folder / place).mkdir()
        os.chown(folder / place, OWNER, OWNER)
        settings[f"BEVNEXT_SAM2_{name}_DIR"] = str(folder / place)
    made = Project(folder, image, settings)
    yield made
    made.compose("--profile", "*", "down", "--timeout", "2", "--volumes", check=False)


@pytest.fixture
def project(image: str, small_set: Path, tmp_path: Path) -> Iterator[Project]:
    """The services, on the small set."""
    with services(tmp_path, image, small_set) as made:
        yield made


@pytest.fixture
def empty_project(image: str, tmp_path: Path) -> Iterator[Project]:
    """The services where no set has been made yet."""
    (tmp_path / "cache").mkdir()
    os.chown(tmp_path / "cache", OWNER, OWNER)
    with services(tmp_path, image, tmp_path / "cache") as made:
        yield made


@pytest.fixture(scope="module")
def trained(image: str, small_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The services beside a finished run, `smoke`, that recorded a profile."""
    with services(tmp_path_factory.mktemp("trained"), image, small_set) as made:
        made.settings["BEVNEXT_SAM2_RUN"] = "smoke"
        made.compose("run", "--rm", "train", BEVNEXT_SAM2_TRAIN_OPTIONS=f"{SMOKE} --profile 2:3")
        yield made


@pytest.fixture
def network(engine: None, request: pytest.FixtureRequest) -> Iterator[str]:
    """A private network without a way out."""
    name = f"bevnext-sam2-test-{os.getpid()}"
    docker("network", "create", "--internal", name)
    yield name
    subprocess.run(["docker", "network", "rm", name], capture_output=True, check=False)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots go: BEVNEXT_SAM2_SCREENSHOTS, or nowhere to be kept."""
    folder = Path(os.environ.get("BEVNEXT_SAM2_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
