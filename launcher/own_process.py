"""Our own commands as processes: found whatever the working directory, and shown as the user would type them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
"""Where our packages lie; processes start here, so that `training` is ours and not the one that sam2 installs."""


def own_command(arguments: Sequence[str]) -> list[str]:
    """The process that runs `bevnext-sam2 ARGUMENTS`; paths in the arguments must be absolute."""
    return [sys.executable, "-m", "launcher", *arguments]


def shown(arguments: Sequence[str]) -> str:
    """`bevnext-sam2 ARGUMENTS`, quoted for a shell."""
    return quoted(["bevnext-sam2", *arguments])


def quoted(arguments: Sequence[str]) -> str:
    """The arguments as bash, zsh and ksh read them back byte for byte, in one line that a terminal can show."""
    return " ".join(shlex.quote(argument) if argument.isprintable() else _escaped(argument) for argument in arguments)


def _escaped(argument: str) -> str:
    """`$'...'`: line breaks, control characters and bytes that are no UTF-8 as octal escapes."""
    shows = {byte: chr(byte) for byte in range(0x20, 0x7F)} | {ord("'"): r"\'", ord("\\"): r"\\"}
    return "$'" + "".join(shows.get(byte, f"\\{byte:03o}") for byte in os.fsencode(argument)) + "'"


def own_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of such a process: ours comes first on the path."""
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
    return {**os.environ, "PYTHONPATH": path, **(extra or {})}


def shell_line(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """A line for a shell that starts the same process as `command` in `ROOT` with `environment` added."""
    settings = [f"{name}={quoted([value])}" for name, value in environment.items()]
    return " ".join([f"cd {quoted([str(ROOT)])} &&", *settings, quoted(command)])
