"""Docker and Compose, for those who start the platform in containers."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import disk_usage
from typing import Final

from configs.plan import size_text
from launcher.doctor.finding import Finding, fail, ok, warn

OLDEST_COMPOSE: Final = (2, 24)
"""`include` and optional `env_file` (Compose's own table)."""
TIMEOUT_SECONDS: Final = 20.0
ROOM_FOR_IMAGES: Final = 20 * 2**30

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


def check_toolkit(ask: Ask, installed: bool, gpus: int, specifications: Sequence[Path] = ()) -> Finding | None:
    """Docker can hand out the GPUs that are there; nothing to say without GPUs or Docker.

    Args:
        specifications: files by which the GPUs are described to Docker (CDI).
    """
    if not installed or not gpus:
        return None
    code, text = ask(["docker", "info", "--format", "{{json .Runtimes}}"])
    if code != 0:
        return None  # `check_docker` says so
    if '"nvidia"' in text:
        return ok("gpus in containers", "through the NVIDIA runtime")
    if specifications:
        return ok("gpus in containers", f"through CDI ({specifications[0]})")
    return fail(
        "gpus in containers",
        "Docker has no NVIDIA container toolkit",
        "scripts/setup_gpu.sh --install",
    )


def check_image(ask: Ask, installed: bool, image: str) -> Finding | None:
    """The image is built; nothing to say without Docker."""
    if not installed or ask(["docker", "version"])[0]:
        return None
    if ask(["docker", "image", "inspect", "--format", "{{.Id}}", image])[0]:
        return warn("image", f"{image} is not built", "scripts/build.sh")
    return ok("image", image)


def check_docker_disk(
    ask: Ask, installed: bool, free: Callable[[Path], int] = lambda path: disk_usage(path).free
) -> Finding | None:
    """Images and containers have room."""
    if not installed:
        return None
    code, text = ask(["docker", "info", "--format", "{{.DockerRootDir}}"])
    folder = Path(text)
    if code or not folder.is_dir():
        return None  # another machine's engine
    size = free(folder)
    if size < ROOM_FOR_IMAGES:
        fix = "docker system df says what takes it; data-root in /etc/docker/daemon.json moves it"
        return warn("docker disk", f"{size_text(size)} free in {folder}; an image with CUDA takes about 10 GiB", fix)
    return ok("docker disk", f"{size_text(size)} free in {folder}")


def cdi_specifications() -> list[Path]:
    """Files by which NVIDIA's GPUs are described to Docker."""
    return [path for folder in ("/etc/cdi", "/var/run/cdi") for path in sorted(Path(folder).glob("*nvidia*"))]


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
