"""Showing a plan without starting anything."""

from __future__ import annotations

from configs.errors import DataError
from launcher.options import TrainRequest
from launcher.own_process import shown
from launcher.plan_table import show_plan
from launcher.planning import decide, plan_run


def preview(request: TrainRequest) -> None:
    """Print the plan of `request`.

    Raises:
        UsageError: as `decide` and `plan_run`.
        DataError: as `plan_run`, and where only an index that is not made yet knows the length of an epoch.
    """
    if request.backend == "docker":
        from launcher.backends.docker_run import show_container

        show_container(request)
        return
    if request.backend != "local":
        from launcher.backends.submission import show_job

        show_job(request)
        return
    run = plan_run(decide(request))
    if not run.samples_known:
        raise DataError(
            "the length of an epoch is not known: " + "; ".join(step.reason for step in run.first),
            fix=f"run `{shown(run.first[-1].arguments)}` (`train` does so by itself), then plan again",
        )
    show_plan(run, as_json=request.as_json)
