"""`--backend slurm|kubernetes`: the plan, then a job for the cluster, shown, written or submitted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from configs.errors import DataError, ExitCode, UsageError
from launcher.backends import kubernetes, slurm
from launcher.backends.job import Job, make_job
from launcher.options import TrainRequest
from launcher.own_process import quoted, shown
from launcher.plan_table import show_plan
from launcher.planning import decide, plan_run


def show_job(request: TrainRequest) -> None:
    """Show the plan and the job, and write nothing. Raises as `submit_job`."""
    job = plan_job(request)
    show_plan(job.run, as_json=request.as_json, job=texts(job))


def submit_job(request: TrainRequest) -> int:
    """Show the plan, then submit the job, or write its manifests; returns the exit code.

    Raises:
        UsageError: options that a job cannot have, or no sbatch here.
        DataError: an index that all nodes would have to make at once.
        BevnextError: the cluster refuses the job.
    """
    job = plan_job(request)
    show_plan(job.run, as_json=request.as_json, job={})
    if request.backend == "slurm":
        click.echo(slurm.submit(job), err=request.as_json)
    else:
        for path in write_manifests(job, request.manifests):
            click.echo(f"written {path}: kubectl apply -f {quoted([str(path)])}", err=request.as_json)
    return int(ExitCode.DONE)


def plan_job(request: TrainRequest) -> Job:
    """The job that a request means."""
    if request.backend == "kubernetes":
        _check_paths(request)
    run = plan_run(decide(request))
    if run.first:
        missing = "; ".join(step.reason for step in run.first)
        raise DataError(
            f"all nodes of a job would make what is missing, at the same time: {missing}",
            fix=", then ".join(f"`{shown(step.arguments)}`" for step in run.first),
        )
    return make_job(request, run)


def texts(job: Job) -> dict[str, str]:
    """What the job is made of: name of a file, and what is in it."""
    if job.request.backend == "slurm":
        return {slurm.SCRIPT: slurm.batch_script(job)}
    name = kubernetes.job_name(job.run.choices.run_dir.name)
    kinds: dict[str, Callable[[Job], list[kubernetes.Manifest]]] = {
        f"{name}.trainjob.yaml": kubernetes.train_job,
        f"{name}.job.yaml": kubernetes.plain_job,
    }
    return {file: kubernetes.as_yaml(render(job)) for file, render in kinds.items()}


def write_manifests(job: Job, folder: Path) -> list[Path]:
    """Write both manifests; returns where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in texts(job).items():
        (folder / name).write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written


def _check_paths(request: TrainRequest) -> None:
    """Paths of a Kubernetes job are paths in its containers."""
    for option, path in {"--data-root": request.data_root, "--output-dir": request.output_dir}.items():
        if path is None or not path.is_absolute():
            raise UsageError(
                f"{option} {path or ''}: with --backend kubernetes this is a folder in the container",
                fix=f"give it as an absolute path, such as {option} /data",
            )
