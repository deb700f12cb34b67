"""The command line of the entry scripts. No torch until it is read."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from configs.outlived_reader import outlive_reader

from .start_options import StartOptions


def entry_command(*, config: str, data_root: str) -> click.Command:
    """The command of an entry script with its defaults; it ends the process with the run's exit code."""

    @click.command(context_settings={"show_default": True})
    @click.option("--run-dir", type=click.Path(path_type=Path), help="Run directory [default: outputs/<recipe>].")
    @click.option("--data-root", "--data-path", default=data_root, type=click.Path(path_type=Path), help="Data set.")
    @click.option("--version", help="Version of the data set [default: the recipe's].")
    @click.option("--index-dir", type=click.Path(path_type=Path), help="Where indexes lie, for read-only data.")
    @click.option("--config", default=config, help="Recipe: a name or a YAML file.")
    @click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override a value of the recipe.")
    @click.option("--resume", default="auto", metavar="auto|none|PATH", help="Checkpoint to go on from.")
    @click.option("--device", metavar="cpu|cuda|...", help="Device type [default: what is there].")
    @click.option("--gpus", callback=_device_list, metavar="0,1,...", help="Devices [default: one per process].")
    @click.option("--epochs", type=click.IntRange(1))
    @click.option("--batch-size", type=click.IntRange(1), help="Samples of a micro-batch on one device.")
    @click.option("--gradient-accumulation", type=click.IntRange(1), help="Micro-batches of a step.")
    @click.option("--lr-scaling", type=click.Choice(["linear", "sqrt", "none"]))
    @click.option("--mixed-precision/--no-mixed-precision", default=None, help="bf16 (fp16 on old GPUs), or fp32.")
    @click.option("--workers", type=click.IntRange(0), help="Loader processes per device.")
    @click.option("--threads", type=click.IntRange(1), help="Compute threads of a process.")
    @click.option("--profile", callback=_steps, metavar="FIRST:LAST", help="Record a trace of these optimiser steps.")
    @click.option(
        "--distributed",
        is_flag=False,
        flag_value="auto",
        default="auto",
        type=click.Choice(["auto", "ddp", "dp"]),
        help="One process per device always; dp is accepted and does the same.",
    )
    @click.option("--force-config", is_flag=True, hidden=True, help="Accepted for old command lines; no effect.")
    @click.option("--local_rank", "--local-rank", type=int, hidden=True, help="torchrun's environment decides.")
    @click.pass_context
    def command(context: click.Context, /, **given: Any) -> None:
        if given.pop("distributed") == "dp":
            click.echo(
                "note: --distributed dp is an old name; one process per device (ddp) does the same step", err=True
            )
        for accepted in ("force_config", "local_rank"):
            given.pop(accepted)
        given["config_given"] = context.get_parameter_source("config") is ParameterSource.COMMANDLINE
        from .run import run_process  # here: mistakes in options are told before torch is imported

        sys.exit(run_process(StartOptions(**given)))

    return command


def run_as_script(command: click.Command) -> NoReturn:
    """Run an entry command as the program, and leave without Python's clean-up.

    Taking a process with torch to pieces costs one to two seconds of computing, which a run that was asked to stop may
    not have; files, processes and connections are closed by then. Loader workers end with their process.
    """
    code: int | str | None = 1
    try:
        command()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        if stream:
            outlive_reader(stream).flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _device_list(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    del context, option
    if text is None:
        return None
    try:
        return tuple(int(item) for item in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a list such as 0,1") from error


def _steps(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, int] | None:
    del context, option
    if text is None:
        return None
    first, _, last = text.partition(":")
    if first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last):
        return int(first), int(last)
    raise click.BadParameter(f"{text!r} is not a range of steps such as 10:13")
