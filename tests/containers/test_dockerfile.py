"""What the Dockerfile and the dev container promise, as far as their text tells."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml
from containers import ROOT, dev_container_settings, project_version

TEXT = (ROOT / "docker/Dockerfile").read_text()
STAGES = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM |\Z)", TEXT, re.MULTILINE | re.DOTALL))


def test_base_is_pinned_and_the_same_everywhere() -> None:
    base = re.findall(r"^ARG BASE_IMAGE=(\S+@sha256:[0-9a-f]{64})$", TEXT, re.MULTILINE)
    assert len(base) == 1
    assert f"BASE_IMAGE: ${{BEVNEXT_SAM2_BASE_IMAGE:-{base[0]}}}" in (ROOT / "compose/services.yaml").read_text()


def test_targets_end_without_root() -> None:
    for target in ("runtime", "dev", "openmmlab", "ascend"):
        assert re.findall(r"^USER (.+)$", STAGES[target], re.MULTILINE)[-1] == "${UID}:${GID}"


def test_packages_come_before_the_source() -> None:
    assert not re.search(r"^COPY \. ", STAGES["packages"], re.MULTILINE)
    assert STAGES["runtime"].index("COPY --from=packages") < STAGES["runtime"].index("COPY . ")


def test_version_is_that_of_the_project() -> None:
    version = project_version()
    assert f"ARG VERSION={version}\n" in TEXT
    assert f"bevnext-sam2:{version}}}" in (ROOT / "compose/services.yaml").read_text()


def test_context_holds_no_data_and_no_secret() -> None:
    """The list names what goes in, so whatever is new stays out."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert lines[0] == "*"
    assert not allowed & {".git", ".env", ".venv", "data", "outputs", "tests"}
    copied = set(re.findall(r"^COPY (?!--|\.)(.+) \S+$", TEXT, re.MULTILINE))
    assert {word.split("/")[0] for words in copied for word in words.split()} <= allowed


def test_every_lock_file_of_the_image_is_there() -> None:
    named = set(re.findall(r"requirements/([\w.]+)", TEXT))
    assert named
    assert not [name for name in named if not (ROOT / "requirements" / name).is_file()]


def test_dev_container_opens_without_a_gpu() -> None:
    settings = dev_container_settings()
    assert settings["hostRequirements"] == {"gpu": "optional"}
    assert settings["build"]["target"] in STAGES
    assert settings["remoteUser"] == "bevnext"


def test_hadolint_finds_nothing() -> None:
    assert yaml.safe_load((ROOT / ".hadolint.yaml").read_text())["failure-threshold"] == "info"
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--config", ROOT / ".hadolint.yaml", ROOT / "docker/Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
