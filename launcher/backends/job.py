"""What a job asks of a cluster, and the command that every node of it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from configs.errors import UsageError
from configs.plan_schema import Plan
from launcher.dataset import absolute
from launcher.device_choice import CORES_PER_PROCESS
from launcher.options import TrainRequest
from launcher.planning import PlannedRun
from launcher.supervision import EXTRA_SECONDS
from launcher.train_arguments import train_arguments

RESTARTS: Final = 3
"""Of the processes on all nodes, after one of them came back, where the user says nothing."""
PARTING_SECONDS: Final = 20
"""For the launcher to tell how a run ended, after the processes have gone."""
SHARED_MEMORY_SPARE: Final = 64 << 20
"""Bytes of /dev/shm for what is not a batch."""


@dataclass(frozen=True, slots=True)
class Job:
    """A run on a cluster. Every node runs `bevnext-sam2 ARGUMENTS`, and with several nodes how they meet."""

    run: PlannedRun
    request: TrainRequest
    nodes: int
    gpus_per_node: int
    cpus_per_node: int
    arguments: list[str]
    stop_seconds: int
    """Between the request to stop and the kill."""

    @property
    def shared_memory_bytes(self) -> int:
        """What /dev/shm of a node must hold, in whole MiB."""
        return shared_memory_needed(self.run.plan)


def shared_memory_needed(plan: Plan) -> int:
    """Bytes that /dev/shm of a container must hold, in whole MiB."""
    return math.ceil((plan.shared_memory_bytes + SHARED_MEMORY_SPARE) / 2**20) * 2**20


def stop_seconds(plan: Plan) -> int:
    """Time between the request to stop a launcher and the kill."""
    return plan.grace_seconds + int(EXTRA_SECONDS) + PARTING_SECONDS


def make_job(request: TrainRequest, run: PlannedRun) -> Job:
    """The job of a run that was planned for `request`.

    Raises:
        UsageError: options that a job cannot have.
    """
    _check(request)
    plan = run.plan
    cpus = request.cpus_per_node or CORES_PER_PROCESS * plan.devices_per_node
    return Job(
        run=run,
        request=request,
        nodes=plan.nodes,
        gpus_per_node=plan.devices_per_node if plan.device_kind == "cuda" else 0,
        cpus_per_node=cpus,
        arguments=["train", *train_arguments(_on_a_node(request, run))],
        stop_seconds=stop_seconds(plan),
    )


def _check(request: TrainRequest) -> None:
    fewest, most = request.nnodes or (1, 1)
    if fewest != most:
        raise UsageError(
            f"--nnodes {fewest}:{most}: a job asks for a fixed number of machines", fix=f"use --nnodes {most}"
        )
    chosen = {"--node-rank": request.node_rank, "--rdzv-endpoint": request.rdzv_endpoint, "--port": request.master_port}
    for option, value in chosen.items():
        if value is not None:
            raise UsageError(f"{option} {value}: --backend {request.backend} chooses it", fix="leave it out")
    if request.resume not in ("auto", "none"):
        raise UsageError(
            f"--resume {request.resume}: a job may be started several times, and goes on with what it saved itself",
            fix="use --resume auto; a run can be begun from that checkpoint without --backend",
        )


def _on_a_node(request: TrainRequest, run: PlannedRun) -> TrainRequest:
    """What a node trains: the same, here and now, going on with what is saved."""
    default = TrainRequest()
    several = run.plan.nodes > 1
    config = request.config
    return replace(
        request,
        config=str(absolute(Path(config))) if config and Path(config).is_file() else config,
        data_root=run.choices.data.root,
        version=run.choices.data.version,
        index_dir=run.choices.data.index_dir,
        output_dir=absolute(request.output_dir),
        resume="auto",
        nnodes=(run.plan.nodes, run.plan.nodes) if several else None,
        max_restarts=request.max_restarts or (RESTARTS if several else 0),
        backend=default.backend,
        cpus_per_node=None,
        slurm=(),
        image=default.image,
        namespace=None,
        data_claim=None,
        output_claim=None,
        manifests=default.manifests,
        dry_run=False,
        as_json=False,
    )
