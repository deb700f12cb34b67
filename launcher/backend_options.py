"""Options that only one way of starting a run understands: elsewhere they are an error, not ignored."""

from __future__ import annotations

from typing import Final

from configs.errors import UsageError
from launcher.options import TrainRequest

CLUSTERS: Final = ("slurm", "kubernetes")
MEANT_FOR: Final = {
    "cpus_per_node": CLUSTERS,
    "slurm": ("slurm",),
    "image": ("docker", "kubernetes"),
    "container_name": ("docker",),
    "network": ("docker",),
    "detach": ("docker",),
    "namespace": ("kubernetes",),
    "data_claim": ("kubernetes",),
    "output_claim": ("kubernetes",),
    "manifests": ("kubernetes",),
}


def check_backend_options(request: TrainRequest) -> None:
    """Raise `UsageError` where an option is given that the backend has no use for."""
    default = TrainRequest()
    for name, backends in MEANT_FOR.items():
        if getattr(request, name) != getattr(default, name) and request.backend not in backends:
            raise UsageError(
                f"--{name.replace('_', '-')} means nothing with --backend {request.backend}",
                fix=f"add --backend {' or '.join(backends)}, or leave it out",
            )
