"""Docker and Compose, for those who start the platform in containers."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Final

from launcher.doctor.finding import Finding, fail, ok, warn

OLDEST_COMPOSE: Final = (2, 24)
"""`include` and optional `env_file` (Compose's own table)."""
TIMEOUT_SECONDS: Final = 20.0

Ask = Callable[[Sequence[str]], "tuple[int, str]"]
"""A command -> its exit code and output."""


def check_docker(ask: Ask, installed: bool) -> Finding:
    """The engine is there and answers this user."""
    if not installed:
        return ok("docker", "not installed; only the container commands need it")
    code, text = ask(["docker", "version", "--format", "{{.Server.Version}}"])
    if code == 0:
        return ok("docker", f"engine {text}")
    if "permission denied" in text.lower():
        return fail(
            "docker", "this user may not talk to the engine", "sudo usermod -aG docker $USER, then log in again"
        )
    return warn("docker", f"the engine does not answer: {text}", "sudo systemctl start docker")


def check_compose(ask: Ask, installed: bool) -> Finding | None:
    """Compose is new enough; nothing to say without Docker."""
    if not installed:
        return None
    code, text = ask(["docker", "compose", "version", "--short"])
    version = re.search(r"(\d+)\.(\d+)", text)
    if code != 0 or version is None:
        return warn("compose", "Docker has no Compose", "install docker-compose-plugin")
    if (int(version[1]), int(version[2])) < OLDEST_COMPOSE:
        return warn("compose", f"{text} is too old", f"update to {'.'.join(map(str, OLDEST_COMPOSE))} or newer")
    return ok("compose", text)


def docker_installed() -> bool:
    """There is a docker program."""
    return shutil.which("docker") is not None


def ask_program(command: Sequence[str]) -> tuple[int, str]:
    """Run a program that only tells something: exit code and the last line of what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {TIMEOUT_SECONDS:g} s"
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    return done.returncode, lines[-1] if lines else ""
