"""What we ask of the Docker engine, in the words of its command line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from configs.errors import BevnextError, UsageError

BUILD_FIRST: Final = "build it with scripts/build.sh, or name another with --image"


@dataclass(frozen=True, slots=True)
class State:
    """How a container ended."""

    exit_code: int
    out_of_memory: bool
    """The kernel has killed a process of it for its memory."""
    error: str
    """Why the engine could not run it."""


def check_engine(image: str) -> None:
    """Raise `UsageError` unless the engine answers and has the image: nothing is pulled or built unasked."""
    try:
        engine = _ask(["docker", "version", "--format", "{{.Server.Version}}"])
    except FileNotFoundError as error:
        raise UsageError(
            "--docker: there is no `docker` on the PATH", fix="install Docker with Compose, or train without --docker"
        ) from error
    if engine.returncode:
        raise UsageError(
            f"--docker: the engine does not answer: {_last(engine.stderr)}", fix="`bevnext-sam2 doctor` says why"
        )
    if _ask(["docker", "compose", "version"]).returncode:
        raise UsageError("--docker: Docker has no Compose", fix="install the package docker-compose-plugin")
    if _ask(["docker", "image", "inspect", "--format", "{{.Id}}", image]).returncode:
        raise UsageError(f"--image {image}: the engine has no such image", fix=BUILD_FIRST)


def check_name(name: str) -> None:
    """Raise `UsageError` where a container has the name already: it is never replaced."""
    found = _ask(["docker", "container", "inspect", "--format", "{{.State.Status}}", name])
    if found.returncode == 0:
        raise UsageError(
            f"--container-name {name}: there is a container of that name, {found.stdout.strip()}",
            fix=f"choose another name; `docker rm {name}` removes one that has ended",
        )


def containers_with(label: str, value: str) -> list[str]:
    """Names of the running containers that carry a label."""
    found = _ask(["docker", "ps", "--filter", f"label={label}={value}", "--format", "{{.Names}}"])
    return found.stdout.split()


def start(command: Sequence[str], name: str) -> None:
    """Start a container. Raises `BevnextError` with what Docker says where that fails; nothing is left of it then."""
    done = _ask(command)
    if done.returncode:
        remove(name)
        raise BevnextError(f"Docker could not start the container: {_cause(done.stderr)}", fix=_fix(done.stderr))


def send_signal(name: str, signal: str) -> None:
    """Send a signal to a container; one that has ended meanwhile needs none."""
    _ask(["docker", "kill", "--signal", signal, name])


def state(name: str) -> State:
    """How a container ended. Raises `BevnextError` where it has not, or the engine has lost it."""
    found = _ask(["docker", "container", "inspect", "--format", "{{json .State}}", name])
    if found.returncode:
        raise BevnextError(
            f"the container {name} is gone: {_last(found.stderr)}",
            fix="someone removed it, or the engine was restarted; the same command with --resume auto goes on",
        )
    content = json.loads(found.stdout)
    if content["Running"]:
        raise BevnextError(
            f"the engine stopped answering; {name} is still running",
            fix=f"docker logs --follow {name} shows it, docker stop {name} has it save and end",
        )
    return State(int(content["ExitCode"]), bool(content["OOMKilled"]), str(content["Error"]))


def remove(name: str) -> None:
    """Remove a container that has ended."""
    _ask(["docker", "rm", "--force", name])


def _ask(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, start_new_session=True
    )


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it says nothing"


def _cause(text: str) -> str:
    """The line in which the engine says what is wrong; Compose has others around it."""
    lines = [line for line in text.splitlines() if "Error response from daemon" in line]
    return lines[0].strip() if lines else _last(text)


def _fix(text: str) -> str:
    """What to do about a container that does not start."""
    text = text.lower()
    if "could not select device driver" in text or "nvidia-container" in text:
        return "install the NVIDIA container toolkit (scripts/setup_gpu.sh says how), or add --no-gpu"
    if "network" in text and "not found" in text:
        return "make it with `docker network create`, or correct --network"
    if "bind source path does not exist" in text:
        return "the engine sees other folders than this process: run both on one machine"
    if "rlimit" in text:
        return "the engine may not raise this limit; set BEVNEXT_SAM2_MEMLOCK in .env to what it may"
    return "`bevnext-sam2 doctor` looks at Docker, too"
