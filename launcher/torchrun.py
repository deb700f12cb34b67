"""The process that trains: torchrun with one worker per device, every argument passed on as it is."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from configs.errors import UsageError
from configs.plan_schema import Plan

NUSCENES_TRAINER: Final = "training.train_bevnext_sam2_nuscenes"
BASIC_TRAINER: Final = "training.train_bevnext_sam2"


@dataclass(frozen=True, slots=True)
class Nodes:
    """How the machines of a run find each other."""

    node_rank: int | None = None
    endpoint: str | None = None
    """host:port"""
    port: int | None = None
    """Port on a single machine; `None` takes a free one."""


def check_nodes(fewest: int, most: int, nodes: Nodes) -> None:
    """Raise `UsageError` where the options about machines do not fit each other, or the port is taken."""
    count = str(most) if fewest == most else f"{fewest}:{most}"
    if most > 1 and nodes.endpoint is None:
        raise UsageError(f"--nnodes {count} needs a place to meet", fix="add --rdzv-endpoint HOST:PORT of one machine")
    if most == 1 and (nodes.endpoint is not None or nodes.node_rank not in (None, 0)):
        raise UsageError("--rdzv-endpoint and --node-rank are for several machines", fix="add --nnodes N")
    if nodes.node_rank is not None and nodes.node_rank >= most:
        raise UsageError(f"--node-rank {nodes.node_rank} of --nnodes {count}", fix=f"ranks go from 0 to {most - 1}")
    if nodes.node_rank is not None and fewest != most:
        raise UsageError(
            f"--nnodes {count} and --node-rank exclude each other", fix="leave out --node-rank: machines come and go"
        )
    if nodes.port is None:
        return
    if most > 1:
        raise UsageError("--master-port is for one machine", fix="the port of several stands in --rdzv-endpoint")
    try:
        socket.create_server(("127.0.0.1", nodes.port)).close()
    except OSError as error:
        raise UsageError(
            f"--master-port {nodes.port}: {error.strerror}", fix="leave it out to take a free one"
        ) from error


def torchrun_command(
    plan: Plan, nodes: Nodes, *, log_dir: Path, trainer: str, arguments: Sequence[str], max_restarts: int = 0
) -> list[str]:
    """The argument vector of torchrun; it runs in `own_process.ROOT`, so all paths are absolute.

    Standard output of local rank 0 stays on the terminal; all other streams of the workers go to files in `log_dir`.
    """
    workers = plan.devices_per_node
    redirects = ",".join(f"{rank}:{2 if rank == 0 else 3}" for rank in range(workers))
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        *_rendezvous(plan, nodes),
        *("--nproc-per-node", str(workers)),
        *(("--max-restarts", str(max_restarts)) if max_restarts else ()),
        *("--signals-to-handle", "SIGTERM,SIGINT,SIGUSR1"),
        *("--log-dir", str(log_dir), "--redirects", redirects),
        *("-m", trainer, *arguments),
    ]


def torchrun_environment(plan: Plan) -> dict[str, str]:
    """What the workers and torchrun need beside the environment that is there."""
    environment = {
        "OMP_NUM_THREADS": str(plan.threads),
        # how long torchrun waits between passing a signal on and killing the workers
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(plan.grace_seconds),
    }
    if plan.nodes > 1:
        # a machine that comes back would wait in vain for the address of a store that the others share already
        # (pytorch/pytorch#135712)
        environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if plan.device_kind == "cuda":
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # the order of NVML, in which the plan counts
        environment["TORCH_FR_BUFFER_SIZE"] = "20000"  # NCCL's flight recorder: the watchdog writes it to the run
    return environment


def _rendezvous(plan: Plan, nodes: Nodes) -> list[str]:
    if plan.nodes == 1:
        if nodes.port is None:
            return ["--standalone"]
        return ["--nnodes", "1", "--master-addr", "127.0.0.1", "--master-port", str(nodes.port)]
    endpoint = nodes.endpoint or ""  # several nodes have one, see check_nodes
    host, _, port = endpoint.rpartition(":")
    if nodes.node_rank is not None:
        fixed = ("--node-rank", str(nodes.node_rank), "--master-addr", host, "--master-port", port)
        return ["--nnodes", str(plan.nodes), *fixed]
    count = f"{plan.node_shares[0].nodes}:{plan.nodes}" if plan.node_shares else str(plan.nodes)
    meet = ("--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", "bevnext-sam2")
    return ["--nnodes", count, *meet]
