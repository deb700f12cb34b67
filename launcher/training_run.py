"""The run itself: what must be made first, the run directory, torchrun under guard, and the verdict."""

from __future__ import annotations

import sys
import uuid
from contextlib import nullcontext
from dataclasses import replace

import click

from configs import run_directory
from configs.errors import ExitCode
from configs.launch import LAUNCH_VARIABLE
from launcher.batch_search import search_of, with_found_batch
from launcher.dataset import Preparation
from launcher.options import TrainRequest
from launcher.outcome import TORCHRUN_LOG, Verdict, ended_for_good, judge
from launcher.own_process import ROOT, own_command, own_environment, shown
from launcher.plan_table import show_plan
from launcher.planning import PlannedRun, decide, plan_run
from launcher.retries import run_with_retries
from launcher.run_folder import alone_in, write_run
from launcher.supervision import supervise

PREPARATION_GRACE_SECONDS = 10.0


def train_run(request: TrainRequest) -> int:
    """Train as the request says; returns the exit code.

    Raises:
        BevnextError: for whatever is wrong before the processes start; nothing has been written to the run then.
    """
    choices = decide(request)
    run = plan_run(choices)
    if run.first:
        for step in run.first:
            if code := _prepare(step, stdout_is_taken=request.as_json):
                return code
        run = plan_run(choices)
    with alone_in(choices.run_dir) if run.plan.nodes == 1 else nullcontext():  # several machines share the directory
        return _train(run, request)


def _train(run: PlannedRun, request: TrainRequest) -> int:
    choices = run.choices
    if run.plan.batch_candidates:
        verdict = _try_batches(run, as_json=request.as_json)
        if verdict.code is not ExitCode.DONE:
            return report(verdict, run)
        if verdict.stopped:
            return _stopped_before()
        run = with_found_batch(run)
    show_plan(run, as_json=request.as_json)
    write_run(choices.run_dir, choices.recipe, run.plan, run.launch())
    launch = uuid.uuid4().hex
    run = replace(run, environment={**run.environment, LAUNCH_VARIABLE: launch})
    verdict = run_with_retries(
        choices.run_dir,
        launch,
        choices.retries,
        lambda attempt: start(run, attempt=attempt, stdout_is_taken=request.as_json),
        say,
    )
    return report(verdict, run)


def start(run: PlannedRun, what: str = "training", *, attempt: int = 0, stdout_is_taken: bool = False) -> Verdict:
    """Run the planned process to its end.

    Args:
        attempt: logs of every attempt are kept.
        stdout_is_taken: what the processes say goes to standard error.
    """
    if attempt:
        (run.log_dir / TORCHRUN_LOG).rename(run.log_dir / f"{attempt - 1}-{TORCHRUN_LOG}")
        (run.choices.run_dir / run_directory.OUTCOME).unlink(missing_ok=True)
    run.log_dir.mkdir(parents=True, exist_ok=True)
    say(f"{what} starts; error streams go to {run.log_dir}")
    with (run.log_dir / TORCHRUN_LOG).open("wb") as log:
        ended = supervise(
            run.command,
            cwd=ROOT,
            environment=own_environment(run.environment),
            grace_seconds=run.plan.grace_seconds,
            say=say,
            stdout=sys.stderr if stdout_is_taken else None,
            stderr=log,
            is_over=lambda: run.plan.nodes > 1 and ended_for_good(run.choices.run_dir),
        )
    return judge(run.choices.run_dir, run.log_dir, ended, speaks=run.plan.nodes == 1)


def report(verdict: Verdict, run: PlannedRun) -> int:
    """Tell how it ended; returns the exit code."""
    if verdict.code is ExitCode.PREEMPTED:
        say(f"{verdict.text or f'stopped and saved in {run.choices.run_dir}'}; --resume auto goes on")
    elif verdict.code is not ExitCode.DONE:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {verdict.text}", err=True)
        say(f"logs: {run.log_dir}")
    return int(verdict.code)


def say(text: str) -> None:
    """A line about the run, on standard error."""
    click.echo(f"{click.style('[train]', bold=True)} {text}", err=True)


def _try_batches(run: PlannedRun, *, as_json: bool) -> Verdict:
    """Let the processes of the run find the largest batch that fits, before the plan is final."""
    if not as_json:
        show_plan(run, as_json=False)
    write_run(run.choices.run_dir, run.choices.recipe, run.plan, run.launch())
    return start(search_of(run), "the search for the largest batch", stdout_is_taken=as_json)


def _prepare(step: Preparation, *, stdout_is_taken: bool) -> int:
    """Run a command of ours; returns its exit code, or that of a stop, which it need not have noticed."""
    say(f"{step.reason}: running `{shown(step.arguments)}`")
    ended = supervise(
        own_command(step.arguments),
        cwd=ROOT,
        environment=own_environment(),
        grace_seconds=PREPARATION_GRACE_SECONDS,
        say=say,
        stdout=sys.stderr if stdout_is_taken else None,
    )
    if ended.asked_to_stop:
        return _stopped_before()
    if ended.returncode:
        say(f"`{shown(step.arguments)}` failed")
    return ended.exit_code


def _stopped_before() -> int:
    say("stopped before the training began; nothing is lost, and the same command begins again")
    return int(ExitCode.PREEMPTED)
