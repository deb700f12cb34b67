"""The runtime image: who it runs as, what it says about itself, and what it does not hold."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from containers import BASE_IMAGE, OWNER, ROOT, docker, project_version

pytestmark = [pytest.mark.container, pytest.mark.timeout(2700)]
BUILD_TOOLS = ("gcc", "g++", "cc", "make", "nvcc", "pip", "git")


def run(image: str, *command: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return docker("run", "--rm", *flags, image, *command, check=False)


def test_labels_user_and_healthcheck(image: str) -> None:
    config = json.loads(docker("image", "inspect", image).stdout)[0]["Config"]
    assert config["Labels"]["org.opencontainers.image.version"] == project_version()
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert config["User"] == "1000:1000"
    assert config["Healthcheck"]["Test"] == ["CMD", "bevnext-sam2", "doctor", "--quick"]
    assert config["Entrypoint"][0] == "tini"


def test_no_build_tools_are_added(image: str) -> None:
    """What the base image brings is the user's choice."""
    look = ("bash", "-c", f"type -P {' '.join(BUILD_TOOLS)}")
    assert set(run(image, *look).stdout.split()) <= set(run(BASE_IMAGE, *look).stdout.split())
    assert "No module named pip" in run(image, "python3", "-m", "pip").stderr


def test_our_packages_are_ours_and_nothing_else_of_the_checkout_is_there(image: str) -> None:
    script = "import training, torch, torchvision, sam2; print(training.__file__)"
    assert run(image, "python", "-c", script).stdout.strip() == "/opt/bevnext-sam2/training/__init__.py"
    listed = set(run(image, "ls", "-A", "/opt/bevnext-sam2").stdout.split())
    assert not listed & {".git", ".venv", ".env", "data", "outputs", "tests"}


def test_healthcheck_passes_with_a_read_only_root_and_a_foreign_user(image: str) -> None:
    flags = ("--read-only", "--tmpfs", "/tmp", "--user", f"{OWNER}:{OWNER}", "--cap-drop", "ALL")
    folders = ("--tmpfs", f"/workspace/outputs:uid={OWNER}", "--tmpfs", f"/workspace/data:uid={OWNER}")
    done = run(image, "doctor", "--quick", flags=(*flags, *folders, "--init", "--shm-size", "1g"))
    assert done.returncode == 0, done.stdout


def test_completion_is_there(image: str) -> None:
    shown = run(image, "bash", "-ic", "complete -p bevnext-sam2")
    assert "bevnext-sam2" in shown.stdout


def test_outputs_that_cannot_be_written_are_one_clear_message(image: str, tmp_path: Path) -> None:
    done = run(image, "train", flags=("--user", "1234:1234"))
    assert done.returncode == 2
    assert "BEVNEXT_SAM2_UID" in done.stderr
    done = run(image, "train", flags=("--volume", f"{tmp_path}:/workspace/outputs:ro"))
    assert done.returncode == 2
    assert "mounted read-only" in done.stderr


def test_short_token_is_refused(image: str) -> None:
    jupyter = "/opt/bevnext-sam2/docker/jupyter.sh"
    done = run(image, jupyter, flags=("--env", "BEVNEXT_SAM2_JUPYTER_TOKEN=secret"))
    assert done.returncode == 2
    assert "fix:" in done.stderr


def test_certificates_of_a_company_are_added(image: str) -> None:
    command = 'wc -l <"$SSL_CERT_FILE"; wc -l </etc/ssl/certs/ca-certificates.crt; echo "$PIP_CERT"'
    flags = ("--env", "BEVNEXT_SAM2_CA_FILE=/run/ca.pem", "--volume", f"{ROOT / 'LICENSE'}:/run/ca.pem:ro")
    both, system, pip = run(image, "bash", "-c", command, flags=flags).stdout.split()
    assert int(both) > int(system)
    assert pip == "/tmp/ca-bundle.crt"
