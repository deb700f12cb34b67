"""Slurm: a batch script that starts our launcher once on each node, and requeues itself after a stop that was saved."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from configs import run_directory
from configs.errors import BevnextError, ExitCode, UsageError
from launcher.backends.job import Job
from launcher.own_process import ROOT, quoted

SCRIPT: Final = "slurm.sh"
"""In the run directory."""
LOG: Final = "slurm-%j.log"

_TEMPLATE: Final = """\
#!/usr/bin/env bash
# Written by `bevnext-sam2 train --backend slurm`. Submit it again to go on: the run resumes from its newest checkpoint.
{options}
set -uo pipefail

# scancel and preemption reach this script, too: then Slurm decides whether the job comes back.
ended_by_slurm=
trap 'ended_by_slurm=yes' TERM

cd {root} || exit {crashed}
{meet}srun --kill-on-bad-exit=0 --cpus-per-task={cpus} {command}
code=$?

# {preempted}: the time limit came near, the step was finished and saved. Start again where it stopped.
if [ "$code" -eq {preempted} ] && [ -z "$ended_by_slurm" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""
_MEET: Final = """\
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
meet="${hosts[0]}:$((20000 + SLURM_JOB_ID % 20000))"
"""


def batch_script(job: Job) -> str:
    """The script for sbatch.

    Raises:
        UsageError: a path that an #SBATCH line cannot hold.
    """
    several = job.nodes > 1
    command = quoted([sys.executable, "-m", "launcher", *job.arguments])
    return _TEMPLATE.format(
        options="\n".join(f"#SBATCH --{option}" for option in _options(job)),
        root=quoted([str(ROOT)]),
        crashed=int(ExitCode.CRASHED),
        preempted=int(ExitCode.PREEMPTED),
        meet=_MEET if several else "",
        cpus=job.cpus_per_node,  # newer versions of Slurm do not hand it on to the step
        command=f'{command} --rdzv-endpoint="$meet"' if several else command,
    )


def submit(job: Job) -> str:
    """Write the script into the run directory and submit it; returns what sbatch says.

    Raises:
        UsageError: there is no sbatch here.
        BevnextError: sbatch refuses the job.
    """
    script = script_path(job)
    (job.run.choices.run_dir / run_directory.LOGS).mkdir(parents=True, exist_ok=True)
    script.write_text(batch_script(job), encoding="utf-8", errors="surrogateescape")
    try:
        done = subprocess.run(["sbatch", str(script)], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UsageError(
            f"--backend slurm: there is no sbatch here; the script is {script}", fix=f"on a login node: sbatch {script}"
        ) from error
    if done.returncode:
        raise BevnextError(
            f"sbatch {script} ended with exit code {done.returncode}: {done.stderr.strip()}",
            fix="correct the options (--slurm KEY=VALUE sets any #SBATCH option) and submit again",
        )
    return done.stdout.strip()


def script_path(job: Job) -> Path:
    """Where the script lies."""
    return job.run.choices.run_dir / SCRIPT


def _options(job: Job) -> list[str]:
    """The #SBATCH options; the user's come last and win."""
    run_dir = job.run.choices.run_dir
    devices = [f"gpus-per-node={job.gpus_per_node}"] if job.gpus_per_node else []
    return [
        f"job-name={_word(run_dir.name)}",
        f"nodes={job.nodes}",
        "ntasks-per-node=1",
        *devices,
        f"cpus-per-task={job.cpus_per_node}",
        f"signal=TERM@{job.stop_seconds}",
        "requeue",
        "open-mode=append",
        f"output={_word(str(run_dir / run_directory.LOGS))}/{LOG}",
        *job.request.slurm,
    ]


def _word(text: str) -> str:
    """A value that sbatch takes as it stands: spaces, quotes, backslashes and `%` mean something to it."""
    if text.isprintable() and not any(character.isspace() or character in "\"'\\%" for character in text):
        return text
    raise UsageError(
        f"--backend slurm: {text!r} cannot stand in an #SBATCH line",
        fix="choose --run and --output-dir without spaces, quotes, backslashes and %",
    )
