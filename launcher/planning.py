"""From the user's request to what will run: recipe, data set, plan, and the exact process."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from configs import run_directory
from configs.errors import UsageError
from configs.plan import Plan, PlanOptions, make_plan
from configs.plan_schema import DeviceFacts
from configs.recipes import load_recipe, with_version
from configs.schema import Recipe
from configs.synthetic_set import SYNTHETIC_VERSION
from launcher.backend_options import check_backend_options
from launcher.dataset import (
    SYNTHETIC_SAMPLES,
    DataChoice,
    Preparation,
    absolute,
    choose_data,
    epoch_samples,
    preparations,
)
from launcher.device_choice import cluster_devices, local_devices
from launcher.measured import measured_before
from launcher.options import TrainRequest
from launcher.run_folder import Launch, check_recipe, check_run, saved_launch, saved_recipe
from launcher.torchrun import (
    BASIC_TRAINER,
    NUSCENES_TRAINER,
    Nodes,
    check_nodes,
    torchrun_command,
    torchrun_environment,
)
from monitoring.devices import GpuSurvey

SMALL_RECIPE: Final = "synthetic/bevnext-tiny"
PUBLISHED_RECIPE: Final = "bevnext/bevnext-stage1"
UNKNOWN: Final = "unknown: the index is not made yet"
UNSEEN: Final = "unknown: the data set cannot be read from here"
HERE: Final = ("local", "docker")
"""Backends that train on this machine, so that its own devices are planned for."""
MANY: Final = 10**9
"""Stands for a number of samples that cannot be known; what follows from it is not shown."""


@dataclass(frozen=True, slots=True)
class Choices:
    """Everything that is decided before the number of samples is known."""

    recipe: Recipe
    recipe_origin: str
    data: DataChoice
    run_dir: Path
    devices: DeviceFacts
    devices_text: str
    nodes: Nodes
    options: PlanOptions
    resume: str
    trainer: str
    sees_data: bool = True
    """The data set lies where this process can read it; in a container it may be elsewhere."""
    profile: tuple[int, int] | None = None
    """First and last step to record."""
    retries: int = 0
    max_restarts: int = 0


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """What will run. `first` must run before it, and is empty once that is done."""

    choices: Choices
    plan: Plan
    first: tuple[Preparation, ...]
    log_dir: Path
    command: list[str]
    environment: dict[str, str]

    @property
    def samples_known(self) -> bool:
        """False where only an index that is not made yet, or not to be seen from here, tells the length of an epoch."""
        return self.plan.origins["epoch_samples"] not in (UNKNOWN, UNSEEN)

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        data = self.choices.data
        return {
            "plan": self.plan.model_dump(mode="json"),
            "data": {"root": str(data.root), "version": data.version, "origin": data.origin},
            "recipe_origin": self.choices.recipe_origin,
            "devices_found": self.choices.devices_text,
            "run_dir": str(self.choices.run_dir),
            "first": [{"reason": step.reason, "arguments": list(step.arguments)} for step in self.first],
            "command": self.command,
            "environment": self.environment,
        }

    def launch(self) -> Launch:
        """What the run directory keeps about this start."""
        data = self.choices.data
        return Launch(
            command=tuple(self.command),
            environment=self.environment,
            data_root=data.root,
            version=data.version,
            index_dir=data.index_dir,
        )


def decide(request: TrainRequest, survey: GpuSurvey | None = None) -> Choices:
    """Check the request against recipe, data and devices.

    Args:
        survey: the GPUs; asked from NVML where left out.

    Raises:
        UsageError: an option, recipe, run or device that does not fit.
    """
    check_backend_options(request)
    resume = request.resume if request.resume in ("auto", "none") else str(absolute(Path(request.resume)))
    name, origin = _named_recipe(request)
    recipe = load_recipe(name, request.overrides)
    run_dir = absolute(request.output_dir) / (request.run or recipe.name)
    root, index_dir = request.data_root, request.index_dir
    if resume != "none":
        saved, launch = saved_recipe(run_dir), saved_launch(run_dir)
        if saved is not None and request.config is None:
            recipe, origin = load_recipe(str(saved), request.overrides), "the run that is resumed"
        if launch is not None and root is None:
            root, index_dir = launch.data_root, index_dir or launch.index_dir
    data = choose_data(root, request.version, index_dir, recipe.data.version)
    recipe = with_version(recipe, data.version)
    if not request.node_rank:
        check_run(run_dir, resume)
        check_recipe(run_dir, recipe)
    nodes = Nodes(request.node_rank, request.rdzv_endpoint, request.master_port)
    if request.backend in HERE:
        check_nodes(*(request.nnodes or (1, 1)), nodes)
        devices, devices_text = local_devices(request, survey)
        if request.backend == "docker":  # a container is given the shared memory that the plan asks for
            devices = devices.model_copy(update={"shared_memory_bytes": None})
    else:
        devices, devices_text = cluster_devices(request)
    return Choices(
        recipe=recipe,
        recipe_origin=origin,
        data=data,
        run_dir=run_dir,
        devices=devices,
        devices_text=devices_text,
        nodes=nodes,
        options=_plan_options(request),
        resume=resume,
        trainer=BASIC_TRAINER if request.basic_training else NUSCENES_TRAINER,
        sees_data=request.backend != "kubernetes" or data.root.is_dir(),
        profile=request.profile,
        retries=request.retries,
        max_restarts=request.max_restarts,
    )


def plan_run(choices: Choices) -> PlannedRun:
    """The plan and the process, with what must be made first.

    Raises:
        UsageError: options that no plan can meet.
        DataError: a data set that is not there, not whole, or not indexed and not to be guessed.
    """
    first = tuple(preparations(choices.data)) if choices.sees_data else ()
    if not choices.sees_data:
        samples, origin = MANY, UNSEEN
    elif not first:
        samples, origin = epoch_samples(choices.data, choices.recipe.data), "index"
    elif choices.data.made_on_demand and not choices.recipe.data.class_balanced:
        samples = SYNTHETIC_SAMPLES.get(choices.recipe.data.train_split, 0)
        origin = "expected: what `data synth` makes"
    else:
        samples, origin = 1, UNKNOWN
    plan = make_plan(
        choices.recipe,
        samples=samples,
        devices=choices.devices,
        options=choices.options,
        measured=measured_before(choices.recipe, choices.devices, choices.run_dir),
    )
    if choices.profile and choices.profile[0] > plan.total_steps:
        raise UsageError(
            "--profile {}:{}: the run has {} steps".format(*choices.profile, plan.total_steps),
            fix=f"choose steps from 1 to {plan.total_steps}",
        )
    origins = {**plan.origins, "epoch_samples": origin, "recipe": choices.recipe_origin}
    plan = plan.model_copy(update={"origins": origins})
    log_dir = choices.run_dir / run_directory.LOGS / _start_name(plan)
    return PlannedRun(
        choices=choices,
        plan=plan,
        first=first,
        log_dir=log_dir,
        command=torchrun_command(
            plan,
            choices.nodes,
            log_dir=log_dir,
            trainer=choices.trainer,
            arguments=_trainer_arguments(choices),
            max_restarts=choices.max_restarts,
        ),
        environment=torchrun_environment(plan),
    )


def _trainer_arguments(choices: Choices) -> Sequence[str]:
    steps = [] if choices.profile is None else ["--profile", "{}:{}".format(*choices.profile)]
    return [*place_arguments(choices), *steps, "--resume", choices.resume]


def place_arguments(choices: Choices) -> Sequence[str]:
    """Where the processes find what they work on."""
    data = choices.data
    index = [] if data.index_dir is None else ["--index-dir", str(data.index_dir)]
    return ["--run-dir", str(choices.run_dir), "--data-root", str(data.root), *index]


def _start_name(plan: Plan) -> str:
    """Name of a start's logs; several machines start the same run."""
    now = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    return now if plan.nodes == 1 else f"{now}-{socket.gethostname()}-{os.getpid()}"


def _named_recipe(request: TrainRequest) -> tuple[str, str]:
    """Name or path of the recipe of a new run, and who chose it."""
    if request.config is not None:
        return request.config, "option --config"
    root = request.data_root
    if root is None or (root / SYNTHETIC_VERSION).is_dir() or request.version == SYNTHETIC_VERSION:
        return SMALL_RECIPE, "default on synthetic data"
    return PUBLISHED_RECIPE, "default on recorded data: the published stage 1"


def _plan_options(request: TrainRequest) -> PlanOptions:
    if request.precision is not None and request.mixed_precision is not None:
        flag = "--mixed-precision" if request.mixed_precision else "--no-mixed-precision"
        raise UsageError(f"--precision {request.precision} and {flag} are both given", fix="leave one out")
    mixed = {None: request.precision, True: "mixed", False: "unmixed"}[request.mixed_precision]
    fewest, most = request.nnodes or (None, None)
    return PlanOptions.model_validate(
        {
            "device": None if request.device == "auto" else request.device,
            "gpus": request.gpus,
            "num_devices": request.num_gpus or request.num_processes,
            "distributed": request.distributed,
            "nodes": most,
            "min_nodes": None if fewest == most else fewest,
            "batch_size": request.batch_size,
            "effective_batch": request.effective_batch,
            "gradient_accumulation": request.gradient_accumulation,
            "lr_scaling": request.lr_scaling,
            "epochs": request.epochs,
            "precision": mixed,
            "workers": request.workers,
            "grace_seconds": request.grace_seconds,
        }
    )
