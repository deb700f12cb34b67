"""A run in a container of this machine: what the container is given, as an override of Compose's service `train`.

Folders are mounted where they lie on the host, so that every path means the same inside and outside, and a run that was
started in a container can be resumed without one. The plan is made on the host; the container gets its numbers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml

from configs.published_weights import FOLDER_VARIABLE, weights_folder
from configs.remote_location import remote_address
from configs.schema import Recipe
from launcher.backends.job import shared_memory_needed, stop_seconds
from launcher.dataset import absolute
from launcher.options import TrainRequest
from launcher.own_process import ROOT
from launcher.planning import PlannedRun
from launcher.train_arguments import train_arguments

SERVICE: Final = "train"
FOLDER: Final = "docker"
"""In the run directory: an override for each container."""
RECIPE: Final = "docker/recipe.yaml"
"""In the run directory: the recipe with every value, so that the container needs no other file of the host."""
JOINED: Final = "joined"
"""What the override calls a network that is there already."""
RUN_LABEL: Final = "bevnext-sam2.run"
PASSED_ON: Final = ("AWS_", "FSSPEC_S3_", "GLOO_", "NCCL_", "TORCH_NCCL_")
"""Beginnings of the names of environment variables that a container gets from the caller."""
PATHS: Final = ("_BUNDLE", "_FILE")
"""Ends of the names of those that stay behind: they are paths of the host."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the host, in the container at the same path."""

    folder: Path
    writable: bool = False

    def as_compose(self) -> dict[str, Any]:
        """Long syntax: a folder that is not there is an error, not an empty folder that belongs to root."""
        path = _literal(str(self.folder))
        bind = {"create_host_path": False}
        return {"type": "bind", "source": path, "target": path, "read_only": not self.writable, "bind": bind}


@dataclass(frozen=True, slots=True)
class Container:
    """A run in a container."""

    run: PlannedRun
    request: TrainRequest
    name: str
    user: tuple[int, int]
    """User and group id that the container runs as."""
    gpus: tuple[str, ...]
    """UUIDs; the container numbers them from 0."""
    mounts: tuple[Mount, ...]
    arguments: list[str]
    """Of `bevnext-sam2`, in the container."""

    @property
    def file(self) -> Path:
        """Where the override lies."""
        return self.run.choices.run_dir / FOLDER / f"{self.name}.yaml"

    @property
    def stop_seconds(self) -> int:
        """Between the request to stop and the kill."""
        return stop_seconds(self.run.plan)


def make_container(request: TrainRequest, run: PlannedRun, gpus: Sequence[str], user: tuple[int, int]) -> Container:
    """The container of a run that was planned for `request`."""
    return Container(
        run=run,
        request=request,
        name=request.container_name or default_name(run.choices.run_dir.name),
        user=user,
        gpus=tuple(gpus),
        mounts=mounts(run),
        arguments=["train", *train_arguments(_inside(request, run))],
    )


def default_name(run: str) -> str:
    """A name that no other container has: two starts never meet."""
    word = re.sub(r"[^a-zA-Z0-9_.-]+", "-", run).strip("-.") or "run"
    return f"bevnext-sam2-{word}-{datetime.now().astimezone():%Y%m%d-%H%M%S}-{os.getpid()}"


def container_recipe(run: PlannedRun) -> Recipe:
    """The recipe of the run; weights files that it names are named by their absolute paths."""
    content = run.choices.recipe.model_dump(mode="json")
    for section, key in _weights_places(content):
        if (file := _weights_file(section[key])) is not None:
            section[key] = str(file)
    return Recipe.model_validate(content)


def mounts(run: PlannedRun) -> tuple[Mount, ...]:
    """What the container sees of the host: outputs to write, data to read, an index to write where it is missing."""
    choices = run.choices
    data, output_dir = choices.data, choices.run_dir.parent
    index = data.header.parents[1]
    makes_data = data.made_on_demand and bool(run.first)
    is_mirror = remote_address(data.root) is not None  # fills as files are read
    wanted = [Mount(output_dir, writable=True), Mount(data.root, writable=makes_data or is_mirror)]
    if run.first or not index.is_relative_to(data.root):
        wanted.append(Mount(index, writable=bool(run.first)))
    wanted += [Mount(target) for target in linked_folders(data.root)]
    wanted += [Mount(folder) for folder in _weights_folders(choices.recipe)]
    if choices.resume not in ("auto", "none"):
        wanted.append(Mount(Path(choices.resume).parent))
    distinct = {mount.folder: mount for mount in reversed(wanted)}
    return tuple(distinct[folder] for folder in sorted(distinct) if not _covered(distinct[folder], wanted))


def linked_folders(root: Path) -> list[Path]:
    """Where symbolic links in a data root lead that leave it, such as `samples` on another disk."""
    if not root.is_dir():
        return []
    targets = {entry.resolve() for entry in root.iterdir() if entry.is_symlink() and entry.exists()}
    inside = root.resolve()
    return sorted(target if target.is_dir() else target.parent for target in targets if inside not in target.parents)


def override_text(container: Container) -> str:
    """The override as YAML; Compose reads it after `compose.yaml`."""
    content: dict[str, Any] = {"services": {SERVICE: _service(container)}}
    if container.request.network not in (None, "host"):
        content["networks"] = {JOINED: {"external": True, "name": _literal(str(container.request.network))}}
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=120)


def start_command(container: Container) -> list[str]:
    """The command that creates the container and starts it."""
    files = ["--file", str(ROOT / "compose.yaml"), "--file", str(container.file)]
    start = ["run", "--detach", "--no-deps", *(["--rm"] if container.request.detach else [])]
    compose = ["docker", "compose", "--project-directory", str(ROOT), *files, *start, "--name", container.name, SERVICE]
    return ["env", f"BEVNEXT_SAM2_DEVICE={'gpu' if container.gpus else 'cpu'}", *compose]  # the plan knows, not .env


def _service(container: Container) -> dict[str, Any]:
    request, plan = container.request, container.run.plan
    devices = [{"driver": "nvidia", "device_ids": list(container.gpus), "capabilities": ["gpu"]}]
    environment = sorted(name for name in os.environ if name.startswith(PASSED_ON) and not name.endswith(PATHS))
    network: dict[str, Any] = {}
    if request.network == "host":
        network = {"network_mode": "host", "networks": _Reset()}
    elif request.network:
        network = {"networks": _Replaced([JOINED])}
    return {
        "image": _literal(request.image),
        "command": ["bevnext-sam2", *(_literal(argument) for argument in container.arguments)],
        "user": "{}:{}".format(*container.user),
        "working_dir": _literal(str(Path.cwd())),  # relative paths mean the same inside, too
        "environment": [*environment, _literal(f"{FOLDER_VARIABLE}={published_folder()}")],
        "labels": {RUN_LABEL: _literal(str(container.run.choices.run_dir))},
        "volumes": _Replaced(mount.as_compose() for mount in container.mounts),
        "shm_size": shared_memory_needed(plan),
        "stop_grace_period": f"{container.stop_seconds}s",
        "stop_signal": "SIGTERM",
        "restart": "no",
        "deploy": {"resources": {"reservations": {"devices": _Replaced(devices if container.gpus else [])}}},
        **network,
    }


def _inside(request: TrainRequest, run: PlannedRun) -> TrainRequest:
    """What the launcher in the container is asked for: the plan's own numbers, here and now."""
    choices, plan = run.choices, run.plan
    default, data = TrainRequest(), choices.data
    on_gpus, local = plan.device_kind == "cuda", plan.devices_per_node
    open_batch, elastic = bool(plan.batch_candidates), bool(plan.node_shares)
    return replace(
        request,
        config=str(choices.run_dir / RECIPE),
        overrides=(),
        data_root=data.root if not data.made_on_demand else None,
        version=data.version if not data.made_on_demand else None,
        index_dir=data.header.parents[1],  # the image has a default of its own
        device=plan.device_kind,
        gpus=None,
        num_gpus=local if on_gpus else None,
        num_processes=None if on_gpus else local,
        distributed=None,
        batch_size=request.batch_size if open_batch or elastic else plan.device_batch,
        gradient_accumulation=request.gradient_accumulation if open_batch or elastic else plan.accumulation,
        effective_batch=request.effective_batch if open_batch or elastic else None,
        epochs=plan.epochs,
        mixed_precision=None,
        precision=plan.precision,
        workers=plan.workers,
        output_dir=choices.run_dir.parent,
        run=choices.run_dir.name,
        resume=choices.resume,
        grace_seconds=plan.grace_seconds,
        backend=default.backend,
        image=default.image,
        container_name=None,
        network=None,
        detach=False,
        dry_run=False,
        as_json=False,
    )


def _weights_places(content: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Where a recipe names weights: section and key."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key in ("weights", "hand_over") and isinstance(value, str):
                yield content, key
            yield from _weights_places(value)


def _weights_file(name: str) -> Path | None:
    """The file of that name, as the processes find it from the checkout; `None` for a name of `checkpoints list`."""
    path = absolute(ROOT / name)
    return path if path.is_file() else None


def _weights_folders(recipe: Recipe) -> list[Path]:
    """The folders that hold the weights a recipe starts from."""
    names = [section[key] for section, key in _weights_places(recipe.model_dump(mode="json"))]
    files = [_weights_file(name) for name in names]
    return [published_folder() if file is None else file.parent for file in files]


def published_folder() -> Path:
    """Where published weights lie on the host."""
    return absolute(ROOT / weights_folder())


def _covered(mount: Mount, all_mounts: Sequence[Mount]) -> bool:
    """Another mount shows the folder already, with the same rights or more."""
    above = [other for other in all_mounts if other.folder in mount.folder.parents]
    nearest = max(above, key=lambda other: len(other.folder.parts), default=None)
    return nearest is not None and (nearest.writable or not mount.writable)


def _literal(text: str) -> str:
    """A text in which Compose, which replaces `$NAME`, changes nothing."""
    return text.replace("$", "$$")


class _Replaced(list[Any]):
    """A list that takes the place of that of `compose.yaml` instead of adding to it."""


class _Reset:
    """A value of `compose.yaml` that goes away."""


class _Dumper(yaml.SafeDumper):
    """Knows Compose's tags."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always: every value is written out."""
        del data
        return True


_Dumper.add_representer(_Replaced, lambda dumper, value: dumper.represent_sequence("!override", value))
_Dumper.add_representer(_Reset, lambda dumper, _: dumper.represent_scalar("!reset", "null"))
