"""`--batch-size auto`: a pass of the run's own processes finds the largest batch, then the plan is made with it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from configs import run_directory
from configs.errors import UsageError
from launcher.planning import PlannedRun, place_arguments, plan_run
from launcher.torchrun import torchrun_command

SEARCH: Final = "training.batch_size"
"""The module that tries."""


def search_of(run: PlannedRun) -> PlannedRun:
    """The pass that tries the candidates of a run's plan; an earlier answer is forgotten."""
    choices, log_dir = run.choices, run.log_dir / "batch_size"
    (choices.run_dir / run_directory.BATCH_SIZE).unlink(missing_ok=True)
    command = torchrun_command(
        run.plan, choices.nodes, log_dir=log_dir, trainer=SEARCH, arguments=place_arguments(choices)
    )
    return replace(run, log_dir=log_dir, command=command)


def with_found_batch(run: PlannedRun) -> PlannedRun:
    """The run planned again with what the pass has found.

    Raises:
        UsageError: it left no answer.
    """
    path = run.choices.run_dir / run_directory.BATCH_SIZE
    try:
        answer = json.loads(path.read_bytes())
        found, tried = int(answer["device_batch"]), dict(answer["tried"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--batch-size auto: {path} holds no answer ({error})", fix="give the batch as a number"
        ) from error
    choices = replace(run.choices, options=run.choices.options.model_copy(update={"batch_size": found}))
    planned = plan_run(choices)
    trials = ", ".join(f"{number} {'fits' if fits else 'does not'}" for number, fits in tried.items())
    origins = {**planned.plan.origins, "device_batch": f"found by trying: {trials}"}
    return replace(planned, plan=planned.plan.model_copy(update={"origins": origins}))
