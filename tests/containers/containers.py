"""Docker and Compose for the tests: plain calls that show what went wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
BASE_IMAGE: Final = os.environ.get("BEVNEXT_SAM2_TEST_BASE_IMAGE", "local/base:bookworm")
IMAGE: Final = "bevnext-sam2-test:built"
OWNER: Final = 12345
"""A user whom the image does not know, as on most hosts."""
BUILD_SECONDS: Final = 2400
PATIENCE_SECONDS: Final = 400.0
SMOKE: Final = (
    "--config synthetic/bevnext-smoke --set data.source_size=[90,160] --num-processes 2 --workers 1 --run smoke"
)
"""The smallest training there is, on two processes of the processor."""


def docker(*arguments: str, check: bool = True, timeout: float = PATIENCE_SECONDS) -> subprocess.CompletedProcess[str]:
    """Call docker; where it fails, the error shows what it said."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise AssertionError(
            f"docker {' '.join(arguments)}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        )
    return done


def _failure(program: str, arguments: Sequence[str], done: subprocess.CompletedProcess[str]) -> str:
    called = f"{program} {' '.join(arguments)}: {done.returncode}"
    return f"{called}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def clean_environment() -> dict[str, str]:
    """This process's, without the settings of Compose that somebody may have made."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("BEVNEXT_SAM2_", "COMPOSE_"))}


def has_compose() -> bool:
    """There is a Compose; it need not have an engine."""
    return shutil.which("docker") is not None and docker("compose", "version", check=False).returncode == 0


def build_image(target: str, tag: str, base: str) -> str:
    """Build a target of the real Dockerfile and tell how long it took. Skips nothing: a build that fails, fails."""
    begun = time.monotonic()
    arguments = ("--file", str(ROOT / "docker/Dockerfile"), "--target", target, "--tag", tag, "--progress", "plain")
    docker("build", *arguments, "--build-arg", f"BASE_IMAGE={base}", str(ROOT), timeout=BUILD_SECONDS)
    size = int(docker("image", "inspect", "--format", "{{.Size}}", tag).stdout)
    print(f"[image] {tag}: {size / 2**30:.2f} GiB, built in {time.monotonic() - begun:.0f} s")
    return tag


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_until(what: str, true: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Look twice a second until it is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.5)


class Project:
    """The services of `compose.yaml` with settings of their own, as a user's `.env` would give them."""

    def __init__(self, folder: Path, image: str, settings: Mapping[str, str]) -> None:
        self.name = f"bevnext-test-{os.getpid()}-{abs(hash(folder)) % 10000}"
        self.files: tuple[Path, ...] = ()
        self.settings = {
            "BEVNEXT_SAM2_DEVICE": "cpu",
            "BEVNEXT_SAM2_IMAGE": image,
            "BEVNEXT_SAM2_UID": str(OWNER),
            "BEVNEXT_SAM2_GID": str(OWNER),
            **settings,
        }

    def compose(self, *arguments: str, check: bool = True, **settings: str) -> subprocess.CompletedProcess[str]:
        """Call `docker compose` on the real files."""
        files = [word for file in (ROOT / "compose.yaml", *self.files) for word in ("--file", str(file))]
        command = ["docker", "compose", "--project-name", self.name, "--env-file", "/dev/null", *files]
        done = subprocess.run(
            [*command, *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
            env={**clean_environment(), **self.settings, **settings},
        )
        if check and done.returncode:
            raise AssertionError(
                f"compose {' '.join(arguments)}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            )
        return done

    @property
    def outputs(self) -> Path:
        """Where the runs are, on the host."""
        return Path(self.settings["BEVNEXT_SAM2_OUTPUT_DIR"])

    def container(self, service: str) -> str:
        """Id of a service's container."""
        return self.compose("ps", "--all", "--quiet", service).stdout.strip()

    def exit_code(self, service: str) -> int:
        """Wait for a service's container to end."""
        return int(docker("wait", self.container(service)).stdout)

    def health(self, service: str) -> str:
        """starting, healthy or unhealthy."""
        return docker("inspect", "--format", "{{.State.Health.Status}}", self.container(service)).stdout.strip()


def newest_step(run_dir: Path) -> int:
    """The last optimiser step in the log of a run; 0 before the first."""
    log = run_dir / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    return max((line["step"] for line in lines if "loss" in line), default=0)


def project_version() -> str:
    """As `pyproject.toml` says; tomllib is not there in Python 3.10."""
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found
    return found[1]


def dev_container_settings() -> dict[str, Any]:
    """What `.devcontainer/devcontainer.json` says; it is JSON with comments on lines of their own."""
    text = (ROOT / ".devcontainer/devcontainer.json").read_text()
    content = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    assert isinstance(content, dict)
    return content
