"""`train`: the plan, then the run."""

from __future__ import annotations

import click

from configs.outlived_reader import readers_outlived
from launcher.options import TrainRequest, train_options


@click.command()
@train_options
def train(request: TrainRequest) -> int:
    """Show the plan, then train: one process per device, started by torchrun.

    The run directory <output dir>/<run> holds recipe, plan, logs, curves, checkpoints and results. Without a data set
    the synthetic one is made and used. A missing or outdated index is made first. SIGTERM, SIGINT (Ctrl-C) and
    SIGUSR1 finish the step, save, and end with code 75; the same command with --resume auto goes on.

    \b
    bevnext-sam2 train
    bevnext-sam2 train --config bevnext/bevnext-stage1 --data-root /data/nuscenes --num-gpus 8
    bevnext-sam2 train --run my-run --resume auto
    bevnext-sam2 train --docker --num-gpus 2

    Exit codes: 0 done, 1 crashed, 2 bad option or recipe, 3 bad data, 75 stopped and saved, 76 no progress, 77 hung.
    """
    if request.dry_run:
        from launcher.preview import preview

        preview(request)
        return 0
    with readers_outlived():
        return _train(request)


def _train(request: TrainRequest) -> int:
    if request.backend == "docker":
        from launcher.backends.docker_run import train_in_container

        return train_in_container(request)
    if request.backend != "local":
        from launcher.backends.submission import submit_job

        return submit_job(request)
    from launcher.training_run import train_run

    return train_run(request)
