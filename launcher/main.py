"""`bevnext-sam2`: the commands, and what their errors look like to the caller.

A command lives in the package it belongs to and is imported when it is called, so `--help` imports none of them.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Sequence
from typing import Final, NoReturn

import click

from configs.errors import BevnextError, ExitCode
from configs.lazy_group import LazyGroup
from configs.outlived_reader import lead_nowhere

COMMANDS: Final = {
    "quickstart": ("launcher.quickstart_command:quickstart", "The whole job on synthetic data, from nothing."),
    "plan": ("launcher.plan_command:plan", "Show what `train` would do, and stop."),
    "train": ("launcher.train_command:train", "Show the plan, then train on all devices."),
    "eval": ("evaluation.commands:eval_command", "Official nuScenes metrics of a run or a results file."),
    "infer": ("evaluation.commands:infer_command", "Boxes, pictures and a film of a scene or sample."),
    "demo": ("evaluation.commands:demo_command", "Boxes and masks of every object, drawn and cut out."),
    "report": ("evaluation.commands:report_command", "One HTML page of a run."),
    "monitor": ("monitoring.commands:monitor", "What GPUs and runs are doing, and what limits them."),
    "data": ("scenes.commands:data", "Make, index and check data sets."),
    "checkpoints": ("checkpoints.commands:checkpoints", "Published weights: list, fetch, convert, check."),
    "sam2": ("integration.masks.commands:sam2", "Train and measure SAM 2's masks, label data sets."),
    "doctor": ("launcher.doctor.command:doctor", "Find what is wrong with this machine, and the fix."),
    "bench": ("benchmarks.commands:bench", "Measure speed against a named baseline."),
}
INTERRUPTED: Final = 130
"""The shell's code for a command that Ctrl-C ended."""
FIX_OF: Final = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room, or write to another place"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "write to another place, or correct its rights"),
}
"""What the user can do about an error of the file system; any other is ours."""


@click.group(
    cls=LazyGroup,
    subcommands=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Exit codes: 0 done, 1 crashed, 2 bad usage or recipe, 3 bad data, 75 stopped and saved (start again), "
    "76 no progress, 77 hung. `bevnext-sam2 COMMAND --help` says more.",
)
@click.version_option(package_name="bevnext-sam2", prog_name="bevnext-sam2")
def command_line() -> None:
    """Train, evaluate and look at multi-camera 3D object detectors.

    Without a data set every command works on the synthetic driving set, and says so.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with the exit code of `configs.errors.ExitCode`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a file name may hold bytes that the terminal cannot show
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; every error has been shown. A command may return its own code."""
    try:
        returned = command_line.main(arguments, prog_name="bevnext-sam2", standalone_mode=False)
        if sys.stdout:  # a process may be started without
            sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        show_error("interrupted")
        return INTERRUPTED
    except Exception as error:
        return explain(error)
    return returned if isinstance(returned, int) else int(ExitCode.DONE)


def explain(error: Exception) -> int:
    """Show what went wrong: one message where the cause is known, else the traceback. Returns the exit code."""
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, BevnextError):
        show_error(str(error))
        return int(error.exit_code)
    if isinstance(error, BrokenPipeError):
        # the reader (`| head`) has gone; without this the interpreter complains again when it flushes at the end
        lead_nowhere(sys.stdout)
    elif isinstance(error, OSError) and error.errno in FIX_OF:
        place = f"{error.filename}: " if error.filename else ""
        show_error(f"{place}{error.strerror}\n  fix: {FIX_OF[error.errno]}")
    else:
        traceback.print_exception(error)
    return int(ExitCode.CRASHED)


def show_error(text: str) -> None:
    """One error, on standard error."""
    click.echo(f"{click.style('error:', fg='red', bold=True)} {text}", err=True)
