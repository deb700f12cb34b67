"""`train --docker`: the plan is made here, torchrun runs in a container, and its logs and exit code come through."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import IO, Final

import click

from configs.errors import ExitCode, UsageError
from configs.plan_schema import Plan
from configs.recipes import save_recipe
from launcher.backends import docker_engine
from launcher.backends.docker import (
    RECIPE,
    RUN_LABEL,
    Container,
    container_recipe,
    make_container,
    override_text,
    start_command,
)
from launcher.options import TrainRequest
from launcher.own_process import quoted
from launcher.plan_table import show_plan
from launcher.planning import decide, plan_run
from launcher.supervision import PASSED_ON, POLL_SECONDS, handling
from launcher.training_run import say
from monitoring.devices import survey_gpus

USER: Final = 1000
"""User and group of the container where root starts it: containers do not run as root."""


def show_container(request: TrainRequest) -> None:
    """Show the plan, what the container is given and the commands that start it; nothing is written or asked."""
    container = plan_container(request)
    follow = f"docker logs --follow {container.name} & docker wait {container.name}"
    commands = f"{quoted(start_command(container))}\n{follow}\n"
    job = {str(container.file): override_text(container), "commands": commands}
    show_plan(container.run, as_json=request.as_json, job=job)


def train_in_container(request: TrainRequest) -> int:
    """Train in a container as the request says; returns the exit code of the launcher inside.

    Raises:
        BevnextError: for whatever is wrong before the container starts.
    """
    container = plan_container(request)
    docker_engine.check_engine(request.image)
    docker_engine.check_name(container.name)
    run_dir = container.run.choices.run_dir
    others = docker_engine.containers_with(RUN_LABEL, str(run_dir))
    if others and container.run.plan.nodes == 1:  # several nodes share the directory
        raise UsageError(f"{others[0]} is training in {run_dir}", fix="wait for it, or start another run with --run")
    show_plan(container.run, as_json=request.as_json, job={})
    _prepare_folders(container)
    attendance = Attendance(container.name, container.stop_seconds)
    with handling(attendance.handle):
        docker_engine.start(start_command(container), container.name)
        if request.detach:
            say(f"{container.name} trains; `docker logs --follow` shows it, `docker stop` has it save and end")
            return int(ExitCode.DONE)
        say(f"{container.name} starts")
        attendance.follow(sys.stderr if request.as_json else None)
    return _verdict(container.name)


def plan_container(request: TrainRequest) -> Container:
    """The container that a request means."""
    run = plan_run(decide(request))
    container = make_container(request, run, _uuids(run.plan), _user(run.choices.run_dir))
    _check_rights(container)
    return container


class Attendance:
    """Shows what a container says until it has ended, and passes signals on to it.

    The container is not a child of this process, so that a lost terminal or a closed client does not kill it: it is
    asked to stop, as `docker stop` does, and has the time to save.
    """

    def __init__(self, name: str, stop_seconds: float) -> None:
        self.name = name
        self.stop_seconds = stop_seconds
        self.received: list[signal.Signals] = []
        self.passed_on = 0
        self.deadline = float("inf")

    def follow(self, output: IO[str] | None) -> None:
        """Return when the container has ended; its streams go to ours, or both to `output`."""
        command, quiet = ["docker", "logs", "--follow", self.name], subprocess.DEVNULL
        logs = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        ended = subprocess.Popen(["docker", "wait", self.name], stdout=quiet, stderr=quiet, start_new_session=True)
        while not _has_ended(ended):
            self._pass_on()
        logs.wait()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: what to do about it is done between two looks at the container."""
        del frame
        self.received.append(signal.Signals(number))

    def _pass_on(self) -> None:
        """The first signal asks the container to stop; the second, or the end of its time, kills it."""
        for number in self.received[self.passed_on :]:
            self.passed_on += 1
            if self.passed_on == 1:
                say(f"{number.name}: asked to stop within {self.stop_seconds:g} s (once more: at once)")
                docker_engine.send_signal(self.name, PASSED_ON[number].name)
                self.deadline = time.monotonic() + self.stop_seconds
            else:
                self.deadline = 0.0
        if time.monotonic() > self.deadline:
            say(f"{self.name} is killed")
            docker_engine.send_signal(self.name, "SIGKILL")
            self.deadline = float("inf")


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _verdict(name: str) -> int:
    """Exit code of a container that has ended, and a word where it could not speak for itself."""
    state = docker_engine.state(name)
    docker_engine.remove(name)
    if state.out_of_memory:
        say("the kernel killed a process of the container for its memory\n  fix: a smaller --batch-size or --workers")
    if state.error:
        say(f"the engine says: {state.error}")
    if state.exit_code in set(ExitCode):
        return state.exit_code
    click.echo(f"{click.style('error:', fg='red', bold=True)} {name} ended with exit code {state.exit_code}", err=True)
    return int(ExitCode.CRASHED)


def _uuids(plan: Plan) -> tuple[str, ...]:
    """The GPUs of the plan by the names that Docker understands whatever CUDA_VISIBLE_DEVICES says."""
    if plan.device_kind != "cuda":
        return ()
    visible = survey_gpus().visible()
    return tuple(visible[i].uuid for i in plan.device_ids[: plan.devices_per_node])


def _user(run_dir: Path) -> tuple[int, int]:
    """Whose files the run's will be: the caller's, or where root calls, those of the folder's owner."""
    if os.getuid() != 0:
        return os.getuid(), os.getgid()
    existing = next((folder for folder in (run_dir, run_dir.parent) if folder.exists()), None)
    owner = None if existing is None else existing.stat()
    return (owner.st_uid, owner.st_gid) if owner and owner.st_uid else (USER, USER)


def _check_rights(container: Container) -> None:
    """Raise `UsageError` where the container could not write what it must."""
    user, group = container.user
    folders = [mount.folder for mount in container.mounts if mount.writable]
    for folder in (*folders, container.run.choices.run_dir):
        if folder.exists() and folder.stat().st_uid != user and (os.getuid() == 0 or not os.access(folder, os.W_OK)):
            raise UsageError(
                f"{folder} belongs to user {folder.stat().st_uid}, and the container runs as {user} (never as root)",
                fix=f"sudo chown -R {user}:{group} {quoted([str(folder)])}, or name another folder",
            )


def _prepare_folders(container: Container) -> None:
    """Make what is mounted, so that it belongs to the user and not to root, and write what the container reads."""
    run_dir = container.run.choices.run_dir
    made = [path for mount in container.mounts if mount.writable for path in _make(mount.folder)]
    made += _make(container.file.parent)
    save_recipe(container_recipe(container.run), run_dir / RECIPE)
    container.file.write_text(override_text(container), encoding="utf-8")
    if os.getuid() == 0:
        for path in (*made, run_dir / RECIPE, container.file):
            os.chown(path, *container.user)


def _make(folder: Path) -> list[Path]:
    """Make a folder and those above it; returns the new ones."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing
