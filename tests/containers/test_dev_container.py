"""The dev container as the specification opens it: the `dev` image, its user made the host's, the checkout mounted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from containers import OWNER, ROOT, dev_container_settings, docker

pytestmark = [pytest.mark.container, pytest.mark.timeout(2700)]
NOT_OF_THE_CHECKOUT = (".*", "data", "outputs", "results", "__pycache__", "tests")
USER_LAYER = """
FROM {image}
USER root
RUN sed -i 's/^\\(bevnext:[^:]*:\\)[^:]*:[^:]*/\\1{owner}:{owner}/' /etc/passwd && \\
    sed -i 's/^\\(bevnext:[^:]*:\\).*/\\1{owner}:/' /etc/group && chown -R {owner}:{owner} /tmp
USER 1000:1000
"""
"""What `updateRemoteUserUID` means to the tools that open dev containers."""


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return dev_container_settings()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout that belongs to a user whom the image does not know."""
    copy = tmp_path_factory.mktemp("dev") / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_OF_THE_CHECKOUT))
    (copy / "data").mkdir()
    for path in (copy, *copy.rglob("*")):
        os.chown(path, OWNER, OWNER)
    return copy


@pytest.fixture(scope="module")
def opened(
    settings: dict[str, Any], checkout: Path, dev_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Name of the container."""
    name = f"bevnext-sam2-test-dev-{os.getpid()}"
    layer = tmp_path_factory.mktemp("layer")
    (layer / "Dockerfile").write_text(USER_LAYER.format(image=dev_image, owner=OWNER))
    docker("build", "--tag", name, str(layer))
    mount = settings["workspaceMount"].replace("${localWorkspaceFolder}", str(checkout))
    safe = [f"--security-opt={option}" for option in settings["securityOpt"]]
    variables = [f"--env={key}={value}" for key, value in settings["containerEnv"].items()]
    place = ("run", "--detach", "--init", "--name", name, "--mount", mount, *variables, *safe, *settings["runArgs"])
    docker(*place, "--entrypoint", "/bin/sh", name, "-c", "sleep infinity")
    yield name
    docker("rm", "--force", name, check=False)
    docker("image", "rm", name, check=False)


def inside(name: str, settings: dict[str, Any], *command: str) -> str:
    """What a terminal of the editor shows."""
    place = ("--user", settings["remoteUser"], "--workdir", settings["workspaceFolder"])
    return docker("exec", *place, name, *command).stdout


def test_the_command_and_the_packages_are_those_of_the_checkout(opened: str, settings: dict[str, Any]) -> None:
    look = "import os, training, torch; print(os.getuid(), training.__file__)"
    assert inside(opened, settings, "python", "-c", look).split() == [
        str(OWNER),
        f"{settings['workspaceFolder']}/training/__init__.py",
    ]
    assert inside(opened, settings, "bevnext-sam2", "--version").count(".") == 2


def test_what_it_writes_lies_in_the_checkout_and_belongs_to_its_user(
    opened: str, settings: dict[str, Any], checkout: Path
) -> None:
    small = ("--scenes", "2", "--samples", "3", "--image-size", "160x90", "--no-lidar-sweeps", "--reach", "20")
    inside(opened, settings, "bevnext-sam2", "data", "synth", "--out", "data/synthetic", *small)
    inside(opened, settings, "bevnext-sam2", "data", "index", "--data-root", "data/synthetic")
    made = [checkout / "data/synthetic", *(checkout / "data").rglob("header.json")]
    assert len(made) > 1
    assert {path.stat().st_uid for path in made} == {OWNER}


def test_what_the_tests_of_the_project_need_is_there(opened: str, settings: dict[str, Any]) -> None:
    assert "pytest" in inside(opened, settings, "python", "-m", "pytest", "--version")
    assert "no issues" in inside(opened, settings, "mypy", "--cache-dir", "/tmp/mypy", "configs/errors.py")
    assert "passed" in inside(opened, settings, "ruff", "check", "--no-cache", "configs")


def test_it_is_not_called_ill_without_jupyterlab(opened: str) -> None:
    assert "Health" not in json.loads(docker("inspect", "--format", "{{json .State}}", opened).stdout)
