"""Exit codes of every command, and the errors that carry them.

A command raises one of these errors with a message that names the file or option, the value and the fix;
the command line prints it without a traceback and ends with the error's exit code.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the exit code of the launcher and of the trainer tells the caller."""

    DONE = 0
    CRASHED = 1
    BAD_USAGE = 2
    BAD_DATA = 3
    PREEMPTED = 75
    NO_PROGRESS = 76
    HUNG = 77


class BevnextError(Exception):
    """An error with a message for the user; `fix` says what to do about it."""

    exit_code = ExitCode.CRASHED

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message


class UsageError(BevnextError):
    """A wrong option, recipe or checkpoint for what was asked (exit code 2)."""

    exit_code = ExitCode.BAD_USAGE


class DataError(BevnextError):
    """A data set, index or results file that is missing, damaged or of another kind (exit code 3)."""

    exit_code = ExitCode.BAD_DATA


class DamagedFileError(DataError):
    """A file of a sample that is missing, cut short or damaged: another sample may stand in for this one."""
